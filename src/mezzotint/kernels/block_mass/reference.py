"""Attention mass per pair of tiles as one reads it: one tile of rows against all keys at a time, a softmax, sums over tiles."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.kernels.tiles import Tiled

CHUNK = 2**21
"""Scores held at once: small enough for a CPU's cache, enough to fill a GPU only with several heads."""


def reference(
    q: Float[Tensor, "b h rows d"],
    k: Float[Tensor, "b kv cols d"],
    rows: Tiled,
    keys: Tiled,
    size: int,
    first: int,
    valid: Bool[Tensor, "b cols"] | None,
    factor: float,
) -> tuple[Float[Tensor, "b h tiles keys"], Float[Tensor, "b h tiles some"]]:
    """The two parts of `Mass`; factor multiplies the scores."""
    b, heads = q.shape[:2]
    groups = heads // k.shape[1]
    hidden = [(~row).nonzero()[:, 0] for row in keys.real(b, valid)]
    tiles, columns = len(keys.tiles), len(keys.index)
    padded, transposed = rows.spread(q), keys.spread(k).transpose(-1, -2)
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
                mine = padded[row, some, tile * size : (tile + 1) * size][:, there[tile]].float() * factor
                found = torch.bmm(mine, facing, out=scores[: len(some), : mine.shape[1]])
                found.index_fill_(-1, hidden[row], -torch.inf)
                shares = torch.softmax(found, -1, out=probability[: len(some), : mine.shape[1]])
                per_tile = shares.unflatten(-1, (tiles, size)).sum(-1)
                generation = per_tile[..., first:]
                total[row, some, tile] = per_tile.mean(1)
                within[row, some, tile] = (generation / generation.sum(-1, keepdim=True).clamp_min(1e-30)).mean(1)
    return total, within
