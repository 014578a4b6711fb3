"""One block under a commit rule: what it still wants to know, and what was written there."""

import dataclasses

import torch

from mezzotint.canvas import Block, Canvas
from mezzotint.commit import Prediction, Rule
from mezzotint.types import Positions, Wanted


class Writing:
    """Most rules want what is open and never take back. A rule whose callable has `wanted` (LLaDA2.1's editing) says itself what the next forward
    is asked for, is told what stands in the block, and may rewrite it.

    accept: the rule's callable for this block; ids: (b, width) what stands there, -1 for a mask, on the host; pending: (b, width) what a rewriting rule
    still asks for.
    """

    def __init__(self, rule: Rule, steps: int, canvas: Canvas, block: Block):
        self.canvas, self.block, self.span = canvas, block, slice(block.start, block.end)
        open = canvas.open[:, self.span]
        self.accept = rule.begin(steps, open)
        self.revise = getattr(self.accept, "wanted", None)
        self.ids = torch.full(open.shape, -1) if self.revise is None else canvas.mirror(block)
        self.pending = torch.zeros_like(open) if self.revise is None else self.revise(self.ids)

    @property
    def wanted(self) -> Wanted:
        """Positions that the next forward is to predict."""
        return self.canvas.open[:, self.span].clone() if self.revise is None else self.pending

    def write(self, predict: Positions, prediction: Prediction, alone: bool) -> Wanted:
        """Write what the rule accepts (alone: the block's first token and nothing else). Returns the positions that changed, on the host."""
        canvas, wanted = self.canvas, self.wanted
        local = predict - self.block.start
        known = None if self.revise is None else self.ids[:, local]
        prediction = dataclasses.replace(prediction, at=local, current=known)
        chosen = (prediction.open & (local == 0)).to(canvas.tokens.device) if alone else self.accept(prediction)
        canvas.write(predict, chosen, prediction.tokens)
        before, self.ids = self.ids, canvas.mirror(self.block)
        if self.revise is None:
            return wanted & (self.ids >= 0)
        self.pending = self.revise(self.ids)
        return self.ids != before
