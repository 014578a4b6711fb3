"""Where the processes of one command compute: each on a GPU of its own, or all on the CPU."""

import torch


def place(device: str, number: int) -> torch.device:
    """Where the process of that number computes."""
    kind = torch.device(device).type
    return torch.device(kind, number) if kind == "cuda" else torch.device(kind)


def check_places(option: str, processes: int, what: str, device: str) -> None:
    """Raises ValueError naming the option if there is no place for so many processes. what: what each of them is."""
    wanted = torch.device(device)
    if wanted.index is not None:
        raise ValueError(f"{option}={processes} places one {what} on each GPU from the first; give device={wanted.type!r}, not {device!r}")
    if wanted.type == "cuda" and torch.cuda.device_count() < processes:
        raise ValueError(f"{option}={processes} needs as many GPUs, there are {torch.cuda.device_count()}")
