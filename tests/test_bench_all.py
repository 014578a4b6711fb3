"""What `make bench` runs: within its time, every part there, and what fails is named without stopping the rest."""

import json
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def everything(tmp_path, monkeypatch):
    """benchmarks/all.py with its results, plots and page elsewhere."""
    found = runpy.run_path(str(ROOT / "benchmarks" / "all.py"))
    inside = found["main"].__globals__
    results, plots = tmp_path / "results", tmp_path / "plots"
    monkeypatch.setitem(inside, "RESULTS", results)
    monkeypatch.setitem(inside, "PLOTS", plots)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "report.py").write_text("")
    monkeypatch.setitem(inside, "ROOT", tmp_path)
    return found, inside, results


def test_the_parts_fit_into_the_time_and_exist():
    found = runpy.run_path(str(ROOT / "benchmarks" / "all.py"))
    assert sum(part.minutes for part in found["PARTS"]) <= found["MOST"]
    assert len({part.name for part in found["PARTS"]}) == len(found["PARTS"])
    covered = {part.words.split()[0] for part in found["PARTS"]}
    assert covered >= {"pareto.py", "tuning.py", "headline.py", "caches.py", "sparsed_quality.py", "loop_overhead.py"}


def test_short_forms_have_names_of_their_own():
    """So `make bench` leaves the results and plots of full runs alone."""
    parts = runpy.run_path(str(ROOT / "benchmarks" / "all.py"))["PARTS"]
    shortened = {part.name for part in parts if {"--quick", "--minutes", "--samples"} & set(part.words.split())}
    assert {part.name for part in parts if part.name.endswith("-quick")} == shortened
    assert {part.name for part in parts} - shortened == {"lengths"}


def test_failures_are_named_and_do_not_stop_the_rest(everything, tmp_path, monkeypatch, capsys):
    found, inside, results = everything
    scripts = {
        "good.py": "print('warming up')\nprint('{\"rows\": []}')",
        "slow.py": "import time\ntime.sleep(60)",
        "broken.py": "raise ValueError('no such thing')",
        "silent.py": "print('done')",
    }
    for name, text in scripts.items():
        (tmp_path / "benchmarks" / name).write_text(text)
    parts = tuple(found["Part"](name.removesuffix(".py"), name, 0.02 if name == "slow.py" else 1) for name in [*scripts, "absent.py"])
    monkeypatch.setitem(inside, "PARTS", parts)
    monkeypatch.setattr(sys, "argv", ["all.py"])
    assert found["main"]() == 1
    told = capsys.readouterr().out
    assert [json.loads(path.read_text()) for path in results.glob("*-cpu-good.json")] == [{"rows": []}]
    assert len(list(results.iterdir())) == 1
    for name, reason in (("slow", "ran past its limit of 0.02 minutes"), ("broken", "no such thing"), ("silent", "'done'"), ("absent", "there is no")):
        line = next(line for line in told.splitlines() if line.startswith(name))
        assert "FAILED" in line
        assert reason in line
    assert told.splitlines()[-1].endswith("failed: slow, broken, silent, absent")
    monkeypatch.setattr(sys, "argv", ["all.py", "--only", "good"])
    assert found["main"]() == 0


def test_the_list_says_commands_and_limits(monkeypatch, capsys):
    found = runpy.run_path(str(ROOT / "benchmarks" / "all.py"))
    monkeypatch.setattr(sys, "argv", ["all.py", "--list"])
    assert found["main"]() == 0
    told = capsys.readouterr().out
    assert "python benchmarks/pareto.py --minutes" in told
    assert "python -m mezzotint bench" in told
