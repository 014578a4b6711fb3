"""How much each head or neuron adds to its layer's output, how restless it is, and in what order units go."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mezzotint.prune.refit import Moments, damped, fitted

IMPORTANCES = ("reconstruction", "energy", "fluctuation")
RANKINGS = ("instability", "importance", "combined")


def standard(values: Float[Tensor, " _"]) -> Float[Tensor, " _"]:
    """Relative to their own mean and spread."""
    return (values - values.mean()) / values.std(correction=0).clamp_min(1e-12)


def channel_energy(weight: Float[Tensor, "rows c"], moments: Moments, kind: str) -> Float[Tensor, " c"]:
    """Squared effect of each input channel on a projection's output. energy: ‖ω x_j‖² ‖W_j‖² with sink positions weighed down (Wanda's score); fluctuation: its
    variance, since a bias makes up for the mean (FLAP, arXiv 2312.11983)."""
    columns = weight.float().square().sum(0)
    return columns * (moments.energy() if kind == "energy" else moments.covariance().diagonal())


@dataclass(frozen=True)
class Ranking:
    """What goes first.

    kind: one of RANKINGS; weight: of importance beside instability; instability: of each unit, relative to the whole model's heads, None for neurons,
    which are ranked by importance alone.
    """

    kind: str
    weight: float
    instability: Float[Tensor, " units"] | None = None

    def among(self, units: Int[Tensor, " some"]) -> "Ranking":
        """Of some of the units."""
        return self if self.instability is None else Ranking(self.kind, self.weight, self.instability[units])

    def reluctance(self, loss: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
        """Least first. Importance is standardised in its logarithm, over these units: where one goes after the other, over those that still stand."""
        value = loss.double().cpu().clamp_min(1e-30).log()
        if self.instability is None or self.kind == "importance":
            return value
        if self.kind == "instability":
            return -self.instability
        return self.weight * standard(value) - self.instability


def losses(weight: Float[Tensor, "rows c"], inverse: Float[Tensor, "c c"], units: Int[Tensor, "units width"]) -> Float[Tensor, " units"]:
    """Squared error that is left when one unit's channels go and all others make up for them: tr(W_u [C⁻¹]_uu⁻¹ W_uᵀ)."""
    if units.shape[1] == 1:
        at = units[:, 0]
        return weight[:, at].square().sum(0) / inverse[at, at].clamp_min(1e-30)
    blocks = inverse[units[:, :, None], units[:, None, :]]
    columns = weight[:, units].permute(1, 2, 0)
    return (columns * torch.linalg.solve(blocks, columns)).sum((1, 2))


def unit_losses(weight: Float[Tensor, "rows c"], moments: Moments, units: Sequence[Int[Tensor, " width"]], importance: str) -> Float[Tensor, " units"]:
    """What each unit (channels of the projection that go together) costs if it alone goes."""
    table = torch.stack(list(units)).to(weight.device)
    if importance != "reconstruction":
        return channel_energy(weight, moments, importance)[table].sum(1)
    return losses(fitted(weight, moments), torch.linalg.inv(damped(moments.covariance())), table)


def removal_order(
    weight: Float[Tensor, "rows c"], moments: Moments, units: Sequence[Int[Tensor, " width"]], count: int, importance: str, ranking: Ranking
) -> list[int]:
    """The numbers of the `count` units that go, in order.

    energy and fluctuation: by their scores. reconstruction: one after the other, each time the one that is missed least once those that stay have made up
    for it (optimal brain surgeon on whole columns, as in ZipLM, arXiv 2302.04089): of two that can stand in for each other only one goes.
    """
    if count == 0:
        return []
    if importance != "reconstruction":
        return ranking.reluctance(unit_losses(weight, moments, units, importance)).argsort()[:count].tolist()
    table = torch.stack(list(units)).to(weight.device)
    inverse, left = torch.linalg.inv(damped(moments.covariance())), fitted(weight, moments)
    open = torch.arange(len(table))
    gone: list[int] = []
    while len(gone) < count:
        loss = losses(left, inverse, table[open.to(table.device)])
        best = ranking.among(open).reluctance(loss).argsort()[: min(max(1, len(table) // 1024), count - len(gone))]
        at = table[open[best].to(table.device)].flatten()
        change = torch.linalg.solve(inverse[at][:, at], inverse[at])
        left, inverse = left - left[:, at] @ change, inverse - inverse[:, at] @ change
        gone += open[best].tolist()
        open = open[~torch.isin(open, open[best])]
    return gone
