"""From logits to a candidate token and a confidence for every open position: the samplers of LLaDA and Dream."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CONFIDENCES = ("probability", "margin", "entropy", "random")
SAMPLINGS = ("gumbel", "categorical")
LEAST_TEMPERATURE = 1e-4
"""Logits and confidences divided by less may overflow, and nothing is told apart at less: the draw is greedy."""


@dataclass(frozen=True)
class Prediction:
    """Candidates for the positions of the active block.

    tokens: (b, w) candidate ids; confidence: (b, w), -inf where a token is decided already;
    open: (b, w) on the host, True where a token is still wanted; generators: one per row, on the CPU;
    at: (w,) on the host, where the candidates stand in the block; current: (b, w) on the host, what stands there now, -1 for a mask; only rules that
    rewrite tokens are told.
    """

    tokens: Int[Tensor, "b w"]
    confidence: Float[Tensor, "b w"]
    open: Bool[Tensor, "b w"]
    generators: Sequence[torch.Generator]
    at: Int[Tensor, " w"] | None = None
    current: Int[Tensor, "b w"] | None = None


@dataclass(frozen=True)
class Sampler:
    """How a candidate is drawn and how sure the model is of it.

    "gumbel" (LLaDA, generate.py): argmax of exp(logits) / (-log u)^temperature in float64; the confidence comes from the
    distribution without that noise. "categorical" (Dream, generation_utils.py): temperature, then top-p, then top-k cut the
    distribution, and both the draw and the confidence come from what is left, in float32.

    confidence: "probability" of the candidate; "margin" between the two likeliest; negative "entropy"; "random".
    never: ids that are not drawn; last: ids that may be, but count for nothing where confidence is measured, so that they are taken when nothing else is open.
    """

    sampling: str = "gumbel"
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    confidence: str = "probability"
    never: tuple[int, ...] = ()
    last: tuple[int, ...] = ()

    def __call__(self, logits: Float[Tensor, "b w vocab"], open: Bool[Tensor, "b w"], generators: Sequence[torch.Generator]) -> Prediction:
        if self.never:
            logits = without(logits, self.never, -torch.inf)
        if self.sampling == "gumbel":
            tokens, distribution = self._gumbel(logits, open, generators)
        else:
            tokens, distribution = self._categorical(logits, open, generators)
        if self.last:
            rest = without(distribution, self.last, 0.0)
            distribution = rest / rest.sum(-1, keepdim=True).clamp_min(torch.finfo(rest.dtype).tiny)
        confidence = self._confidence(distribution, tokens, open, generators)
        closed = ~open.to(logits.device, non_blocking=True)
        return Prediction(tokens, confidence.masked_fill(closed, -torch.inf), open, generators)

    def _gumbel(self, logits: Tensor, open: Tensor, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        exact = cut(logits.double(), self.top_p, self.top_k)
        if self.temperature == 0:
            return logits.argmax(-1), exact.softmax(-1)
        uniform = uniforms(open, generators, logits.device, logits.shape[-1])
        return (exact - self.temperature * (-uniform.log()).log()).argmax(-1), exact.softmax(-1)

    def _categorical(self, logits: Tensor, open: Tensor, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        scaled = logits.float() / self.temperature if self.temperature > 0 else logits.float()
        distribution = cut(scaled, self.top_p, self.top_k).softmax(-1)
        if self.temperature == 0:
            return distribution.argmax(-1), distribution
        # inverse transform: the first token at which the cumulative probability passes u
        uniform = uniforms(open, generators, logits.device, 1)
        cumulative = distribution.double().cumsum(-1)
        drawn = torch.searchsorted(cumulative, uniform * cumulative[..., -1:], right=True)[..., 0]
        return drawn.clamp_max(logits.shape[-1] - 1), distribution

    def _confidence(self, distribution: Tensor, tokens: Tensor, open: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        if self.confidence == "random":
            return uniforms(open, generators, tokens.device, 1)[..., 0]
        if self.confidence == "margin":
            top = distribution.topk(2, dim=-1).values
            return top[..., 0] - top[..., 1]
        if self.confidence == "entropy":
            return (distribution * (distribution + 1e-10).log()).sum(-1)
        return distribution.gather(-1, tokens[..., None])[..., 0]


def without(values: Float[Tensor, "b w vocab"], ids: Sequence[int], value: float) -> Float[Tensor, "b w vocab"]:
    """A copy in which these ids have that value."""
    values = values.clone()
    for token in ids:
        values[..., token] = value
    return values


def uniforms(open: Bool[Tensor, "b w"], generators: Sequence[torch.Generator], device: torch.device, each: int) -> Float[Tensor, "b w each"]:
    """`each` uniform draws for every open position, each row's from its own generator: a row does not depend on its neighbours."""
    drawn = torch.full((*open.shape, each), 0.5, dtype=torch.float64)
    for row, generator in enumerate(generators):
        drawn[row, open[row]] = torch.rand(int(open[row].sum()), each, generator=generator, dtype=torch.float64)
    return drawn.to(device, non_blocking=True)


def cut(logits: Float[Tensor, "b w vocab"], top_p: float, top_k: int) -> Float[Tensor, "b w vocab"]:
    """Keep the likeliest tokens up to and including the one that crosses `top_p`, and at most `top_k` of them (0: all)."""
    lowest = torch.finfo(logits.dtype).min
    if top_p < 1:
        ordered, order = logits.sort(-1, descending=True)
        beyond = ordered.softmax(-1).cumsum(-1) > top_p
        beyond = torch.cat((torch.zeros_like(beyond[..., :1]), beyond[..., :-1]), dim=-1)
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), lowest)
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k, dim=-1).values[..., -1:], lowest)
    return logits
