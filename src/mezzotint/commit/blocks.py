"""Commit rules of block-diffusion models: SDAR's and LLaDA2's quota with a threshold, left to right, and LLaDA2.1's editing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mezzotint.commit.rules import Accept, best
from mezzotint.commit.sampling import Prediction
from mezzotint.fields import check


def quotas(length: int, steps: int) -> list[int]:
    """`length` tokens shared evenly among `steps`, the first ones one more. Counted from the block, whatever of it is open."""
    return [length // steps + (step < length % steps) for step in range(steps)]


@dataclass(frozen=True)
class AtLeast:
    """Every candidate surer than `tau`, and at least the step's quota of the block (SDAR "low_confidence_dynamic", arXiv 2510.06303; LLaDA2.0).

    Lower tau: more tokens per forward. tau=1 is the quota alone ("low_confidence_static"). compat="sdar" overwrites given tokens where a quota
    is larger than the masks left, as SDAR's code does.
    """

    tau: float = 0.85
    compat: str = "none"
    needs: ClassVar[tuple[str, ...]] = ("probability", "margin", "random")

    def __post_init__(self) -> None:
        check("at_least", self)
        if not 0 <= self.tau <= 1:
            raise ValueError(f"at_least tau={self.tau} must lie in [0, 1]")
        if self.compat not in ("none", "sdar"):
            raise ValueError(f"at_least compat={self.compat!r} is unknown; accepted: none, sdar")

    def begin(self, steps: int, open: Bool[Tensor, "b w"]) -> Accept:
        shares = iter(quotas(open.shape[1], steps))
        return Overwriting(self.tau, shares) if self.compat == "sdar" else Surest(self.tau, shares, open.shape[1])


class Surest:
    """One block's steps of `AtLeast`; after the last share everything left is due."""

    def __init__(self, tau: float, shares: Iterator[int], length: int):
        self.tau, self.shares, self.length = tau, shares, length

    def __call__(self, prediction: Prediction) -> Bool[Tensor, "b w"]:
        share = next(self.shares, self.length)
        sure = prediction.confidence > self.tau
        counts = [min(share, left) for left in prediction.open.sum(1).tolist()]
        return torch.where(sure.sum(1, keepdim=True) >= share, sure, best(prediction, counts))


class Overwriting:
    """SDAR's loop to the letter: the quota's positions are taken from the whole block, given tokens last."""

    def __init__(self, tau: float, shares: Iterator[int]):
        self.tau, self.shares = tau, shares

    def wanted(self, ids: Int[Tensor, "b w"]) -> Bool[Tensor, "b w"]:
        return (ids < 0).any(1, keepdim=True).expand(ids.shape).clone()

    def __call__(self, prediction: Prediction) -> Bool[Tensor, "b w"]:
        assert prediction.current is not None
        share = next(self.shares, 1)
        masked = (prediction.current < 0).to(prediction.tokens.device)
        confidence = prediction.confidence.masked_fill(~masked, -torch.inf)
        sure = confidence > self.tau
        top = torch.zeros_like(sure).scatter(-1, confidence.topk(share, dim=-1).indices, True)
        asked = prediction.open.to(top.device, non_blocking=True)
        return torch.where(sure.sum(1, keepdim=True) >= share, sure, top) & asked


@dataclass(frozen=True)
class Sequential:
    """The step's quota of the block from left to right, however sure the model is (SDAR "sequential")."""

    needs: ClassVar[tuple[str, ...]] = ()

    def begin(self, steps: int, open: Bool[Tensor, "b w"]) -> Accept:
        return Leftmost(iter(quotas(open.shape[1], steps)), open.shape[1])


class Leftmost:
    """One block's steps of `Sequential`."""

    def __init__(self, shares: Iterator[int], length: int):
        self.shares, self.length = shares, length

    def __call__(self, prediction: Prediction) -> Bool[Tensor, "b w"]:
        share = next(self.shares, self.length)
        return (prediction.open & (prediction.open.cumsum(1) <= share)).to(prediction.tokens.device, non_blocking=True)


@dataclass(frozen=True)
class Edit:
    """Masks are filled where surer than `tau`, at least `quota` per step, and tokens of the block are rewritten where another one is surer than `edit`
    (LLaDA2.1). Only for models that were trained to correct themselves.

    A block ends when it is whole and a forward changes nothing more, or after `most` forwards beyond the one that made it whole. The model card's modes:
    quality tau=0.7, edit=0.5; speed tau=0.5, edit=0.
    """

    tau: float = 0.7
    edit: float = 0.5
    most: int = 16
    quota: int = 1
    needs: ClassVar[tuple[str, ...]] = ("probability",)

    def __post_init__(self) -> None:
        check("edit", self)
        if not 0 <= self.tau <= 1:
            raise ValueError(f"edit tau={self.tau} must lie in [0, 1]")
        if self.edit < 0:
            raise ValueError(f"edit edit={self.edit} must be 0 or more (above 1: no token is rewritten)")
        for name in ("most", "quota"):
            if getattr(self, name) < 1:
                raise ValueError(f"edit {name}={getattr(self, name)} must be at least 1")

    def begin(self, steps: int, open: Bool[Tensor, "b w"]) -> Accept:
        return Editing(self, open.clone())


class Editing:
    """One block's editing. What was open at its start may be written until the row is done."""

    def __init__(self, rule: Edit, ours: Bool[Tensor, "b w"]):
        self.rule, self.ours = rule, ours
        self.before: Tensor | None = None
        self.whole = torch.zeros(len(ours), dtype=torch.long)
        self.done = ~ours.any(1)

    def wanted(self, ids: Int[Tensor, "b w"]) -> Bool[Tensor, "b w"]:
        """What the next forward is asked for, given the block's ids (-1 for a mask). Asked once before every forward."""
        if self.before is not None:
            self.done |= self._is_whole(self.before) & (ids == self.before).all(1)
        self.whole += self._is_whole(ids) & ~self.done
        self.done |= self.whole > self.rule.most
        self.before = ids
        return self.ours & ~self.done[:, None]

    def _is_whole(self, ids: Int[Tensor, "b w"]) -> Bool[Tensor, " b"]:
        return ((ids >= 0) | ~self.ours).all(1)

    def __call__(self, prediction: Prediction) -> Bool[Tensor, "b w"]:
        assert prediction.current is not None
        device, quota = prediction.tokens.device, self.rule.quota
        masked = prediction.open & (prediction.current < 0)
        counts = [min(quota, left) for left in masked.sum(1).tolist()]
        open, current = masked.to(device, non_blocking=True), prediction.current.to(device, non_blocking=True)
        masks = Prediction(prediction.tokens, prediction.confidence.masked_fill(~open, -torch.inf), masked, prediction.generators)
        sure = masks.confidence > self.rule.tau
        filled = torch.where(sure.sum(1, keepdim=True) >= quota, sure, best(masks, counts))
        rewritten = (prediction.confidence > self.rule.edit) & (prediction.tokens != current) & ~open
        return filled | rewritten
