"""What heads and neurons do to a layer's output, and how the rest makes up for those that go: least squares on calibration inputs.

The bias alone is FLAP's compensation (arXiv 2312.11983); the refit is the closed form of SparseGPT's update for whole columns, as ZipLM has it (arXiv 2302.04089).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

REPAIRS = ("none", "bias", "refit")


class Moments:
    """Sums over the inputs x (tokens, c) of one projection: count, Σ x, Σ x xᵀ, and Σ (ω x)² per channel with the sinks weighed down."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Tensor | None = None
        self.second: Tensor | None = None
        self.weighted: Tensor | None = None

    def add(self, x: Float[Tensor, "b n c"], weight: Float[Tensor, "b n"] | None) -> None:
        flat = x.flatten(0, 1).float()
        scaled = flat if weight is None else flat * weight.flatten()[:, None]
        seen = flat.sum(0), flat.T @ flat, scaled.square().sum(0)
        self.count += len(flat)
        if self.first is None or self.second is None or self.weighted is None:
            self.first, self.second, self.weighted = seen
        else:
            self.first, self.second, self.weighted = self.first + seen[0], self.second + seen[1], self.weighted + seen[2]

    def energy(self) -> Float[Tensor, " c"]:
        """‖ω x_j‖² of each channel."""
        assert self.weighted is not None
        return self.weighted

    def mean(self) -> Float[Tensor, " c"]:
        assert self.first is not None
        return self.first / self.count

    def covariance(self) -> Float[Tensor, "c c"]:
        assert self.second is not None
        return self.second / self.count - torch.outer(self.mean(), self.mean())


@dataclass(frozen=True)
class Refitted:
    weight: Float[Tensor, "rows kept"]
    bias: Float[Tensor, " rows"]


def refit(weight: Float[Tensor, "rows c"], bias: Tensor | None, moments: Moments, kept: Int[Tensor, " kept"], repair: str, ridge: float = 1e-2) -> Refitted:
    """The projection of the kept channels alone that comes nearest to the old output.

    repair: "none" (nothing is made up for), "bias" (the mean of what is gone), "refit" (also the part that the kept channels predict, ridge relative to the
    mean variance).
    """
    old = weight.float()
    chosen = old[:, kept]
    base = torch.zeros_like(old[:, 0]) if bias is None else bias.float()
    if repair == "none":
        return Refitted(chosen, base)
    mean = moments.mean()
    if repair == "refit":
        covariance = moments.covariance()
        inner = covariance[kept][:, kept]
        damped = inner + ridge * inner.diagonal().mean().clamp_min(1e-12) * torch.eye(len(kept), device=inner.device)
        gone = torch.ones(len(old[0]), dtype=torch.bool, device=old.device)
        gone[kept] = False
        chosen = chosen + torch.linalg.solve(damped, covariance[kept][:, gone] @ old[:, gone].T, left=True).T
    return Refitted(chosen, base + old @ mean - chosen @ mean[kept])
