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


def due(moment: Moment, refresh: int) -> bool:
    """Whether this step computes everything."""
    return moment.within == 0 or (refresh > 0 and moment.within % refresh == 0)


def check_refresh(name: str, cache: "PrefixCache | DualCache") -> None:
    check(name, cache)
    if cache.refresh < 0:
        raise ValueError(f"{name} refresh={cache.refresh} must be 0 (only at a block's first step) or more steps")


@dataclass(frozen=True)
class PrefixCache:
    """Everything before the block is computed at the block's first step and read from memory afterwards.

    refresh: everything is computed anew every so many steps of a block (0: only at its first). More often: fresher and slower.
    first_alone: a block's first step commits its first token and nothing else, as the official code does on Dream; without it every step follows the
        commit rule.
    """

    refresh: int = 0
    first_alone: bool = False
    stores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_refresh("prefix", self)

    def renews(self, moment: Moment) -> bool:
        """Whether this step needs a forward though the canvas has not changed."""
        return due(moment, self.refresh)

    def begin(self, canvas: Canvas) -> Callable[[Moment, Positions], Positions]:
        def compute(moment: Moment, visible: Positions) -> Positions:
            first = moment.block.start if self.first_alone else moment.first
            return visible if due(moment, self.refresh) else visible[visible >= first]

        return compute


@dataclass(frozen=True)
class DualCache:
    """Only the block itself is computed after its first step; prefix and suffix are read from memory. refresh, first_alone: as for `PrefixCache`."""

    refresh: int = 0
    first_alone: bool = False
    stores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_refresh("dual", self)

    def renews(self, moment: Moment) -> bool:
        """As for `PrefixCache`."""
        return due(moment, self.refresh)

    def begin(self, canvas: Canvas) -> Callable[[Moment, Positions], Positions]:
        def compute(moment: Moment, visible: Positions) -> Positions:
            first = moment.block.start if self.first_alone else moment.first
            inside = (visible >= first) & (visible < moment.block.end)
            return visible if due(moment, self.refresh) else visible[inside]

        return compute
