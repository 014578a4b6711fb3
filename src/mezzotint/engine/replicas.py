"""How many engines a cluster runs, and what each of them takes."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Replicas:
    """least, most: engines; their number follows the load where the two differ. cpus, gpus: reserved for each."""

    least: int = 1
    most: int = 1
    cpus: float = 1.0
    gpus: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ValueError(f"replicas={self.least}:{self.most} must be at least 1, and not fall")
        if not (math.isfinite(self.cpus) and self.cpus > 0):
            raise ValueError(f"cpus={self.cpus!r} must be above 0")

    @staticmethod
    def parse(text: str, cpus: float = 1.0, gpus: int = 0) -> "Replicas":
        """Read "2" or "1:4"."""
        least, _, most = text.partition(":")
        if not (least.isdecimal() and (most or least).isdecimal()) or text.endswith(":"):
            raise ValueError(f"replicas={text!r} must be a number, or a range such as 1:4")
        return Replicas(int(least), int(most or least), cpus, gpus)

    @property
    def fixed(self) -> bool:
        return self.least == self.most
