"""Block-sparse attention by FlexAttention: the chosen tiles are its block lists, holes its only element-wise mask.

Always compiled: called eagerly, FlexAttention ignores block lists and silently attends to everything. Numbers of tiles are rounded up to a few sizes,
so that a growing canvas does not compile anew for every length.
"""

from functools import cache
from typing import no_type_check

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from mezzotint.kernels.tiles import Choice, Tiled


def bucket(count: int) -> int:
    """The next of 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ...: at most a quarter more."""
    step = max(1, 1 << (count - 1).bit_length() >> 3) if count > 1 else 1
    return -(-count // step) * step


@cache
def compiled(options: tuple[tuple[str, int | bool | str], ...], summed: bool):
    @no_type_check  # the compiler cannot trace through run-time shape checks
    def attend(q, k, v, some_count, some_index, full_count, full_index, real, size):
        @no_type_check
        def hole(b, h, row, column):
            return real[b, column]

        mask = BlockMask.from_kv_blocks(
            some_count,
            some_index,
            full_count,
            full_index,
            BLOCK_SIZE=size,
            mask_mod=hole,
            seq_lengths=(q.shape[2], k.shape[2]),
            compute_q_blocks=False,
        )
        wanted = AuxRequest(lse=True) if summed else None
        return flex_attention(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1], kernel_options=dict(options) or None, return_aux=wanted)

    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 256)
    return torch.compile(attend, dynamic=False)


def flex(
    q: Float[Tensor, "b h rows d"],
    k: Float[Tensor, "b kv cols d"],
    v: Float[Tensor, "b kv cols d"],
    rows: Tiled,
    keys: Tiled,
    choice: Choice,
    size: int,
    valid: Bool[Tensor, "b cols"] | None,
    options: dict[str, int | bool | str] | None = None,
    lse: Float[Tensor, "b h rows"] | None = None,
) -> Float[Tensor, "b h rows d"]:
    """options: FlexAttention's kernel options (BLOCK_M, BLOCK_N, num_warps, num_stages, USE_TMA, BACKEND, ...); None leaves the choice to PyTorch."""
    b, _, count, _ = q.shape
    row_tiles, key_tiles = bucket(len(rows.tiles)), bucket(len(keys.tiles))
    real = keys.real(b, valid)
    choice = choice.each(q.shape[1])
    most = choice.index.shape[-1]
    behind = (choice.whole[..., None] + torch.arange(most, device=q.device)).clamp_max(most - 1)
    some, full = (choice.count - choice.whole, choice.index.gather(-1, behind)), (choice.whole, choice.index)
    real = torch.nn.functional.pad(real, (0, key_tiles * size - real.shape[1]))
    q, k, v = (
        torch.nn.functional.pad(t.spread(x), (0, 0, 0, tiles * size - len(t.index)))
        for x, t, tiles in ((q, rows, row_tiles), (k, keys, key_tiles), (v, keys, key_tiles))
    )
    more = row_tiles - len(rows.tiles)
    counts = [torch.nn.functional.pad(count, (0, more)) for count, _ in (some, full)]
    lists = [torch.nn.functional.pad(index, (0, key_tiles - most, 0, more)) for _, index in (some, full)]
    found = compiled(tuple((options or {}).items()), lse is not None)(q, k, v, counts[0], lists[0], counts[1], lists[1], real, size)
    if lse is None:
        return rows.collect(found, count)
    out, sums = found
    lse.copy_(rows.collect(sums.lse[..., None], count)[..., 0])
    return rows.collect(out, count)
