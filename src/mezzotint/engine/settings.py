"""What a replica is, as one frozen, picklable value: which model, where, and how much it takes on."""

import dataclasses
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class EngineSettings:
    """One process is one replica, made from this alone.

    model, device, dtype, rope_scaling, mask_id, block_causal, weights: as for `mezzotint.load`;
    running: most requests in progress; waiting: most requests queued behind them; rows: most positions computed in one shared forward (more: higher
        throughput, longer steps); length: longest canvas in tokens, None for the model's trained length;
    memory: bytes that the runs' caches and activations may take by estimate, None for half of what the machine (or 0.9 of what the device) has left;
    seconds: longest time from submission to the end of an answer; tensor_parallel: processes that share every layer (`made` starts the others).
    """

    model: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    rope_scaling: str | None = None
    running: int = 32
    waiting: int = 256
    rows: int = 4096
    length: int | None = None
    memory: int | None = None
    seconds: float = 600.0
    mask_id: int | None = None
    block_causal: int | None = None
    weights: str | None = None
    tensor_parallel: int = 1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("running", "rows", "length", "memory", "tensor_parallel") and value is not None and (not whole(value) or value < 1):
                raise ValueError(f"{field.name}={value!r} must be a whole number of at least 1")
        if not whole(self.waiting) or self.waiting < 0:
            raise ValueError(f"waiting={self.waiting!r} must be a whole number of 0 or more")
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, (int, float)) or not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(f"seconds={self.seconds!r} must be above 0")


def whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
