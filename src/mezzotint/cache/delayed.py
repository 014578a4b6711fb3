"""dKV-Cache (arXiv 2505.15781): decided positions are read from memory, one step after they were decided; or only the prompt is."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from mezzotint.canvas import Canvas
from mezzotint.fields import check
from mezzotint.types import Moment, Positions

COMPATIBLE = ("none", "un", "un_right")


@dataclass(frozen=True)
class DelayedCache:
    """Computes the masks, and the tokens of the last step, which are seen as tokens for the first time; all else is remembered (dKV-Cache-Decode).

    With predictions shifted by one (Dream), the row before a mask is computed too, because it predicts the mask.

    refresh: every so many forwards of a block everything is computed (more often: slower, fresher). The paper's tables use 8 on LLaDA, 4 on Dream.
    prompt: True leaves the prompt's rows out of every refresh (dKV-Cache-PD): faster, staler.
    compat: "un" or "un_right" computes what the official Dream code of that name computes, for a canvas of one block: the rows before a mask of the last
        step, and with "un_right" that mask's own row.
    Rows decide different positions at different times, so a batch would make rows depend on each other: one row at a time.
    """

    refresh: int = 8
    prompt: bool = False
    compat: str = "none"
    stores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check("delayed", self)
        if self.refresh < 1:
            raise ValueError(f"delayed refresh={self.refresh} must be at least 1 step")
        if self.compat not in COMPATIBLE:
            raise ValueError(f"delayed compat={self.compat!r} is unknown; accepted: {', '.join(COMPATIBLE)}")

    def begin(self, canvas: Canvas) -> Callable[[Moment, Positions], Positions]:
        if canvas.batch > 1:
            raise ValueError(f"cache=delayed runs one row at a time, this batch has {canvas.batch}; run them singly (--batch 1) or choose prefix or dual")
        before = canvas.open[0].clone()
        forward, stored = 0, False

        def compute(moment: Moment, visible: Positions) -> Positions:
            nonlocal before, forward, stored
            fresh = before
            before = canvas.open[0].clone()
            forward = 0 if moment.within == 0 else forward + 1
            shift = moment.shift
            if self.compat != "none" and (shift == 0 or moment.block.index > 0):
                raise ValueError(
                    f"delayed compat={self.compat!r} is for models with shifted predictions (Dream) and a canvas without blocks (block_length none)"
                )
            known, stored = stored, True
            beyond = visible[visible >= min(canvas.start - shift, canvas.origin)]
            if forward == 1 and self.compat != "none":
                return beyond
            if forward < (2 if self.compat == "none" else 1) or forward % self.refresh == 0:
                return beyond if self.prompt and known else visible
            needed = torch.ones(canvas.length, dtype=torch.bool)
            needed[: len(fresh)] = fresh
            if self.compat != "none":
                ahead = needed.roll(-1)
                needed = ahead if self.compat == "un" else needed | ahead
                if self.compat == "un_right":  # the official code takes the left neighbour where there is no right one
                    needed[-1] |= fresh[-2]
            else:
                needed[: canvas.length - shift] |= canvas.open[0, shift:]
            return visible[needed[visible]]

        return compute


@dataclass(frozen=True)
class PromptCache:
    """The prompt is computed at the first step and then every `refresh` steps; everything else at every step (0: never again, dKV-Cache-Prefill).

    With predictions shifted by one (Dream), the prompt's last row is computed with the rest, because it predicts the first token.
    """

    refresh: int = 0
    stores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check("prompt", self)
        if self.refresh < 0:
            raise ValueError(f"prompt refresh={self.refresh} must be 0 (never) or more steps")

    def begin(self, canvas: Canvas) -> Callable[[Moment, Positions], Positions]:
        forward = -1

        def compute(moment: Moment, visible: Positions) -> Positions:
            nonlocal forward
            forward += 1
            if forward == 0 or (self.refresh and forward % self.refresh == 0):
                return visible
            return visible[visible >= min(canvas.start - moment.shift, canvas.origin)]

        return compute


@dataclass(frozen=True)
class GreedyCache:
    """dKV-Cache-Greedy: only what was just decided, what is decided next and its neighbours are computed; needs commit=shuffled, whose order is known.

    refresh: every so many steps of a block everything is computed (more often: slower, fresher). window: masks computed beside each position that is
    decided next, the nearest first, left before right: they keep its surroundings fresh. The paper uses refresh 2 and windows of 0, 2 and 4.
    One row at a time.
    """

    refresh: int = 2
    window: int = 4
    stores: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check("greedy", self)
        if self.refresh < 1:
            raise ValueError(f"greedy refresh={self.refresh} must be at least 1 step")
        if self.window < 0:
            raise ValueError(f"greedy window={self.window} must be 0 or more positions")

    def begin(self, canvas: Canvas) -> Callable[[Moment, Positions], Positions]:
        if canvas.batch > 1:
            raise ValueError(f"cache=greedy runs one row at a time, this batch has {canvas.batch}; run them singly (--batch 1) or choose prefix or dual")
        before = canvas.open[0].clone()

        def compute(moment: Moment, visible: Positions) -> Positions:
            nonlocal before
            masked, before = before, canvas.open[0].clone()
            if moment.planned is None or moment.within % self.refresh == 0:
                return visible
            next_ones = (moment.block.start + moment.planned[0].nonzero()[:, 0]).tolist()
            chosen = {*(masked & ~canvas.open[0]).nonzero()[:, 0].tolist(), *next_ones}
            seen = torch.zeros_like(masked)
            seen[visible] = True
            masks = (masked & seen).tolist()
            for position in next_ones:
                around = (p for distance in range(1, len(masks)) for p in (position - distance, position + distance))
                free = (p for p in around if 0 <= p < len(masks) and masks[p] and p not in chosen)
                chosen |= set(itertools.islice(free, self.window))
            needed = torch.zeros(canvas.length, dtype=torch.bool)
            needed[list(chosen)] = True
            if moment.shift:
                needed |= torch.nn.functional.pad(moment.planned[0], (moment.block.start - moment.shift, canvas.length - moment.block.end + moment.shift))
            return visible[needed[visible]]

        return compute
