"""Which positions are attention sinks, from the mass they receive (arXiv 2602.17664, section 3.2; arXiv 2510.15731)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.fields import check

KINDS = ("sigma", "epsilon")


@dataclass(frozen=True)
class SinkRule:
    """When a position counts as a sink.

    kind: "sigma" (the released code: above mean + std · σ, softened by a sigmoid of slope alpha) or "epsilon" (the paper's figure and Rulli et al.: above
        the mean of the others by eps, hard). std: more finds fewer sinks; a huge one finds none, which switches the down-weighting off. alpha: the slope, per
        unit of raw mass (mean heads · layers), so that on large models the score is nearly a step. eps: in units of the mean mass.
    """

    kind: str = "sigma"
    std: float = 2.0
    alpha: float = 5.0
    eps: float = 3.0

    def __post_init__(self) -> None:
        check("sink rule", self)
        if self.kind not in KINDS:
            raise ValueError(f"sink rule kind={self.kind!r} is unknown; accepted: {', '.join(KINDS)}")
        if self.alpha <= 0 or self.std < 0 or self.eps < 0:
            raise ValueError(f"sink rule std={self.std}, alpha={self.alpha}, eps={self.eps}: std and eps must be 0 or more, alpha above 0")

    def score(self, mass: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
        """How much each position is a sink, in [0, 1]; mass: raw, summed over queries, heads and layers."""
        if self.kind == "epsilon":
            others = (mass.sum(-1, keepdim=True) - mass) / max(1, mass.shape[-1] - 1)
            return (mass > others + self.eps * mass.mean(-1, keepdim=True)).to(mass.dtype)
        threshold = mass.mean(-1, keepdim=True) + self.std * mass.std(-1, correction=0, keepdim=True)
        return torch.sigmoid(self.alpha * (mass - threshold))


def sink_set(mass: Float[Tensor, "*b n"], std: float = 2.0) -> Bool[Tensor, "*b n"]:
    """Positions above mean + std · σ; where there is none, the one with the most mass."""
    found = mass > mass.mean(-1, keepdim=True) + std * mass.std(-1, correction=0, keepdim=True)
    strongest = torch.zeros_like(found).scatter_(-1, mass.argmax(-1, keepdim=True), True)
    return torch.where(found.any(-1, keepdim=True), found, strongest)


def transience(score: Float[Tensor, "steps n"]) -> Float[Tensor, " n"]:
    """How much each position comes and goes as a sink, in [0, 1]: 4 f (1 - f) with f the share of steps in which its score is above one half."""
    frequency = (score > 0.5).to(score.dtype).mean(0)
    return 4 * frequency * (1 - frequency)
