"""Rows of a long benchmark: kept, taken up again, never mixed with those of other settings."""

import sys

import pytest
import torch
from conftest import HERE

sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))
from rows import Rows


def test_rows_are_kept_and_gone_on_from(tmp_path):
    path = tmp_path / "rows.jsonl"
    first = Rows(path, {"samples": 3})
    assert first.row("a", lambda: {"loss": 0.5}) == {"row": "a", "loss": 0.5}
    with path.open("a") as file:
        file.write('{"row": "b", "lo')
    made = []
    again = Rows(path, {"samples": 3})
    assert again.row("a", lambda: made.append("a") or {}) == {"row": "a", "loss": 0.5}
    again.row("b", lambda: made.append("b") or {"loss": 0.7})
    assert made == ["b"]
    assert Rows(path, {"samples": 3}).found["b"]["loss"] == 0.7
    with pytest.raises(SystemExit, match="rows made with"):
        Rows(path, {"samples": 4})
    with pytest.raises(SystemExit, match="quick=null, this is true"):
        Rows(path, {"samples": 3, "quick": True})
    assert Rows(None, {}).row("a", lambda: {"loss": 1}) == {"row": "a", "loss": 1}


def test_rows_of_other_conditions_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    Rows(path, {})
    Rows(path, {})
    monkeypatch.setattr("rows.__version__", "9.9")
    with pytest.raises(SystemExit, match="mezzotint="):
        Rows(path, {})
    monkeypatch.undo()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    with pytest.raises(SystemExit, match="this is 99"):
        Rows(path, {})
