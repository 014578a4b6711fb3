"""The bundled model's recipe at its larger size, a piece at a time; when its schedule ends, the suite."""

import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch
from settings import Cell, Settings

GOAL = "every task of the suite at least 95 % exact match with plain decoding"
MINUTES = 9.0
ROOT = Path(__file__).resolve().parents[3]


def cells(settings: Settings) -> list[Cell]:
    limit = int(settings.minutes * 60) + 240
    return [
        Cell("tokens per second", partial(rate, settings), 240),
        Cell("training", partial(piece, settings), limit),
        Cell("suite", partial(suite, settings), 400),
    ]


def launch(settings: Settings, folder: Path, schedule: float, minutes: float, *more: str) -> tuple[str, float]:
    """One piece of training; its output and its wall time in seconds."""
    command = [sys.executable, str(ROOT / "training" / "train.py"), "--out", str(folder), "--minutes", str(schedule), "--piece", str(minutes)]
    command += ["--device", settings.device.type, *more]
    if settings.quick:
        command += ["--init", str(ROOT / "src" / "mezzotint" / "bundled"), "--no-compile"]
    else:
        command += ["--preset", "gpu", "--workers", str(max(1, (os.cpu_count() or 2) - 4))]
    begun = time.monotonic()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]), "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"training ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout, time.monotonic() - begun


def counters(folder: Path) -> dict:
    return json.loads((folder / "state.json").read_text())["counters"]


def rate(settings: Settings) -> dict:
    """A short run of its own: how many tokens a second, so that the schedule can be chosen."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        minutes = 0.02 if settings.quick else 1.0
        output, wall = launch(settings, Path(folder), minutes, minutes)
        state = counters(Path(folder))
    return {
        "tokens": state["tokens"],
        "steps": state["step"],
        "tokens_per_second": state["tokens"] / state["seconds"],
        "wall": wall,
        "log": output.splitlines()[-3:],
    }


def piece(settings: Settings) -> dict:
    """Goes on with the run in settings.folder for the minutes there are. Counts as done only when its schedule has ended."""
    folder = Path(settings.folder)
    schedule = float(os.environ.get("MEZZOTINT_TRAIN_MINUTES", "0.03" if settings.quick else "25"))
    minutes = min(schedule, settings.minutes)
    output, wall = launch(settings, folder, schedule, minutes)
    state = counters(folder)
    sizes = [f.stat().st_size for f in folder.glob("step-*.safetensors")]
    losses = re.findall(r"step .*", output)
    done = state["seconds"] >= schedule * 60
    return {**state, "wall": wall, "schedule_minutes": schedule, "largest_shard": max(sizes), "shards": len(sizes), "log": losses[-5:], "again": not done}


def suite(settings: Settings) -> dict:
    """Exact match of the trained model with plain decoding."""
    folder = Path(settings.folder)
    exported = folder / "exported"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    export = [sys.executable, str(ROOT / "training" / "export.py"), str(folder), str(exported)]
    count = ["--count", "2", "--hard-count", "0"] if settings.quick else ["--count", "200"]
    which = ["lists"] if settings.quick else ["--all"]
    evaluate = [sys.executable, "-m", "mezzotint", "eval", *which, "--model", str(exported), "--device", settings.device.type, "--json", *count]
    for command in (export, evaluate):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise RuntimeError(f"{command[1]} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    torch.cuda.empty_cache() if settings.device.type == "cuda" else None
    return {"suite": json.loads(done.stdout)}


def table(cells: dict[str, dict]) -> list[list[str]]:
    rows = [["train", ""]]
    for key, cell in cells.items():
        if "tokens_per_second" in cell:
            rows.append([key, f"{cell['tokens_per_second']:.4g}"])
        elif "schedule_minutes" in cell:
            rows.append([key, f"{cell['tokens'] / 1e6:.1f}M tokens, {cell['seconds'] / 60:.1f} of {cell['schedule_minutes']:g} minutes"])
        elif "suite" in cell:
            tasks = cell["suite"].get("tasks", {})
            rows.append([key, ", ".join(f"{name} {value.get('exact_match', '')}" for name, value in tasks.items() if isinstance(value, dict))])
    return rows
