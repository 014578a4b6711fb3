"""Attention mass per position, layer, head and step: at synthetic noise levels, and in real generations."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mezzotint.analysis.dynamics import Dynamics, dynamics
from mezzotint.attention.observed import Observed, Watched
from mezzotint.denoising import denoise
from mezzotint.kernels.column_mass import column_mass
from mezzotint.models.transformer import Scope, Transformer
from mezzotint.recipe import Recipe
from mezzotint.types import Moment


def scope_mass(q: Tensor, k: Tensor, scope: Scope) -> Float[Tensor, "b h visible"]:
    """Mass per visible position of one layer of a forward, padding left out. Raises ValueError where rows may not look everywhere."""
    if getattr(scope, "mask", None) is not None:
        raise ValueError("attention mass is for models in which every position sees every other; this one's attention is masked")
    if scope.valid is None:
        return column_mass(q, k)
    rows = scope.valid[:, torch.searchsorted(scope.over, scope.at).to(q.device, non_blocking=True)]
    return column_mass(q, k, rows=rows, keys=scope.valid)


def check_sight(model: Transformer) -> None:
    """Refuse a model in which some position does not see every other: shares of attention could not be laid side by side."""
    config = model.config
    for name, limits in (("window", "layers that see only a window"), ("block_length", "positions that see no block behind their own")):
        if (value := getattr(config, name)) is not None:
            raise ValueError(
                f"a {config.family} model has {limits} ({name}={value}); accepted: models in which every position sees every other, as in LLaDA and Dream"
            )


class HeadMass:
    """Collects `scope_mass` of every layer of one forward; look at `layers` afterwards."""

    def __init__(self) -> None:
        self.layers: list[Float[Tensor, "b h visible"]] = []

    def __call__(self, layer: int, q: Tensor, k: Tensor, scope: Scope) -> None:
        self.layers.append(scope_mass(q, k, scope))

    def total(self) -> Float[Tensor, "b visible"]:
        """Summed over heads and layers."""
        return torch.stack([layer.sum(1) for layer in self.layers]).sum(0)


@torch.inference_mode()
def total_mass(model: Transformer, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Attention that each position gets, summed over queries, heads and layers of one forward."""
    mass = HeadMass()
    model.hidden(tokens, attend=Watched(mass))
    return mass.total()


def noise_level(step: int, steps: int = 50, eps: float = 1e-3) -> float:
    """The probability that a token is masked at a step of `steps`: (1 - eps) t + eps with t = step / steps (LLaDA, arXiv 2502.09992)."""
    return (1 - eps) * step / steps + eps


def masked_at(length: int, level: float, generator: torch.Generator) -> Bool[Tensor, " n"]:
    """Each position independently, with probability `level`; drawn on the host."""
    return torch.rand(length, generator=generator) < level


@dataclass(frozen=True)
class Recording:
    """Shares of attention over a run.

    share: of each head's attention that a position gets, fp32; a head's sum to 1 at every step; layers with fewer heads (pruned) are filled up with NaN.
    levels: the share of masked positions, the step's number, or the length, by source: "noise", "generation" or "prefixes".
    """

    share: Float[Tensor, "samples layers heads steps n"]
    levels: Float[Tensor, " steps"]
    source: str

    def heads(self) -> Dynamics:
        """Dynamics of every head: figures are (samples, layers, heads)."""
        return dynamics(self.share)

    def whole(self) -> Dynamics:
        """Dynamics of the model: the mass of all heads and layers together, figures are (samples,)."""
        return dynamics(self.total())

    def total(self) -> Float[Tensor, "samples steps n"]:
        return self.share.double().nanmean((1, 2))


def assemble(model: Transformer, steps: Sequence[Sequence[Tensor]]) -> Float[Tensor, "b layers heads steps n"]:
    """Shares from the masses of every step and layer, (b, heads, n) each."""
    widest = max(layer.shape[1] for layer in steps[0])
    share = torch.full((steps[0][0].shape[0], len(steps[0]), widest, len(steps), steps[0][0].shape[2]), torch.nan)
    for t, layers in enumerate(steps):
        for index, mass in enumerate(layers):
            share[:, index, : mass.shape[1], t] = (mass / mass.sum(-1, keepdim=True)).cpu()
    return share


@torch.inference_mode()
def record_noise(
    model: Transformer, ids: Int[Tensor, "samples n"], *, levels: Sequence[float] | None = None, keep: Bool[Tensor, "samples n"] | None = None, seed: int = 0
) -> Recording:
    """Samples of equal length at noise levels, from most to least masked, as a run goes.

    levels: probabilities of a mask, default ten of LLaDA's fifty; keep: positions that are never masked (a prompt). Each (sample, level) has its own generator.
    """
    check_sight(model)
    chosen = sorted([noise_level(step) for step in range(5, 51, 5)] if levels is None else levels, reverse=True)
    if len(chosen) < 2 or not all(0 <= level <= 1 for level in chosen):
        raise ValueError(f"levels={chosen!r} must be at least two numbers in [0, 1]")
    samples = []
    for index, row in enumerate(ids):
        steps = []
        for number, level in enumerate(chosen):
            masked = masked_at(len(row), level, torch.Generator().manual_seed(((seed * 100003 + index) * 1009 + number) % 2**63))
            if keep is not None:
                masked &= ~keep[index]
            mass = HeadMass()
            model.hidden(row.masked_fill(masked.to(row.device), model.config.mask_id)[None].to(model.device), attend=Watched(mass))
            steps.append(mass.layers)
        samples.append(assemble(model, steps))
    return Recording(torch.cat(samples), torch.tensor(chosen), "noise")


def record_generation(model: Transformer, prompt: Int[Tensor, "b p"], recipe: Recipe, *, every: int = 1, seed: int = 0) -> Recording:
    """Watch a real generation, every `every`-th of its steps. Strategies that do not see or compute everything at every step are refused."""
    check_sight(model)
    if recipe.cache.stores or recipe.max_tokens is not None or every < 1 or recipe.cfg_scale != 0:
        raise ValueError(
            f"every={every}: recording needs every >= 1 and a recipe without cache, max_tokens and guidance, so that each step sees the same positions"
        )
    taken: list[HeadMass] = []
    numbers: list[int] = []

    def watch(moment: Moment) -> HeadMass | None:
        if moment.step % every:
            return None
        taken.append(HeadMass())
        numbers.append(moment.step)
        return taken[-1]

    for _ in denoise(model, prompt, recipe.with_(attention=Observed(watch, recipe.attention)), seed=seed):
        pass
    lengths = {mass.layers[0].shape[-1] for mass in taken}
    if len(lengths) != 1:
        raise ValueError(f"suffix={recipe.suffix}: the visible positions change between steps; record with suffix=full")
    return Recording(assemble(model, [mass.layers for mass in taken]), torch.tensor(numbers, dtype=torch.float32), "generation")
