"""Block-sparse attention on a CPU by the kernel in C++ (`kernels/native`): the chosen tiles are read where they are packed, nothing is gathered per list."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.kernels.native import call, plain
from mezzotint.kernels.tiles import Choice, Tiled


def native(
    q: Float[Tensor, "b h rows d"],
    k: Float[Tensor, "b kv cols d"],
    v: Float[Tensor, "b kv cols d"],
    rows: Tiled,
    keys: Tiled,
    choice: Choice | None,
    size: int,
    valid: Bool[Tensor, "b cols"] | None,
    lse: Float[Tensor, "b h rows"] | None = None,
) -> Float[Tensor, "b h rows d"]:
    """choice: None for all tiles. Computes in fp32 whatever the dtype. The result lies as (b, rows, h, d), ready for the output projection."""
    b, heads, count, dim = q.shape
    out = q.new_empty(b, count, heads, dim, dtype=torch.float32).transpose(1, 2)
    sums = {} if lse is None else {"lse": lse}
    call("mezzotint_attend", plain(q), plain(k), plain(v), rows, keys, size, dim**-0.5, valid, choice, 0, out=out, **sums)
    return out.to(q.dtype)
