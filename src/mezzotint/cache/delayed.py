"""dKV-Cache-Decode (arXiv 2505.15781): decided positions are read from memory, one step after they were decided."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from mezzotint.canvas import Canvas
from mezzotint.types import Moment, Positions


@dataclass(frozen=True)
class DelayedCache:
    """Computes the masks, and the tokens of the last step, which are seen as tokens for the first time; all else is remembered.

    With predictions shifted by one (Dream), the row before a mask is computed too, because it predicts the mask.

    refresh: every so many forwards of a block everything is computed (more often: slower, fresher). The paper's tables use 8 on LLaDA.
    Rows decide different positions at different times, so a batch would make rows depend on each other: one row at a time.
    """

    refresh: int = 8
    stores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.refresh < 1:
            raise ValueError(f"delayed refresh={self.refresh} must be at least 1 step")

    def begin(self, canvas: Canvas) -> Callable[[Moment, Positions], Positions]:
        if canvas.batch > 1:
            raise ValueError(f"cache=delayed runs one row at a time, this batch has {canvas.batch}; run them singly (--batch 1) or choose prefix or dual")
        before = canvas.open[0].clone()
        forward = 0

        def compute(moment: Moment, visible: Positions) -> Positions:
            nonlocal before, forward
            fresh = before
            before = canvas.open[0].clone()
            forward = 0 if moment.within == 0 else forward + 1
            if forward < 2 or forward % self.refresh == 0:
                return visible
            needed = torch.ones(canvas.length, dtype=torch.bool)
            needed[: len(fresh)] = fresh
            shift = moment.block.start - moment.first
            needed[: canvas.length - shift] |= canvas.open[0, shift:]
            return visible[needed[visible]]

        return compute
