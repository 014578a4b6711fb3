"""Runs small Python programs apart: an interpreter of their own that can compute and print, and nothing else (see `confinement`)."""

import contextlib
import functools
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHILD = Path(__file__).with_name("confinement.py")
NO_FILTER = 86


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
    """Run a program to its end. It counts as finished only if its last line was reached: leaving early (`sys.exit`, `os._exit`) does not, and the proof
    of having reached it lies where the program's own code cannot read it.

    strict: refuse (RuntimeError) where the kernel cannot filter system calls, so that only the limits and the audit hook would stand.
    """
    limits = limits or Limits()
    proof, code = secrets.token_hex(16), program.encode("utf-8", "surrogatepass")
    command = [sys.executable, "-I", "-S", "-B", str(CHILD), *map(str, (limits.seconds, limits.memory, limits.output, len(code), len(proof)))]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            command + ["strict"] * strict, cwd=folder, env={}, stdin=subprocess.PIPE, stdout=printed, stderr=complaints, start_new_session=True
        )
        try:
            child.communicate(code + proof.encode(), timeout=2 * limits.seconds)
            reason = ""
        except subprocess.TimeoutExpired:
            reason = f"more than {2 * limits.seconds} s"
        finally:
            end(child)
        if child.returncode == NO_FILTER and tail(complaints, len(proof)) == proof:
            raise RuntimeError("this kernel cannot filter system calls, so the program was not run")
        output, trouble = (tail(file, limits.output + len(proof) + 1) for file in (printed, complaints))
    ending = "\n" + proof
    if not reason and child.returncode == 0 and output.endswith(ending):
        return Run(True, output.removesuffix(ending))
    if not reason and child.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        reason = f"more than {limits.seconds} s of CPU time"
    last = trouble.strip().splitlines()
    return Run(False, output.removesuffix(ending), reason or (last[-1][:200] if last else f"left with code {child.returncode} before its end"))


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
