"""Where a measurement was made: what every result file says of itself."""

import datetime
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

import torch

from mezzotint import __version__
from mezzotint.evaluation.predictions import weights_digest
from mezzotint.models.transformer import Transformer


def command() -> str:
    """The command line of this process as a user would type it; of files outside the working folder the names alone, since nobody else has their folders."""
    program, words = Path(sys.argv[0]), [short(word) for word in sys.argv[1:]]
    if program.stem == "mezzotint" or program.parent.name == "mezzotint":
        return " ".join(["mezzotint", *words])
    return " ".join(["python", os.path.relpath(program), *words])


def short(word: str) -> str:
    path = Path(word)
    if not path.is_absolute():
        return word
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


CPUINFO = Path("/proc/cpuinfo")


def machine(device: torch.device) -> str:
    """The name of what computes there: the GPU, or the CPU and its vector instructions."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()} {torch.backends.cpu.get_cpu_capability()}"


def processor(told: Path = CPUINFO) -> str:
    """The CPU's model name, which on Linux only that file tells; else what the platform says."""
    found = re.search(r"^model name[ \t]*:[ \t]*(\S.*)$", told.read_text(encoding="utf-8", errors="replace"), re.MULTILINE) if told.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def stamp(model: Transformer | None = None, *, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Machine, versions, date, the command, and which weights `model` has. The machine is named by the model's device; without a model, by `device`."""
    weights = {} if model is None else {"weights": weights_digest(model)}
    return weights | {
        "machine": machine(torch.device(device) if model is None else model.device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "mezzotint": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "command": command(),
    }
