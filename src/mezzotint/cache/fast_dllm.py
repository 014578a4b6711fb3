"""Prefix and dual cache (Fast-dLLM, arXiv 2505.22618): what lies outside the active block is computed once per block.

For models whose predictions are shifted (Dream) the row before the block is computed with it, because it predicts the block's
first token. The official code commits that token at once instead, alone and however unsure the model is: `first_alone`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from mezzotint.canvas import Canvas
from mezzotint.fields import check
from mezzotint.types import Moment, Positions


@dataclass(frozen=True)
class PrefixCache:
    """Everything before the block is computed at the block's first step and read from memory afterwards.

    first_alone: a block's first step commits its first token and nothing else, as the official code does on Dream; without it every step follows the
        commit rule.
    """

    first_alone: bool = False
    stores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check("prefix", self)

    def begin(self, canvas: Canvas) -> Callable[[Moment, Positions], Positions]:
        def compute(moment: Moment, visible: Positions) -> Positions:
            return visible if moment.within == 0 else visible[visible >= (moment.block.start if self.first_alone else moment.first)]

        return compute


@dataclass(frozen=True)
class DualCache:
    """Only the block itself is computed after its first step; prefix and suffix are read from memory. first_alone: as for `PrefixCache`."""

    first_alone: bool = False
    stores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check("dual", self)

    def begin(self, canvas: Canvas) -> Callable[[Moment, Positions], Positions]:
        def compute(moment: Moment, visible: Positions) -> Positions:
            first = moment.block.start if self.first_alone else moment.first
            inside = (visible >= first) & (visible < moment.block.end)
            return visible if moment.within == 0 else visible[inside]

        return compute
