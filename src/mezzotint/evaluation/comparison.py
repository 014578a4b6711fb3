"""How likely a model finds answers, and how far a changed model is from the one it came from, on the same masks (common random numbers)."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mezzotint.evaluation.likelihood import Draws
from mezzotint.models.transformer import Transformer


@dataclass(frozen=True)
class Masked:
    """One batch of masked canvases of equal length, on the host.

    tokens: with masks; target: without; masked: which positions count; samples: (b,) which sample each row is of.
    """

    tokens: Int[Tensor, "b n"]
    target: Int[Tensor, "b n"]
    masked: Bool[Tensor, "b n"]
    samples: Int[Tensor, " b"]


def masked_rows(samples: Sequence[tuple[Int[Tensor, " _"], int, int]], mask_id: int, *, draws: int = 4, seed: int = 0, batch: int = 16) -> list[Masked]:
    """`draws` masked versions of each sample (ids, start, end), of which positions [start, end) may be masked.

    Draw d of a sample masks k of its L positions, k spread evenly over 1..L, as the bound of LLaDA (arXiv 2502.09992, eq. 6) wants it. The masks depend
    on the seed and the sample's number alone, so every model sees the same.
    """
    for name, value in (("draws", draws), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    rows: dict[int, list[tuple[Tensor, Tensor, Tensor, int]]] = {}
    for number, (ids, start, end) in enumerate(samples):
        length = end - start
        if length < 1 or start < 0 or end > len(ids):
            raise ValueError(f"sample {number}: the span [{start}, {end}) does not lie inside its {len(ids)} tokens")
        for chosen in Draws.make(draws, length, (seed * 100003 + number) % 2**63).masked:
            masked = torch.zeros(len(ids), dtype=torch.bool)
            masked[start:end] = chosen
            rows.setdefault(len(ids), []).append((ids.masked_fill(masked, mask_id), ids, masked, number))
    found = []
    for _, same in sorted(rows.items()):
        for first in range(0, len(same), batch):
            tokens, target, masked, numbers = zip(*same[first : first + batch], strict=True)
            found.append(Masked(torch.stack(tokens), torch.stack(target), torch.stack(masked), torch.tensor(numbers)))
    return found


PIECE = 2048
"""Masked positions whose logits are held at once."""


def said(model: Transformer, batch: Masked) -> Iterator[Float[Tensor, "piece vocab"]]:
    """The logits at the masked positions, row after row, fp32, on the model's device."""
    row, place = (index.to(model.device) for index in batch.masked.nonzero(as_tuple=True))
    hidden = model.hidden(batch.tokens.to(model.device))[row, (place - model.config.shift).clamp_min(0)]
    for some in hidden.split(PIECE):
        yield model.head(some).float()


@dataclass(frozen=True)
class Quality:
    """How well a model fills masks.

    nll: the bound on -log p of each sample, in nats per token. guesses: the likeliest token of every masked position, batch after batch; right: whether it is
    the text's own; samples: which sample it is of.
    """

    nll: Float[Tensor, " samples"]
    guesses: Int[Tensor, " masked"]
    right: Bool[Tensor, " masked"]
    samples: Int[Tensor, " masked"]

    @property
    def mean(self) -> float:
        return float(self.nll.mean())

    @property
    def masked_ppl(self) -> float:
        """exp of the mean over samples of their draws' mean costs: the block perplexity of the released code."""
        return math.exp(self.mean)

    @property
    def accuracy(self) -> float:
        """Share of the masked positions of which the likeliest token is right."""
        return float(self.right.double().mean())


def per_sample(values: Float[Tensor, " rows"], samples: Int[Tensor, " rows"]) -> Float[Tensor, " samples"]:
    """Means over the rows of each sample, in the order of their numbers."""
    _, place = samples.unique(return_inverse=True)
    count = torch.bincount(place).double()
    return torch.zeros(len(count), dtype=torch.double).index_add(0, place, values.double()) / count


@torch.no_grad()
def judge(model: Transformer, batches: Sequence[Masked], look: Callable[[Float[Tensor, "piece vocab"]], None] | None = None) -> Quality:
    """The bound and the likeliest tokens. Each row's mean cost over its k masks is L/k · Σ / L, so its mean over draws is the bound per token.

    look: is shown the logits at all masked positions, piece after piece.
    """
    rows, guesses, right, samples = [], [], [], []
    for b in batches:
        target, row = b.target[b.masked], b.masked.nonzero()[:, 0]
        paid, likeliest, first = [], [], 0
        for logits in said(model, b):
            if look is not None:
                look(logits)
            wanted = target[first : first + len(logits)].to(logits.device)
            paid.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none").cpu())
            likeliest.append(logits.argmax(-1).cpu())
            first += len(logits)
        rows.append(torch.zeros(len(b.tokens)).index_add(0, row, torch.cat(paid)) / b.masked.sum(1))
        guesses.append(torch.cat(likeliest))
        right.append(guesses[-1] == target)
        samples.append(b.samples[row])
    return Quality(per_sample(torch.cat(rows), torch.cat([b.samples for b in batches])), *map(torch.cat, (guesses, right, samples)))


@torch.no_grad()
def log_probabilities(model: Transformer, batches: Sequence[Masked]) -> Iterator[Float[Tensor, "piece vocab"]]:
    """At all masked positions, piece after piece, as `judge_beside` takes them."""
    for batch in batches:
        for logits in said(model, batch):
            yield logits.log_softmax(-1)


@torch.no_grad()
def judge_beside(changed: Transformer, dense: Iterable[Float[Tensor, "piece vocab"]], batches: Sequence[Masked]) -> tuple[Quality, float]:
    """A changed model's quality, and its mean KL from the dense one, KL(dense || changed), at the masked positions, in nats.

    dense: its `log_probabilities` on the same batches; a list of them serves several models.
    """
    theirs = iter(dense)
    apart: list[Tensor] = []

    def look(logits: Tensor) -> None:
        apart.append(torch.nn.functional.kl_div(logits.log_softmax(-1), next(theirs), log_target=True, reduction="none").sum(-1).cpu())

    quality = judge(changed, batches, look)
    return quality, float(torch.cat(apart).double().mean())


MEASURES = ("nll", "ppl", "accuracy", "agreement")


@dataclass(frozen=True)
class Drop:
    """Quality that is lost, below zero where it is gained, and its standard error over samples."""

    value: float
    error: float


def drop(changed: Quality, dense: Quality, measure: str = "nll") -> Drop:
    """What a changed model loses on the masks that both were judged on.

    measure: "nll", the relative increase of the bound; "ppl", that of its exponential, which asks no more of a model that is nearly certain than of another;
    "accuracy", the share of masked positions that are no longer right; or "agreement", the share of them whose likeliest token is another one.
    """
    if measure in ("nll", "ppl"):
        apart = changed.nll - dense.nll
        mean, error = float(apart.mean()), float(apart.std()) / math.sqrt(len(apart)) if len(apart) > 1 else 0.0
        return Drop(mean / dense.mean, error / dense.mean) if measure == "nll" else Drop(math.expm1(min(mean, 700.0)), math.exp(min(mean, 700.0)) * error)
    lost = (dense.right.double() - changed.right.double()) if measure == "accuracy" else (changed.guesses != dense.guesses).double()
    _, sample = dense.samples.unique(return_inverse=True)
    count, mean = int(sample.max()) + 1, float(lost.mean())
    scatter = torch.zeros(count, dtype=torch.double).index_add(0, sample, lost - mean).norm() / len(lost)
    return Drop(mean, float(scatter) * math.sqrt(count / (count - 1)) if count > 1 else 0.0)
