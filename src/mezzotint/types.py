"""What the rooms agree on: the moment of a run, and the protocols of the strategies."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

if TYPE_CHECKING:
    from mezzotint.canvas import Block, Canvas
    from mezzotint.models.transformer import Attend

Positions = Int[Tensor, " _"]
"""Sorted canvas positions, int64, on the host."""


@dataclass(frozen=True)
class Moment:
    """Where a run stands before a forward.

    step: steps taken so far; block: the active one; within: steps taken inside it; shift: 1 for models that predict a position from the row before it,
    else 0; trained: where the block of a block-causal model begins in which the active block lies (None: the model sees everything); total: steps of
    the recipe's schedule; committed: share of the wanted positions that are decided, in the row that has the fewest.
    """

    step: int
    block: "Block"
    within: int
    shift: int = 0
    total: int = 1
    committed: float = 0.0
    trained: int | None = None

    @property
    def first(self) -> int:
        """The first position whose row is needed to predict the block: rows of one trained block see each other."""
        first = max(0, self.block.start - self.shift)
        return first if self.trained is None else min(first, self.trained)


@runtime_checkable
class Attention(Protocol):
    """Who looks at whom among the visible positions. `begin` returns what is asked before every forward."""

    def begin(self, canvas: "Canvas") -> Callable[[Moment], "Attend"]: ...


@runtime_checkable
class Suffix(Protocol):
    """Which positions may be seen while a block is decoded; asked once per block. Draws come from the CPU generator given."""

    def begin(self, canvas: "Canvas", generator: torch.Generator) -> "Callable[[Block], Positions]": ...


@runtime_checkable
class Cache(Protocol):
    """Which of the visible positions a forward computes; the rest is read from memory. `stores` is False if it never reads."""

    stores: ClassVar[bool]

    def begin(self, canvas: "Canvas") -> Callable[[Moment, Positions], Positions]: ...
