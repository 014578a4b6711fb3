"""How much a head or a neuron matters to its layer's output, and how removable that makes it."""

import torch
from jaxtyping import Float
from torch import Tensor

from mezzotint.models.transformer import Layer
from mezzotint.prune.matrices import mlp_of
from mezzotint.prune.refit import Moments

IMPORTANCES = ("energy", "fluctuation", "reconstruction")
RANKINGS = ("instability", "importance", "combined")


def channel_importance(weight: Float[Tensor, "rows c"], moments: Moments, kind: str) -> Float[Tensor, " c"]:
    """Squared effect of each input channel on the projection's output.

    energy: ‖ω x_j‖² ‖W_j‖² with sink positions weighed down (Wanda's score); fluctuation: variance, since a bias makes up for the mean (FLAP,
    arXiv 2312.11983); reconstruction: what is left after the other channels have made up for it, ‖W_j‖² / [C⁻¹]_jj (optimal brain surgeon).
    """
    columns = weight.float().square().sum(0)
    if kind == "energy":
        return moments.energy() * columns
    covariance = moments.covariance()
    if kind == "fluctuation":
        return covariance.diagonal() * columns
    damped = covariance + 1e-2 * covariance.diagonal().mean() * torch.eye(len(covariance), device=covariance.device)
    return columns / torch.linalg.inv(damped).diagonal()


def head_importance(layer: Layer, moments: Moments, kind: str) -> Float[Tensor, " heads"]:
    """The root of a head's summed channels: for "reconstruction" the channels of a head are taken together."""
    attention = layer.attention
    if kind != "reconstruction":
        return channel_importance(attention.out.weight, moments, kind).view(attention.heads, -1).sum(1).sqrt()
    covariance = moments.covariance()
    inverse = torch.linalg.inv(covariance + 1e-2 * covariance.diagonal().mean() * torch.eye(len(covariance), device=covariance.device))
    width, found = attention.head_dim, []
    for head in range(attention.heads):
        at = slice(head * width, (head + 1) * width)
        w = attention.out.weight[:, at].float()
        found.append((w @ torch.linalg.solve(inverse[at, at], w.T)).diagonal().sum())
    return torch.stack(found).clamp_min(0).sqrt()


def neuron_importance(layer: Layer, moments: Moments, kind: str) -> Float[Tensor, " neurons"]:
    return channel_importance(mlp_of(layer).down.weight, moments, kind).clamp_min(0).sqrt()


def standard(values: list[Float[Tensor, " _"]]) -> list[Float[Tensor, " _"]]:
    """Each layer's values relative to its own mean and spread, so that layers are comparable."""
    return [(v - v.mean()) / v.std(correction=0).clamp_min(1e-12) for v in values]


def removability(instability: list[Tensor], importance: list[Tensor], ranking: str, weight: float) -> list[Float[Tensor, " heads"]]:
    """What goes first: z(instability) - weight · z(importance), or either alone.

    Importance is standardised inside each layer, in its logarithm; instability over the whole model.
    """
    needed = standard([torch.log(g.double().cpu().clamp_min(1e-30)) for g in importance])
    everything = torch.cat([i.double() for i in instability])
    restless = [(i.double() - everything.mean()) / everything.std(correction=0).clamp_min(1e-12) for i in instability]
    if ranking == "instability":
        return restless
    if ranking == "importance":
        return [-g for g in needed]
    return [i - weight * g for i, g in zip(restless, needed, strict=True)]
