"""How attention sinks move over the steps of a denoising run: variance, persistence, instability (arXiv 2602.17664, section 3.1).

All take mass as (..., steps, positions), steps in the order of the run, and work in fp64. Positions that get no attention at all (padding) must be cut off.
A head that is not there (NaN) has no figures.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.analysis.sinks import sink_set


@dataclass(frozen=True)
class Dynamics:
    """One figure per leading index of the mass it was made from (e.g. sample, layer, head).

    spatial_variance: over positions, of the step-averaged share times the number of positions; high where the same few positions always win.
    temporal_variance: over steps, of the sinks' centroid, in squared positions; temporal_variance_norm: relative to a uniform position's, at most 1.
    persistence: mean Jaccard overlap of consecutive sink sets, 1 = always the same; dominance: share of all attention that the sinks get; top1_share: that
    the single strongest position gets. movement: mean total variation distance between consecutive steps, which also sees mass that moves among sinks;
    run_length: mean share of the run for which the strongest position stays the same; autocorrelation: of the centroid, at lag 1.
    instability: dominance · ½ (temporal_variance_norm + 1 - persistence), in [0, 1]: attention that goes to sinks, and to sinks that move.
    sink_set: (..., steps, positions); centroid: (..., steps).
    """

    spatial_variance: Tensor
    temporal_variance: Tensor
    temporal_variance_norm: Tensor
    persistence: Tensor
    dominance: Tensor
    top1_share: Tensor
    movement: Tensor
    run_length: Tensor
    autocorrelation: Tensor
    instability: Tensor
    sink_set: Bool[Tensor, "*b steps n"]
    centroid: Float[Tensor, "*b steps"]


def dynamics(mass: Float[Tensor, "*b steps n"]) -> Dynamics:
    """Everything there is to say about one head's (or the whole model's) sinks. Raises ValueError with fewer than two steps or positions."""
    steps, n = mass.shape[-2:]
    if steps < 2 or n < 2:
        raise ValueError(f"{steps} steps of {n} positions: dynamics need at least 2 of each")
    share = mass.double() / mass.double().sum(-1, keepdim=True)
    sinks = sink_set(share)
    centre = centroid(share, sinks)
    variance = centre.var(-1, correction=0)
    relative = (variance / ((n * n - 1) / 12)).clamp(max=1)
    there = ~share.isnan().flatten(-2).any(-1)
    kept = persistence(sinks).where(there, torch.nan)
    dominance = (share * sinks).sum(-1).mean(-1)
    return Dynamics(
        spatial_variance=(share.mean(-2) * n).var(-1, correction=0),
        temporal_variance=variance,
        temporal_variance_norm=relative,
        persistence=kept,
        dominance=dominance,
        top1_share=share.amax(-1).mean(-1),
        movement=(share[..., 1:, :] - share[..., :-1, :]).abs().sum(-1).mean(-1) / 2,
        run_length=run_length(share).where(there, torch.nan),
        autocorrelation=autocorrelation(centre).where(there, torch.nan),
        instability=dominance * (relative + 1 - kept) / 2,
        sink_set=sinks,
        centroid=centre,
    )


def centroid(share: Float[Tensor, "*b n"], sinks: Bool[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """The mass-weighted mean position of the sinks."""
    weight = share * sinks
    return (weight * torch.arange(share.shape[-1], dtype=share.dtype, device=share.device)).sum(-1) / weight.sum(-1)


def persistence(sinks: Bool[Tensor, "*b steps n"]) -> Float[Tensor, "*b"]:
    """Mean Jaccard overlap of the sink sets of consecutive steps."""
    before, after = sinks[..., :-1, :], sinks[..., 1:, :]
    return ((before & after).sum(-1).double() / (before | after).sum(-1)).mean(-1)


def run_length(share: Float[Tensor, "*b steps n"]) -> Float[Tensor, "*b"]:
    """Mean length of the stretches with one strongest position, as a share of the run."""
    strongest = share.argmax(-1)
    stretches = 1 + (strongest[..., 1:] != strongest[..., :-1]).sum(-1)
    return 1 / stretches.double()


def autocorrelation(series: Float[Tensor, "*b steps"]) -> Float[Tensor, "*b"]:
    """At lag 1; 1 for a series that does not move at all."""
    centred = series - series.mean(-1, keepdim=True)
    energy = centred.square().sum(-1)
    return torch.where(energy > 1e-12, (centred[..., 1:] * centred[..., :-1]).sum(-1) / energy.clamp_min(1e-12), 1.0)


def compute_sink_instability(attention: Float[Tensor, "steps n n"]) -> float:
    """Instability of one attention map over the steps; rows are queries and sum to 1."""
    return float(dynamics(attention.double().mean(-2)).instability)
