"""Shared pieces: the golden folder, tiny models, and the count of golden cases that ran."""

import os
from collections import Counter
from pathlib import Path

import pytest
import torch

GOLDEN = Path(os.environ.get("MEZZOTINT_GOLDEN") or Path(__file__).parent / "golden")
RAN: Counter[str] = Counter()

torch.set_num_threads(max(1, min(4, os.cpu_count() or 1)))


@pytest.fixture(scope="session")
def tiny():
    """The tiny LLaDA and Dream checkpoints that ship with the tests."""
    from mezzotint import load_model

    here = Path(__file__).parent / "golden"
    return {"llada": load_model(here / "dpad" / "ckpt_llada_tiny"), "dream": load_model(here / "dpad" / "ckpt_dream_tiny")}


def pytest_terminal_summary(terminalreporter):
    if RAN:
        terminalreporter.write_line("golden cases: " + ", ".join(f"{kind} {count}" for kind, count in sorted(RAN.items())))
