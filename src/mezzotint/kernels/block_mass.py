"""Attention mass per (tile of rows, tile of keys), exact, without an N × N matrix: one tile of rows against all keys at a time.

Memory is O(N · size + (N / size)²) per head. SparseD (arXiv 2509.24014, section 4) calls it the importance of a block.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.kernels.tiles import Tiled

CHUNK = 2**21
"""Scores held at once: small enough for a CPU's cache, enough to fill a GPU only with several heads."""


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
    hidden = [(~row).nonzero()[:, 0] for row in keys.real(b, valid)]
    tiles, columns = len(keys.tiles), len(keys.index)
    padded, transposed = rows.spread(q * factor), keys.spread(k).transpose(-1, -2)
    there = (rows.index >= 0).view(-1, size)
    total = q.new_zeros(b, heads, len(rows.tiles), tiles, dtype=torch.float32)
    within = q.new_zeros(b, heads, len(rows.tiles), tiles - first, dtype=torch.float32)
    together = max(1, CHUNK // (size * columns))
    scores, probability = q.new_empty(2, together, size, columns, dtype=torch.float32)
    for row in range(b):
        for head in range(0, heads, together):
            some = torch.arange(head, min(head + together, heads), device=q.device)
            facing = transposed[row, some // groups].float()
            for tile in range(len(rows.tiles)):
                mine = padded[row, some, tile * size : (tile + 1) * size][:, there[tile]].float()
                found = torch.bmm(mine, facing, out=scores[: len(some), : mine.shape[1]])
                found.index_fill_(-1, hidden[row], -torch.inf)
                shares = torch.softmax(found, -1, out=probability[: len(some), : mine.shape[1]])
                per_tile = shares.unflatten(-1, (tiles, size)).sum(-1)
                generation = per_tile[..., first:]
                total[row, some, tile] = per_tile.mean(1)
                within[row, some, tile] = (generation / generation.sum(-1, keepdim=True).clamp_min(1e-30)).mean(1)
    return Mass(total, within)
