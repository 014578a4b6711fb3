"""Where a measurement was made: what every result file says of itself."""

import datetime
import os
import platform
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


def stamp(model: Transformer | None = None) -> dict[str, Any]:
    """Machine, versions, date, the command, and which weights `model` has."""
    cpu = platform.processor() or platform.machine()
    weights = {} if model is None else {"weights": weights_digest(model)}
    return weights | {
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{cpu} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "mezzotint": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "command": command(),
    }
