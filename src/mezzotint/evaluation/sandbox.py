"""Runs small Python programs apart: an interpreter of their own that can compute and print, and nothing else (see `confinement` and `watched`)."""

import contextlib
import functools
import os
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHILD = Path(__file__).with_name("confinement.py")
ENDED, NO_FILTER = 0o400, 0o200
"""What the file behind a run's stdout has for a mode once the program came to its end, or where the kernel cannot filter. It begins with neither."""


@dataclass(frozen=True)
class Limits:
    """seconds: of CPU time, and twice that of waiting in all; memory: bytes of address space; output: bytes the program may print."""

    seconds: int = 5
    memory: int = 512 * 1024 * 1024
    output: int = 1024 * 1024

    def __post_init__(self) -> None:
        for name in ("seconds", "memory", "output"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class Run:
    """How a program ended. finished: it reached its last line; output: what it printed; reason: why it did not finish, in a few words."""

    finished: bool
    output: str
    reason: str = ""


def execute(program: str, limits: Limits | None = None, *, strict: bool = False) -> Run:
    """Run a program to its end. It counts as finished only if its last line was reached: leaving early (`sys.exit`, `os._exit`) does not. That it was is
    told by the mode of a file, which the program itself may not change; there is no word that it could find and say.

    strict: refuse (RuntimeError) where the kernel cannot filter system calls, so that only the limits and the audit hook would stand.
    """
    limits = limits or Limits()
    command = [sys.executable, "-I", "-S", "-B", str(CHILD), *map(str, (limits.seconds, limits.memory, limits.output, ENDED, NO_FILTER))]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            command + ["strict"] * strict, cwd=folder, env={}, stdin=subprocess.PIPE, stdout=printed, stderr=complaints, start_new_session=True
        )
        try:
            child.communicate(program.encode("utf-8", "surrogatepass"), timeout=2 * limits.seconds)
            reason = ""
        except subprocess.TimeoutExpired:
            reason = f"more than {2 * limits.seconds} s"
        finally:
            end(child)
        mode = stat.S_IMODE(os.fstat(printed.fileno()).st_mode)
        output, trouble = (tail(file, limits.output + 1) for file in (printed, complaints))
    if mode == NO_FILTER:
        raise RuntimeError("this kernel cannot filter system calls, so the program was not run")
    if not reason and child.returncode == 0 and mode == ENDED:
        return Run(True, output)
    if not reason and child.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        reason = f"more than {limits.seconds} s of CPU time"
    last = trouble.strip().splitlines()
    return Run(False, output, reason or (last[-1][:200] if last else f"left with code {child.returncode} before its end"))


def end(child: subprocess.Popen) -> None:
    """Nothing of the child's session survives it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def tail(file, size: int) -> str:
    file.seek(0)
    return file.read(size).decode("utf-8", "replace")


@functools.cache
def filtered() -> bool:
    """True if this machine's kernel can take a program's system calls away."""
    try:
        return execute("print(1)", strict=True).finished
    except RuntimeError:
        return False


def run(program: str) -> str | None:
    """What the program printed, or None if it did not reach its end."""
    done = execute(program)
    return done.output if done.finished else None
