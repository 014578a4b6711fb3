"""What heads and neurons do to a layer's output, and how the rest makes up for those that go: least squares on calibration inputs.

The bias alone is FLAP's compensation (arXiv 2312.11983). The refit is least squares on what the pruned layers before give, towards the dense model's residual
stream, so that a layer also makes up for what those before it lost.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

REPAIRS = ("none", "bias", "refit")
RIDGE = 1e-3
"""Relative to the mean variance of the inputs."""


class Moments:
    """Sums over the inputs x (tokens, c) of one projection: Σ x, Σ x xᵀ, Σ (ω x)² with the sinks weighed down; and over what it should give out, t
    (tokens, rows): Σ t, Σ t xᵀ. Without a target it is what the projection gives out now."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Tensor] = []

    def add(self, x: Float[Tensor, "b n c"], weight: Float[Tensor, "b n"] | None, target: Float[Tensor, "b n rows"] | None = None) -> None:
        flat = x.flatten(0, 1).float()
        scaled = flat if weight is None else flat * weight.flatten()[:, None]
        seen = [flat.sum(0), flat.T @ flat, scaled.square().sum(0)]
        if target is not None:
            wanted = target.flatten(0, 1).float()
            seen += [wanted.sum(0), wanted.T @ flat]
        self.count += len(flat)
        self.sums = [a + b for a, b in zip(self.sums, seen, strict=True)] if self.sums else seen

    @property
    def aimed(self) -> bool:
        """Whether there is a target."""
        return len(self.sums) == 5

    def to(self, device: torch.device | str) -> "Moments":
        """The same on another device."""
        moved = Moments()
        moved.count, moved.sums = self.count, [total.to(device) for total in self.sums]
        return moved

    def energy(self) -> Float[Tensor, " c"]:
        """‖ω x_j‖² of each channel."""
        return self.sums[2]

    def mean(self) -> Float[Tensor, " c"]:
        return self.sums[0] / self.count

    def covariance(self) -> Float[Tensor, "c c"]:
        return self.sums[1] / self.count - torch.outer(self.mean(), self.mean())

    def target_mean(self) -> Float[Tensor, " rows"]:
        return self.sums[3] / self.count

    def cross(self) -> Float[Tensor, "rows c"]:
        """Covariance of the target with the inputs."""
        return self.sums[4] / self.count - torch.outer(self.target_mean(), self.mean())


@dataclass(frozen=True)
class Refitted:
    weight: Float[Tensor, "rows kept"]
    bias: Float[Tensor, " rows"]


def damped(covariance: Float[Tensor, "c c"]) -> Float[Tensor, "c c"]:
    """With `RIDGE` of its mean diagonal added, so that it can be inverted."""
    return covariance + RIDGE * covariance.diagonal().mean().clamp_min(1e-12) * torch.eye(len(covariance), device=covariance.device)


def fitted(weight: Float[Tensor, "rows c"], moments: Moments) -> Float[Tensor, "rows c"]:
    """All channels, nearest to the target."""
    old = weight.float()
    if not moments.aimed:
        return old.clone()
    inner = moments.covariance()
    return old + torch.linalg.solve(damped(inner), (moments.cross() - old @ inner).T).T


def refit(weight: Float[Tensor, "rows c"], bias: Tensor | None, moments: Moments, kept: Int[Tensor, " kept"], repair: str) -> Refitted:
    """The projection of the kept channels alone.

    repair: "none" (nothing is made up for), "bias" (the mean of what is gone), "refit" (nearest to the target, which is what brings the residual stream back to
    the dense model's; `RIDGE` holds it to the old weights).
    """
    old = weight.float()
    chosen = old[:, kept]
    base = torch.zeros_like(old[:, 0]) if bias is None else bias.float()
    if repair == "none":
        return Refitted(chosen, base)
    mean = moments.mean()
    if repair == "bias":
        return Refitted(chosen, base + old @ mean - chosen @ mean[kept])
    everything = moments.covariance()
    inner = everything[kept][:, kept]
    cross, wanted = (moments.cross()[:, kept], moments.target_mean()) if moments.aimed else (old @ everything[:, kept], base + old @ mean)
    chosen = chosen + torch.linalg.solve(damped(inner), (cross - chosen @ inner).T).T
    return Refitted(chosen, wanted - chosen @ mean[kept])
