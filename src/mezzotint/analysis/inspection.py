"""One real generation, watched for what three methods rest on: moving sinks (arXiv 2602.17664), head patterns that last (SparseD, arXiv 2509.24014), and how
far into the suffix attention reaches (DPad, arXiv 2508.14148)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mezzotint.analysis.recording import HeadMass, Recording, assemble, check_sight
from mezzotint.attention.observed import Observed
from mezzotint.canvas import Block
from mezzotint.denoising import denoise
from mezzotint.kernels.block_mass import block_mass
from mezzotint.kernels.column_mass import column_mass
from mezzotint.kernels.tiles import Grid, Tiled
from mezzotint.models.transformer import Scope, Transformer
from mezzotint.recipe import Recipe
from mezzotint.types import Moment

KEPT = 0.3
"""The share of the tiles in each row that counts as a head's pattern (SparseD's `select`)."""


@dataclass(frozen=True)
class Inspection:
    """What one run showed.

    recording: attention shares. patterns: mean attention between tiles of positions at some steps, `pattern_steps`, the first and the last among them.
    overlap: (steps, layers) Jaccard overlap of the heads' most attended tiles with those of the first watched step. suffix: (layers, distances) attention that
    the active block pays to an undecided position behind it, per position, by its distance from the block's end; NaN where there was none. tokens: the
    finished canvas; blocks: (steps,) first position of the active block.
    """

    recording: Recording
    patterns: Float[Tensor, "some layers heads rows keys"]
    pattern_steps: tuple[int, ...]
    overlap: Float[Tensor, "steps layers"]
    suffix: Float[Tensor, "layers distances"]
    tokens: Int[Tensor, " n"]
    blocks: tuple[int, ...]


class Patterns:
    """The tile patterns of one step after the other. All can be larger than the model, so three are kept, and of the others the overlap with the first."""

    def __init__(self, middle: int):
        """middle: the number of the step whose pattern is kept beside those of the first and the last."""
        self.middle = middle
        self.kept: dict[int, Float[Tensor, "layers heads rows keys"]] = {}
        self.overlap: list[Float[Tensor, " layers"]] = []

    def add(self, layers: list[Tensor]) -> None:
        number, heads = len(self.overlap), max(map(len, layers))
        self.kept[number] = torch.stack([pad(layer, heads) for layer in layers])
        self.overlap.append(overlap(self.kept[0], self.kept[number]))
        if number - 1 not in (0, self.middle):
            self.kept.pop(number - 1, None)


class Sight(HeadMass):
    """One watched step: masses, the tiles' pattern, and what the active block pays to the suffix."""

    def __init__(self, block: Block, tile: int):
        super().__init__()
        self.block, self.tile = block, tile
        self.patterns: list[Tensor] = []
        self.suffix: list[Tensor] = []

    def __call__(self, layer: int, q: Tensor, k: Tensor, scope: Scope) -> None:
        super().__call__(layer, q, k, scope)
        tiled = Tiled.of(scope.at, Grid(0, self.tile), q.device)
        self.patterns.append(block_mass(q, k, tiled, tiled, self.tile, 0).total[0].cpu())
        rows = slice(self.block.start, self.block.end)
        paid = column_mass(q[:, :, rows], k).sum(1)[0] / (q.shape[1] * len(self.block))
        self.suffix.append(paid[self.block.end :].cpu())

    def taken(self) -> list[Tensor]:
        """The patterns of all layers, which are then gone from here."""
        patterns, self.patterns = self.patterns, []
        return patterns


def inspect(model: Transformer, prompt: Int[Tensor, " p"], recipe: Recipe, *, watched: int = 32, tile: int = 8, seed: int = 0) -> Inspection:
    """Run plain dense decoding of one prompt and watch at most `watched` steps, evenly apart.

    recipe: its schedule is used. Raises ValueError for a recipe with a cache, suffix dropout, guidance or max_tokens: then not every step sees everything;
    and for models whose layers see only a window or the blocks before.
    """
    check_sight(model)
    if recipe.cache.stores or hasattr(recipe.cache, "through") or recipe.cfg_scale != 0 or recipe.max_tokens is not None:
        raise ValueError(f"cache={recipe.cache}, max_tokens={recipe.max_tokens}: inspection needs a recipe without cache, guidance and max_tokens")
    if watched < 2:
        raise ValueError(f"watched={watched} must be at least 2")
    steps = recipe.blocks * recipe.steps_per_block
    every = max(1, -(-steps // watched))
    patterns = Patterns(middle=-(-steps // every) // 2)
    sights: list[Sight] = []
    numbers: list[int] = []

    def watch(moment: Moment) -> Sight | None:
        if moment.step % every:
            return None
        if sights:
            patterns.add(sights[-1].taken())
        sights.append(Sight(moment.block, tile))
        numbers.append(moment.step)
        return sights[-1]

    tokens = prompt
    for step in denoise(model, prompt[None], recipe.with_(attention=Observed(watch)), seed=seed):
        tokens = step.tokens[0]
        if len(step.visible) != len(tokens):
            raise ValueError(f"suffix={recipe.suffix}: inspection needs every position to be visible; use suffix=full")
    if len(sights) < 2:
        raise ValueError("the run took too few steps to see anything move; use a longer gen_length")
    patterns.add(sights[-1].taken())
    return Inspection(
        Recording(assemble(model, [s.layers for s in sights]), torch.tensor(numbers, dtype=torch.float32), "generation"),
        torch.stack(list(patterns.kept.values())),
        tuple(numbers[i] for i in patterns.kept),
        torch.stack(patterns.overlap),
        suffix_by_distance(sights),
        tokens.cpu(),
        tuple(s.block.start for s in sights),
    )


def pad(pattern: Float[Tensor, "heads rows keys"], heads: int) -> Float[Tensor, "all rows keys"]:
    """Layers with fewer heads are filled up with NaN."""
    return torch.nn.functional.pad(pattern, (0, 0, 0, 0, 0, heads - len(pattern)), value=torch.nan)


def overlap(first: Float[Tensor, "layers heads rows keys"], later: Float[Tensor, "layers heads rows keys"]) -> Float[Tensor, " layers"]:
    """Mean Jaccard overlap of the most attended `KEPT` of each row's tiles."""
    count = max(1, round(KEPT * first.shape[-1]))
    kept = []
    for mass in (first, later):
        there = mass.nan_to_num(-1)
        kept.append(torch.zeros_like(there, dtype=torch.bool).scatter_(-1, there.topk(count, -1).indices, True))
    jaccard = (kept[0] & kept[1]).sum(-1).float() / (kept[0] | kept[1]).sum(-1)
    return jaccard.mean(-1).masked_fill(first.isnan().any(-1).any(-1), torch.nan).nanmean(-1)


def suffix_by_distance(sights: list[Sight]) -> Float[Tensor, "layers distances"]:
    """Mean over the steps that had a position at that distance behind the block."""
    most = max((len(s.suffix[0]) for s in sights), default=0)
    rows = []
    for layer in range(len(sights[0].suffix)):
        padded = [torch.nn.functional.pad(s.suffix[layer], (0, most - len(s.suffix[layer])), value=torch.nan) for s in sights]
        rows.append(torch.stack(padded).nanmean(0))
    return torch.stack(rows)
