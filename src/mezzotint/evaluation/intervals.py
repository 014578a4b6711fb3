"""How sure a figure is: the interval of a proportion, and of the difference between two recipes that answered the same questions."""

import math
from collections.abc import Sequence
from typing import Any

import torch

SEED = 20261
Z = 1.959964


def wilson(right: int, total: int, z: float = Z) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson, 1927), which stays inside [0, 1] and is honest near the ends."""
    p, spread = right / total, z * z / total
    centre = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / total + spread / (4 * total)) / (1 + spread)
    return 0.0 if right == 0 else max(0.0, centre - half), 1.0 if right == total else min(1.0, centre + half)


def bootstrap(values: Sequence[float], draws: int = 2000) -> tuple[float, float] | None:
    """The 95 % interval of a mean by resampling the values (percentile bootstrap, fixed seed); None below two values, which say nothing of their spread."""
    if len(values) < 2:
        return None
    numbers = torch.tensor(values, dtype=torch.float64)
    generator = torch.Generator().manual_seed(SEED)
    each = max(1, 1_000_000 // len(numbers))
    parts = [numbers[torch.randint(len(numbers), (min(each, draws - done), len(numbers)), generator=generator)].mean(1) for done in range(0, draws, each)]
    means = torch.cat(parts).sort().values
    return float(means[int(0.025 * draws)]), float(means[int(0.975 * draws)])


def paired(mine: Sequence[bool | float], theirs: Sequence[bool | float], *, shares: bool = False) -> dict[str, Any]:
    """Mean difference on the same questions, its 95 % interval, and how many verdicts changed.

    Verdicts, and shares in [0, 1], get the interval of Agresti and Min (2005), which does not shrink to nothing when no verdict changed; other figures the
    bootstrap's, which is None for one question.
    """
    if len(mine) != len(theirs) or not mine:
        raise ValueError(f"a paired comparison needs the same questions on both sides, not {len(mine)} and {len(theirs)}")
    differences = [float(a) - float(b) for a, b in zip(mine, theirs, strict=True)]
    if shares or all(value in (0, 1) for value in (*mine, *theirs)):
        total, moved = len(differences) + 2, math.fsum(differences)  # two questions are added, half of one better and half of one worse
        centre = moved / total
        half = Z * math.sqrt(math.fsum(d * d for d in differences) + 1 - moved**2 / total) / total
        interval = (max(-1.0, centre - half), min(1.0, centre + half))
    else:
        interval = bootstrap(differences)
    return {"difference": math.fsum(differences) / len(differences), "ci": interval, "changed": sum(d != 0 for d in differences)}
