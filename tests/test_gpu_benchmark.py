"""The GPU benchmarks in small, on a CPU: every cell checks itself, results outlive a crash, and a second run goes on."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "gpu"


@pytest.fixture
def bench(monkeypatch):
    """The benchmark's own modules."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import run

    return run


def options(tmp_path: Path, *parts: str) -> argparse.Namespace:
    return argparse.Namespace(
        parts=list(parts), device="cpu", dtype=None, results=tmp_path, quick=True, fresh=False, retry=False, total=30.0, folder=str(tmp_path)
    )


def test_parts_in_small(tmp_path):
    command = [sys.executable, str(FOLDER / "run.py"), "limits", "attention", "pattern", "--quick", "--device", "cpu", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {json.loads(f.read_text())["part"]: json.loads(f.read_text()) for f in tmp_path.glob("*-cpu-quick-*.json")}
    assert set(found) == {"limits", "attention", "pattern"}
    assert all(record["complete"] and record["torch"] == torch.__version__ for record in found.values())
    row = found["attention"]["cells"]["dream-7b 150 block 32"]["rows"]["select 0.3 shared by 7: reference"]
    assert row["error"] < 1e-5
    assert len(row["samples"]) >= 2
    assert 0 < row["share"] < 1
    assert "attention: at 32k and 64k" in done.stdout
    again = subprocess.run([*command, "--minutes", "1"], capture_output=True, text=True, check=False, timeout=300)
    assert "limits: matrix" not in again.stdout


def test_a_cell_that_fails_is_noted_and_the_next_one_runs(bench, tmp_path):
    from settings import Cell

    def broken() -> dict:
        raise RuntimeError("out of luck")

    record = bench.record_of(options(tmp_path, "limits"), "limits")
    for cell in (Cell("first", broken), Cell("second", lambda: {"value": 1})):
        bench.run_cell(record, cell, torch.device("cpu"))
    kept = bench.record_of(options(tmp_path, "limits"), "limits")
    assert kept.cells["first"]["error"] == "RuntimeError: out of luck"
    assert kept.cells["second"]["value"] == 1


def test_a_cell_that_ends_its_process_is_noted(bench, tmp_path):
    args = options(tmp_path, "limits")
    bench.record_of(args, "limits").begin("deadly")
    assert bench.note_the_dead(args, -11)
    assert not bench.note_the_dead(args, -11)
    assert bench.record_of(args, "limits").cells["deadly"]["error"] == "the process ended with -11"


def test_a_wrong_kernel_is_not_timed(bench):
    import measure
    from parts.attention import admit
    from settings import Settings

    calls, errors, failed = {}, {}, {}
    settings = Settings(torch.device("cpu"), torch.float32, True)
    for name, value in (("right", 1.0), ("wrong", 1.1), ("unwritten", float("nan"))):
        out = torch.full((4,), value)
        admit(settings, out, name, lambda out=out: out, lambda found: measure.error(found, torch.ones(4)), calls, errors, failed)
    assert list(calls) == ["right"]
    assert set(failed) == {"wrong", "unwritten"}


def test_what_is_unknown_is_refused_by_name():
    done = subprocess.run([sys.executable, str(FOLDER / "run.py"), "speed"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "part='speed' is unknown; accepted: limits" in done.stderr
