"""What `make bench` runs: within its time, every part there, and what fails is named without stopping the rest."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

import mezzotint as mz
from mezzotint.bench import machine
from mezzotint.bench.questions import Answer

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


def test_the_machine_is_the_one_that_the_model_computes_on(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"GPU {torch.device(device or 0).index}")
    cpu = f"{machine.processor()} {torch.backends.cpu.get_cpu_capability()}"
    assert machine.stamp()["machine"] == machine.stamp(tiny["llada"])["machine"] == cpu
    assert machine.stamp(device="cuda:1")["machine"] == "GPU 1"


def test_the_processor_is_named_as_linux_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arch")
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel\t\t: 1\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor\t: 1\nmodel name\t: Some CPU @ 2 GHz\n")
    assert machine.processor(told) == "Some CPU @ 2 GHz"
    told.write_text("model name\t:\nflags\t: fpu\n")
    assert machine.processor(told) == "arch"
    assert machine.processor(tmp_path / "absent") == "arch"


def test_the_frontier_says_why_no_composition_was_chosen(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from pareto import verdict

    def passes(right: list[bool], seconds: float) -> list[dict[int, Answer]]:
        return [{i: Answer("", r, seconds, 1, 1, 1, 1) for i, r in enumerate(right)}]

    recipes = {"plain": mz.Recipe(), "both": mz.Recipe(commit=mz.Threshold(0.9), cache=mz.DualCache())}
    found = {"plain": passes([True] * 80, 2.0), "both": passes([False] + [True] * 79, 1.0)}
    said = verdict(recipes, found, ["plain"], ["both"])
    assert (said["best_single"], said["best_composed"]) == ("plain", None)
    why = "no composition within 0.5 points of plain decoding; one question of 80 is 1.25 points"
    assert said["composition_wins"] == {"verdict": None, "questions": 80, "why": why}
    found["both"] = passes([False] * 40 + [True] * 40, 1.0)
    assert verdict(recipes, found, ["plain"], ["both"])["composition_wins"] == {"verdict": False, "questions": 80, "why": why}
