"""Commit rules: which candidates become tokens. Each is a frozen value; `begin` returns the callable that counts the block's steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.commit.sampling import LEAST_TEMPERATURE, Prediction
from mezzotint.fields import check

Accept = Callable[[Prediction], Bool[Tensor, "b w"]]


@runtime_checkable
class Rule(Protocol):
    """`begin(steps, open)` at a block's start: steps that the block may take, and its open positions (b, w) on the host.

    A rule that understands only some confidences names them in a class variable `needs`, () if it looks at none.
    """

    def begin(self, steps: int, open: Bool[Tensor, "b w"]) -> Accept: ...


def best(prediction: Prediction, counts: list[int]) -> Bool[Tensor, "b w"]:
    """The counts[row] most confident open positions of each row."""
    most = max(counts)
    if most == 0:
        return torch.zeros_like(prediction.tokens, dtype=torch.bool)
    top = prediction.confidence.topk(most, dim=-1).indices
    wanted = torch.arange(most) < torch.tensor(counts)[:, None]
    return torch.zeros_like(prediction.tokens, dtype=torch.bool).scatter(-1, top, wanted.to(top.device, non_blocking=True))


def drawn(prediction: Prediction, counts: list[int], temperature: float) -> Bool[Tensor, "b w"]:
    """counts[row] positions of each row, drawn without replacement from softmax(confidence / temperature)."""
    accepted = torch.zeros(prediction.tokens.shape, dtype=torch.bool)
    weights = (prediction.confidence.float() / temperature).softmax(-1).cpu()
    for row, (count, generator) in enumerate(zip(counts, prediction.generators, strict=True)):
        possible = weights[row].clamp_min(torch.finfo(torch.float32).tiny) * prediction.open[row]
        if count > 0:
            accepted[row, torch.multinomial(possible, count, generator=generator)] = True
    return accepted.to(prediction.tokens.device, non_blocking=True)


def check_times(rule: "Timed | Origin") -> None:
    check(type(rule).__name__.lower(), rule)
    if not 0 < rule.eps < 1:
        raise ValueError(f"{type(rule).__name__.lower()} eps={rule.eps} must lie in (0, 1)")


@dataclass(frozen=True)
class Quota:
    """A fixed number of tokens per step: the block's masks shared evenly, the first steps one more (LLaDA, get_num_transfer_tokens).

    More steps: fewer tokens at once, slower, closer to one at a time.
    """

    def begin(self, steps: int, open: Bool[Tensor, "b w"]) -> Accept:
        masks = open.sum(1).tolist()
        step = 0

        def accept(prediction: Prediction) -> Bool[Tensor, "b w"]:
            nonlocal step
            counts = [n // steps + (step < n % steps) if step < steps else n for n in masks]
            step += 1
            return best(prediction, [min(c, left) for c, left in zip(counts, prediction.open.sum(1).tolist(), strict=True)])

        return accept


@dataclass(frozen=True)
class Timed:
    """Dream's schedule: time runs from 1 to `eps` in even steps t; each commits int(masks · (1 - t_next / t)), the last all.

    temperature > 0 (Dream's alg_temp) draws the positions from softmax(confidence / temperature) instead of taking the surest, at
    the price of one more synchronisation per step. start: the first time used; the official block-wise Dream decoding skips one.
    """

    eps: float = 1e-3
    temperature: float = 0.0
    start: int = 0

    def __post_init__(self) -> None:
        check_times(self)
        if self.temperature != 0 and self.temperature < LEAST_TEMPERATURE:
            raise ValueError(f"timed temperature={self.temperature} must be 0 or at least {LEAST_TEMPERATURE:g}")
        if self.start < 0:
            raise ValueError(f"timed start={self.start} must be 0 or more")

    def begin(self, steps: int, open: Bool[Tensor, "b w"]) -> Accept:
        times = torch.linspace(1, self.eps, steps + 1)
        shares = (1 - times[1:] / times[:-1]).tolist()
        step = self.start

        def accept(prediction: Prediction) -> Bool[Tensor, "b w"]:
            nonlocal step
            left = prediction.open.sum(1).tolist()
            counts = left if step >= steps - 1 else [int(n * shares[step]) for n in left]
            step += 1
            return drawn(prediction, counts, self.temperature) if self.temperature > 0 else best(prediction, counts)

        return accept


@dataclass(frozen=True)
class Origin:
    """Dream's "origin": every masked position is committed independently with probability 1 - t_next / t, whatever its confidence."""

    eps: float = 1e-3
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_times(self)

    def begin(self, steps: int, open: Bool[Tensor, "b w"]) -> Accept:
        times = torch.linspace(1, self.eps, steps + 1)
        step = 0

        def accept(prediction: Prediction) -> Bool[Tensor, "b w"]:
            nonlocal step
            share = 1 - times[step + 1] / times[step] if step < steps - 1 else torch.tensor(1.0)
            step += 1
            accepted = torch.zeros(prediction.open.shape, dtype=torch.bool)
            for row, (open, generator) in enumerate(zip(prediction.open, prediction.generators, strict=True)):
                accepted[row, open] = torch.rand(int(open.sum()), generator=generator) < share
            return accepted.to(prediction.tokens.device, non_blocking=True)

        return accept


@dataclass(frozen=True)
class Shuffled:
    """The schedule's quota in an order that is drawn at a block's first step and known from then on, however sure the model is (dKV-Cache-Greedy)."""

    needs: ClassVar[tuple[str, ...]] = ()

    def begin(self, steps: int, open: Bool[Tensor, "b w"]) -> Accept:
        return Shuffling(steps, open)


class Shuffling:
    """One block's steps of `Shuffled`. planned: (b, w) what the next step takes, None before the order is drawn."""

    def __init__(self, steps: int, open: Bool[Tensor, "b w"]):
        self.steps, self.masks, self.step = steps, open.clone(), 0
        self.planned: Tensor | None = None

    def __call__(self, prediction: Prediction) -> Bool[Tensor, "b w"]:
        assert prediction.at is not None
        if self.planned is None:
            open = torch.zeros_like(self.masks)
            open[:, prediction.at] = prediction.open
            self.masks &= open  # the first token may have been decided alone
            self.rank = self.scores(prediction.generators).argsort(-1, descending=True).argsort(-1)
        now = self.due(self.step)
        self.step += 1
        self.planned = self.due(self.step)
        return (now[:, prediction.at] & prediction.open).to(prediction.tokens.device, non_blocking=True)

    def scores(self, generators: Sequence[torch.Generator]) -> Float[Tensor, "b w"]:
        """What the order descends by, drawn for every mask."""
        scores = torch.full(self.masks.shape, -1.0)
        for row, generator in enumerate(generators):
            scores[row, self.masks[row]] = torch.rand(int(self.masks[row].sum()), generator=generator)
        return scores

    def due(self, step: int) -> Bool[Tensor, "b w"]:
        """The positions of that step."""
        count = self.masks.sum(1, keepdim=True)
        each, more = count // self.steps, count % self.steps
        first = each * step + more.clamp_max(step)
        last = first + each + (step < more)
        return (self.rank >= first) & (self.rank < last) & self.masks


@dataclass(frozen=True)
class Threshold:
    """Every candidate at least `tau` sure, and always the surest one (Fast-dLLM, arXiv 2505.22618, section 3.3).

    Higher tau: fewer tokens per forward, closer to one at a time. The step count plays no part.
    """

    tau: float = 0.9
    needs: ClassVar[tuple[str, ...]] = ("probability", "margin", "random")

    def __post_init__(self) -> None:
        check("threshold", self)
        if not 0 <= self.tau <= 1:
            raise ValueError(f"threshold tau={self.tau} must lie in [0, 1]")

    def begin(self, steps: int, open: Bool[Tensor, "b w"]) -> Accept:
        def accept(prediction: Prediction) -> Bool[Tensor, "b w"]:
            some = prediction.open.any(1).long().tolist()
            return (prediction.confidence >= self.tau) | best(prediction, some)

        return accept


@dataclass(frozen=True)
class LocalLeap:
    """As `Threshold`, and near a candidate that is `tau` sure, those at least `relaxed` sure too (arXiv 2510.07081): sureness spreads to neighbours.

    radius: how many positions to each side of it. Lower relaxed, larger radius: more tokens per forward. relaxed = tau is `Threshold`.
    """

    tau: float = 0.9
    relaxed: float = 0.75
    radius: int = 4
    needs: ClassVar[tuple[str, ...]] = ("probability",)

    def __post_init__(self) -> None:
        check("local_leap", self)
        if not 0 <= self.relaxed <= self.tau <= 1:
            raise ValueError(f"local_leap relaxed={self.relaxed} and tau={self.tau} must lie in [0, 1], relaxed not above tau")
        if self.radius < 0:
            raise ValueError(f"local_leap radius={self.radius} must be 0 or more positions")

    def begin(self, steps: int, open: Bool[Tensor, "b w"]) -> Accept:
        return self.accept

    def accept(self, prediction: Prediction) -> Bool[Tensor, "b w"]:
        assert prediction.at is not None
        confidence = prediction.confidence
        near = ((prediction.at[:, None] - prediction.at).abs() <= self.radius).to(confidence.device, non_blocking=True)
        sure = confidence >= self.tau
        beside = (sure[:, :, None] & near).any(1)
        return sure | (beside & (confidence >= self.relaxed)) | best(prediction, [min(1, left) for left in prediction.open.sum(1).tolist()])


@dataclass(frozen=True)
class Factor:
    """The more candidates are sure together, the less sure each must be (Fast-dLLM, theorem 1).

    With n open positions sorted by confidence c, the j-th must reach 1 - f / (j + 1) (the first always passes). The first
    that fails ends the row; if only the last fails it is committed all the same, as in the official code.
    """

    f: float = 1.0
    needs: ClassVar[tuple[str, ...]] = ("probability", "margin", "random")

    def __post_init__(self) -> None:
        check("factor", self)
        if self.f <= 0:
            raise ValueError(f"factor f={self.f} must be above 0")

    def begin(self, steps: int, open: Bool[Tensor, "b w"]) -> Accept:
        def accept(prediction: Prediction) -> Bool[Tensor, "b w"]:
            width = prediction.tokens.shape[1]
            rank = torch.arange(1, width + 1, device=prediction.tokens.device)
            least = 1 - self.f / (rank + 1.0)
            least[0] = -1.0
            left = prediction.open.sum(1, keepdim=True).to(prediction.tokens.device, non_blocking=True)
            ordered = prediction.confidence.sort(-1, descending=True).values
            fails = (ordered < least) & (rank <= left)
            first = torch.where(fails.any(1, keepdim=True), fails.int().argmax(1, keepdim=True) + 1, left)
            count = first - 1
            count = (count + ((count == 0) | (count == left - 1))).clamp(min=torch.zeros_like(left), max=left)
            place = prediction.confidence.argsort(-1, descending=True).argsort(-1)
            return (place < count) & prediction.open.to(place.device, non_blocking=True)

        return accept


@dataclass(frozen=True)
class EntropyBound:
    """The surest candidates whose joint uncertainty is bounded: sum of entropies minus the largest at most `gamma` nats (arXiv 2505.24857).

    Larger gamma: more tokens per forward. Needs confidence="entropy". The surest is always committed, also where no entropy is a number.
    """

    gamma: float = 0.1
    needs: ClassVar[tuple[str, ...]] = ("entropy",)

    def __post_init__(self) -> None:
        check("entropy_bound", self)
        if self.gamma < 0:
            raise ValueError(f"entropy_bound gamma={self.gamma} must be 0 or more")

    def begin(self, steps: int, open: Bool[Tensor, "b w"]) -> Accept:
        def accept(prediction: Prediction) -> Bool[Tensor, "b w"]:
            entropy, order = (-prediction.confidence).sort(-1)
            bounded = ((entropy.cumsum(-1) - entropy) <= self.gamma) & entropy.isfinite()
            chosen = torch.zeros_like(bounded).scatter(-1, order, bounded)
            surest = best(prediction, [min(1, left) for left in prediction.open.sum(1).tolist()])
            return torch.where(chosen.any(1, keepdim=True), chosen, surest)

        return accept


@dataclass(frozen=True)
class Linear:
    """Time runs evenly from 1 to 0; each step commits the expected number of the masks left, rounded (MDLM as in dllm).

    With more steps than masks, steps that would commit nothing are left out.
    """

    def begin(self, steps: int, open: Bool[Tensor, "b w"]) -> Accept:
        counts = [expected(masks, steps) for masks in open.sum(1).tolist()]
        step = 0

        def accept(prediction: Prediction) -> Bool[Tensor, "b w"]:
            nonlocal step
            now = [row[step] if step < len(row) else 0 for row in counts]
            step += 1
            return best(prediction, [min(n, left) for n, left in zip(now, prediction.open.sum(1).tolist(), strict=True)])

        return accept


def expected(masks: int, steps: int) -> list[int]:
    """Tokens per step along an even schedule, without the steps that have none. Rounded as the official code rounds: the ratio of times in fp32."""
    times = [torch.tensor((steps - step) / steps, dtype=torch.float32) for step in range(steps + 1)]
    counts = []
    for now, then in zip(times, times[1:], strict=False):
        count = min(masks, round(masks * (1 - ((1 - (1 - then)) / (1 - (1 - now))).item())))
        masks -= count
        counts.append(count)
    return [count for count in counts if count]
