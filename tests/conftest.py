"""Shared pieces: shape checking, the golden folder, tiny models, and the count of golden cases that ran."""

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

SHAPES = install_import_hook("mezzotint", "checker.check")

settings.register_profile("mezzotint", deadline=None)  # how long an example takes says more about the machine's load than about the code
settings.load_profile("mezzotint")

GOLDEN = Path(os.environ.get("MEZZOTINT_GOLDEN") or Path(__file__).parent / "golden")
HERE = Path(__file__).parent / "golden"
RAN: Counter[str] = Counter()

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or min(4, os.cpu_count() or 1)))


@pytest.fixture(scope="session")
def tiny():
    """The tiny LLaDA and Dream checkpoints that ship with the tests."""
    from mezzotint import load_model

    return {"llada": load_model(HERE / "dpad" / "ckpt_llada_tiny"), "dream": load_model(HERE / "dpad" / "ckpt_dream_tiny")}


@pytest.fixture(scope="session")
def bundled():
    """The model that ships with the package, and its tokenizer."""
    from mezzotint import load

    return load()


def pytest_sessionfinish(session):
    """A worker of a parallel run tells its count."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["golden"] = dict(RAN)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    RAN.update(getattr(node, "workeroutput", {}).get("golden", {}))


def pytest_terminal_summary(terminalreporter):
    if RAN:
        terminalreporter.write_line("golden cases: " + ", ".join(f"{kind} {count}" for kind, count in sorted(RAN.items())))


def empties(group: int, seconds: float = 10) -> bool:
    """Whether a process group has nobody left, soon."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def interruptible():
    """For a child: Ctrl-C ends it, though a test run in the background ignores it, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def serve(engine, *jobs):
    """Run jobs (coroutines) beside a working engine."""

    async def main():
        work = asyncio.create_task(engine.run())
        try:
            return await asyncio.wait_for(asyncio.gather(*jobs), 120)
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    return asyncio.run(main())
