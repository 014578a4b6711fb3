"""Attention mass per (tile of rows, tile of keys), exact, without an N × N matrix: one tile of rows against all keys at a time.

Memory is O(N · size + (N / size)²) per head. SparseD (arXiv 2509.24014, section 4) calls it the importance of a block.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.kernels.tiles import Tiled


@dataclass(frozen=True)
class Mass:
    """Mean over a tile's real rows of the attention they pay to each tile of keys, fp32; every row sums to 1.

    total: (b, heads, row_tiles, key_tiles); within: (b, heads, row_tiles, key_tiles - first), the softmax taken over the keys from tile `first` on.
    """

    total: Float[Tensor, "b h rows keys"]
    within: Float[Tensor, "b h rows some"]


def block_mass(
    q: Float[Tensor, "b h rows d"],
    k: Float[Tensor, "b kv cols d"],
    rows: Tiled,
    keys: Tiled,
    size: int,
    first: int,
    *,
    valid: Bool[Tensor, "b cols"] | None = None,
    scale: float | None = None,
) -> Mass:
    """q, k: after RoPE; first: the place of the first generation tile among `keys`; valid: False on padding; scale: of the scores, default 1/√d."""
    b, heads, _, dim = q.shape
    factor = dim**-0.5 if scale is None else scale
    groups = heads // k.shape[1]
    spread = keys.spread(k)
    real = keys.index >= 0 if valid is None else (valid[:, keys.index.clamp_min(0)] & (keys.index >= 0))[:, None, None, None]
    hidden = None if bool(real.all()) else ~real
    tiles = len(keys.tiles)
    transposed = spread.transpose(-1, -2)
    padded = rows.spread(q * factor)
    there = (rows.index >= 0).view(-1, size)
    total = q.new_zeros(b, heads, len(rows.tiles), tiles, dtype=torch.float32)
    within = q.new_zeros(b, heads, len(rows.tiles), tiles - first, dtype=torch.float32)
    for tile in range(len(rows.tiles)):
        some = padded[:, :, tile * size : (tile + 1) * size][:, :, there[tile]]
        scores = (some.unflatten(1, (-1, groups)) @ transposed[:, :, None]).float()
        if hidden is not None:
            scores = scores.masked_fill_(hidden, -torch.inf)
        per_tile = scores.softmax(-1).unflatten(-1, (tiles, size)).sum(-1).flatten(1, 2)
        total[:, :, tile] = per_tile.mean(2)
        generation = per_tile[..., first:]
        within[:, :, tile] = (generation / generation.sum(-1, keepdim=True).clamp_min(1e-30)).mean(2)
    return Mass(total, within)
