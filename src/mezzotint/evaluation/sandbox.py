"""Runs a small Python program apart: its own interpreter, limits on time, memory, processes and files, an empty folder."""

import resource
import subprocess
import sys
import tempfile

SECONDS = 5
BYTES = 512 * 1024 * 1024


def limit() -> None:
    """In the child before it starts: CPU time, address space, no new files of any size, no new processes."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def run(program: str) -> str | None:
    """What the program printed, or None if it failed or ran out of time."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-c", program],
                cwd=folder,
                env={},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                preexec_fn=limit,
                check=False,
            )
        except (subprocess.TimeoutExpired, UnicodeDecodeError, ValueError):
            return None
    return done.stdout if done.returncode == 0 else None
