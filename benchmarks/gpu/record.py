"""A part's results on disk: written after every cell, so that a run that ends early has lost nothing and the next goes on behind it."""

import datetime
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import torch


def machine(device: torch.device) -> dict:
    """What the results say about where they were measured."""
    found = {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}
    for module in ("triton", "transformers", "flash_attn", "flash_attn_interface"):
        try:
            found[module] = str(getattr(__import__(module), "__version__", "present"))
        except Exception:
            found[module] = None
    if device.type != "cuda":
        return {"machine": f"{platform.processor() or platform.machine()} {torch.backends.cpu.get_cpu_capability()}", **found}
    properties = torch.cuda.get_device_properties(device)
    driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, check=False)
    return {
        "machine": properties.name,
        "memory": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": driver.stdout.strip() or None,
        **found,
    }


def slug(device: torch.device, quick: bool) -> str:
    """The machine in a file's name: a GPU's name in small letters, or cpu."""
    name = "cpu" if device.type != "cuda" else re.sub(r"[^a-z0-9]+", "", torch.cuda.get_device_name(device).lower().removeprefix("nvidia"))
    return f"{name}-quick" if quick else name


def state(content: dict) -> str:
    """How far a part's file is."""
    return "complete" if content["complete"] else f"{len(content['cells'])} cells so far"


def failures(cells: dict[str, dict]) -> list[str]:
    """What could not be measured, and why: whole cells, and what failed within others."""
    whole = [f"{key}: {cell['error']}" for key, cell in cells.items() if isinstance(cell.get("error"), str)]
    return whole + [f"{key}, {what}: {why}" for key, cell in cells.items() for what, why in (cell.get("failed") or {}).items()]


class Record:
    """One part's file: DATE-MACHINE-PART.json. The newest of the machine and part is continued, unless it is to start afresh."""

    def __init__(self, folder: Path, part: str, goal: str, device: torch.device, quick: bool, fresh: bool = False):
        name = slug(device, quick)
        before = sorted(folder.glob(f"????-??-??-{name}-{part}.json"))
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        self.path = before[-1] if before and not fresh else folder / f"{today}-{name}-{part}.json"
        self.content: dict = {"part": part, "goal": goal, "commands": [], "seconds": 0.0, "running": None, "cells": {}, "complete": False}
        if before and not fresh:
            self.content = json.loads(self.path.read_text())
        self.content |= machine(device)
        command = " ".join(["python", "benchmarks/gpu/run.py", *(a for a in sys.argv[1:] if a != "--child")])
        if not self.content["commands"] or self.content["commands"][-1] != command:
            self.content["commands"].append(command)

    @property
    def cells(self) -> dict[str, dict]:
        return self.content["cells"]

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.content, indent=1) + "\n")
        new.replace(self.path)

    def begin(self, key: str) -> None:
        self.content["running"] = key
        self.save()

    def end(self, key: str, result: dict, seconds: float) -> None:
        self.content["running"] = None
        self.content["seconds"] += seconds
        self.cells[key] = {**result, "took": seconds}
        self.save()
