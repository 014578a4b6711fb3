"""Prefix and dual cache (Fast-dLLM, arXiv 2505.22618): what lies outside the active block is computed once per block.

For models whose predictions are shifted (Dream) the row before the block is computed with it, because it predicts the block's
first token; the official code commits that token at once instead, however unsure the model is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from mezzotint.canvas import Canvas
from mezzotint.types import Moment, Positions


@dataclass(frozen=True)
class PrefixCache:
    """Everything before the block is computed at the block's first step and read from memory afterwards."""

    stores: ClassVar[bool] = True

    def begin(self, canvas: Canvas) -> Callable[[Moment, Positions], Positions]:
        def compute(moment: Moment, visible: Positions) -> Positions:
            return visible if moment.within == 0 else visible[visible >= moment.first]

        return compute


@dataclass(frozen=True)
class DualCache:
    """Only the block itself is computed after its first step; prefix and suffix are read from memory."""

    stores: ClassVar[bool] = True

    def begin(self, canvas: Canvas) -> Callable[[Moment, Positions], Positions]:
        def compute(moment: Moment, visible: Positions) -> Positions:
            inside = (visible >= moment.first) & (visible < moment.block.end)
            return visible if moment.within == 0 else visible[inside]

        return compute
