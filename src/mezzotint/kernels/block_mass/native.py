"""Attention mass per pair of tiles on a CPU by the kernel in C++ (`kernels/native`), which computes every score once."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.kernels.native import call, plain
from mezzotint.kernels.tiles import Tiled


def native(
    q: Float[Tensor, "b h rows d"],
    k: Float[Tensor, "b kv cols d"],
    rows: Tiled,
    keys: Tiled,
    size: int,
    first: int,
    valid: Bool[Tensor, "b cols"] | None,
    factor: float,
) -> tuple[Float[Tensor, "b h tiles keys"], Float[Tensor, "b h tiles some"]]:
    """The two parts of `Mass`; factor multiplies the scores. Beside the result every thread needs 8 bytes per row of a tile and tile of keys."""
    shape = (*q.shape[:2], len(rows.tiles))
    total = q.new_empty(*shape, len(keys.tiles), dtype=torch.float32)
    within = q.new_empty(*shape, len(keys.tiles) - first, dtype=torch.float32)
    call("mezzotint_weigh", plain(q), plain(k), None, rows, keys, size, factor, valid, first=first, total=total, within=within)
    return total, within
