"""Rows and answers of a long benchmark: kept, taken up again, never mixed with those of other settings."""

import json
import sys

import pytest
import torch
from conftest import HERE

sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))
import sparsed_quality
from rows import Rows

from mezzotint.attention.sparsed import Pattern
from mezzotint.kernels.tiles import Grid, Tiled
from mezzotint.models.transformer import Scope


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


def test_sparse_answers_of_other_conditions_are_refused(bundled, tmp_path, monkeypatch, capsys):
    path, words = tmp_path / "kept.jsonl", ["--tasks", "code", "--count", "2", "--words", "--arms", "sparsed", "sparsed, mass 0.95"]
    monkeypatch.setattr(sparsed_quality.mz, "load", lambda name: bundled)
    monkeypatch.setattr("sys.argv", ["sparsed_quality.py", *words, "--keep", str(path), "--json"])
    sparsed_quality.main()
    found = json.loads(capsys.readouterr().out)
    shares = {name: row["tiles_kept"] for name, row in found["all"].items()}
    assert shares["dense"] is None
    assert 0.3 <= shares["sparsed"] < 0.6 < shares["sparsed, mass 0.95"] < 1  # each part's share is rounded up
    kept = path.read_text()
    sparsed_quality.main()
    assert json.loads(capsys.readouterr().out)["all"] == found["all"]
    assert path.read_text() == kept
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with pytest.raises(SystemExit, match=rf"holds answers made with threads={threads}, this is {threads + 1}; give another file"):
        sparsed_quality.main()
    monkeypatch.undo()
    mine = sparsed_quality.conditions(bundled[0], select=0.3)
    with pytest.raises(SystemExit, match="torch=None"):
        sparsed_quality.refuse_others([{"about": {name: value for name, value in mine.items() if name != "torch"}}], mine, path)


def test_the_share_of_tiles_leaves_padding_out():
    """Four tiles of eight positions for two questions, the second with ten positions of padding."""
    positions = torch.arange(32)
    tiled = Tiled.of(positions, Grid(0, 8), torch.device("cpu"))
    chosen = torch.eye(4, dtype=torch.bool).expand(2, 3, 4, 4)
    scope = Scope(positions, positions, torch.stack([positions >= 0, positions >= 10]))
    assert sparsed_quality.tiles_kept(Pattern(tiled, tiled, chosen, torch.ones(4)), scope) == pytest.approx([1 / 4, 1 / 3])
