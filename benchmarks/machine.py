"""What every benchmark's JSON says about where it ran."""

import os
import platform
import sys

import torch


def stamp() -> dict:
    """Machine, versions and the command."""
    cpu = platform.processor() or platform.machine()
    capability = torch.backends.cpu.get_cpu_capability()
    return {
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{cpu} {capability}",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "command": " ".join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
    }
