"""DPad (arXiv 2508.14148): far suffix masks are dropped before the forward pass, by a sliding window and distance-decay dropout."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mezzotint.canvas import Block, Canvas
from mezzotint.fields import check
from mezzotint.types import Positions

WIDEST = 2**17
"""Largest window in positions: so many random numbers are drawn for every block."""


def undroppable(canvas: Canvas, block: Block) -> Positions:
    """Positions after the block that were given in some row: real text is never dropped, only masks are."""
    return block.end + canvas.given[:, block.end :].any(0).nonzero()[:, 0]


def sliding_window(distance: Int[Tensor, " suffix"], window: int) -> Bool[Tensor, " suffix"]:
    """True within `window` positions after the block; distance 0 is the first of them."""
    return distance < window


def keep_probability(distance: Int[Tensor, " suffix"], window: int, k: float, a: float) -> Float[Tensor, " suffix"]:
    """Distance-decay dropout: a Gaussian whose k-th standard deviation falls on the window's edge, times `a` (may exceed 1)."""
    x = k * distance.double() / max(window - 1, 1)
    return a * torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class DPad:
    """Keeps each suffix mask within `window` with the Gaussian probability above; drawn afresh for every block, whatever the canvas's length.

    window: positions after the block that may be kept at all; k: how fast the probability decays (larger: fewer far ones);
    a: the overall share (larger: more are kept, slower, closer to `Full`). Defaults are the official command line's.
    """

    window: int = 256
    k: float = 4.0
    a: float = 2.0

    def __post_init__(self) -> None:
        check("dpad", self)
        if not 1 <= self.window <= WIDEST:
            raise ValueError(f"dpad window={self.window} must be from 1 to {WIDEST} positions")
        if self.k < 0 or self.a < 0:
            raise ValueError(f"dpad k={self.k} and a={self.a} must be 0 or more")

    def begin(self, canvas: Canvas, generator: torch.Generator) -> Callable[[Block], Positions]:
        def visible(block: Block) -> Positions:
            distance = torch.arange(canvas.length - block.end)
            near = distance[sliding_window(distance, self.window)]
            uniform = torch.rand(self.window, generator=generator)[: len(near)]
            kept = torch.zeros(len(distance), dtype=torch.bool)
            kept[near] = uniform < keep_probability(near, self.window, self.k, self.a)
            kept[undroppable(canvas, block) - block.end] = True
            return torch.cat((torch.arange(block.end), block.end + kept.nonzero()[:, 0]))

        return visible


@dataclass(frozen=True)
class UniformDropout:
    """The paper's ablation: `number` masks drawn evenly from the first `window` after the block; all of them if no more are left."""

    number: int = 64
    window: int = 256

    def __post_init__(self) -> None:
        check("uniform", self)
        if self.number < 0 or self.window < 1:
            raise ValueError(f"uniform number={self.number} must be 0 or more and window={self.window} at least 1 position")

    def begin(self, canvas: Canvas, generator: torch.Generator) -> Callable[[Block], Positions]:
        def visible(block: Block) -> Positions:
            suffix = canvas.length - block.end
            kept = torch.zeros(suffix, dtype=torch.bool)
            if self.number >= suffix:
                kept[:] = True
            else:
                kept[torch.randperm(min(self.window, suffix), generator=generator)[: self.number]] = True
            kept[undroppable(canvas, block) - block.end] = True
            return torch.cat((torch.arange(block.end), block.end + kept.nonzero()[:, 0]))

        return visible
