"""Fast-dLLM v2's sub-block cache (arXiv 2509.26328): inside a trained block, decoded in smaller ones, only the active small block is computed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from mezzotint.canvas import Canvas
from mezzotint.types import Moment, Positions


@dataclass(frozen=True)
class SubBlockCache:
    """Everything visible is computed while the small block's first token is open; afterwards only the small block, with no row before it.

    For block-causal models decoded with a block_length below their own, of which it is an approximation; what lies before the trained block stays exact.
    Where predictions are shifted by one, the row before the small block is not needed once its first token is decided. One row at a time.
    """

    stores: ClassVar[bool] = True

    def begin(self, canvas: Canvas) -> Callable[[Moment, Positions], Positions]:
        if canvas.batch > 1:
            raise ValueError(f"cache=sub_block runs one row at a time, this batch has {canvas.batch}; run them singly (--batch 1) or choose prefix or dual")

        def compute(moment: Moment, visible: Positions) -> Positions:
            block = moment.block
            if moment.within == 0 or canvas.open[0, block.start]:
                return visible
            return visible[(visible >= block.start) & (visible < block.end)]

        return compute
