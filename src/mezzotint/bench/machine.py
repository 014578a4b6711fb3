"""Where a measurement was made: what every result file says of itself."""

import datetime
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from mezzotint import __version__


def command() -> str:
    """The command line of this process as a user would type it."""
    program = Path(sys.argv[0])
    if program.stem == "mezzotint" or program.parent.name == "mezzotint":
        return " ".join(["mezzotint", *sys.argv[1:]])
    return " ".join(["python", os.path.relpath(program), *sys.argv[1:]])


def stamp() -> dict[str, Any]:
    """Machine, versions, date and the command."""
    cpu = platform.processor() or platform.machine()
    return {
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{cpu} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "mezzotint": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "command": command(),
    }
