"""Block-sparse attention as one Triton kernel: online softmax over each row tile's list of key tiles (CUDA; runs in Triton's interpreter on a CPU)."""

# pyright: reportMissingImports=false, reportIndexIssue=false
import math

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.kernels.tiles import Choice, Tiled


@triton.jit
def attend_tiles(
    q_start,
    k_start,
    v_start,
    out_start,
    real_start,
    index_start,
    count_start,
    scale,
    row_slots,
    column_slots,
    most,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    DIM: tl.constexpr,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program: ROWS rows of one tile of one head. `scale` includes log2(e), since powers of two are what the hardware computes."""
    piece = tl.program_id(0)
    batch = tl.program_id(1) // HEADS
    head = tl.program_id(1) % HEADS
    tile = piece * ROWS // SIZE
    row_tiles = row_slots // SIZE
    stream = (batch * HEADS + head).to(tl.int64)
    source = (batch * (HEADS // GROUPS) + head // GROUPS).to(tl.int64)
    rows = piece * ROWS + tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    columns = tl.arange(0, COLUMNS)

    q = tl.load(q_start + stream * row_slots * DIM + rows[:, None] * DIM + dims[None, :])
    highest = tl.full([ROWS], -float("inf"), tl.float32)
    sums = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, DIM], tl.float32)
    listed = tl.load(count_start + stream * row_tiles + tile)
    listing = index_start + (stream * row_tiles + tile) * most
    for nth in range(0, listed * (SIZE // COLUMNS)):
        key_tile = tl.load(listing + nth // (SIZE // COLUMNS)).to(tl.int64)
        at = key_tile * SIZE + (nth % (SIZE // COLUMNS)) * COLUMNS + columns
        real = tl.load(real_start + batch * column_slots + at) != 0
        k = tl.load(k_start + source * column_slots * DIM + at[None, :] * DIM + dims[:, None])
        scores = tl.dot(q, k, input_precision="ieee") * scale
        scores = tl.where(real[None, :], scores, -float("inf"))
        peak = tl.maximum(highest, tl.max(scores, 1))
        base = tl.where(peak == -float("inf"), 0.0, peak)
        weights = tl.exp2(scores - base[:, None])
        fade = tl.exp2(highest - base)
        v = tl.load(v_start + source * column_slots * DIM + at[:, None] * DIM + dims[None, :])
        sums = sums * fade + tl.sum(weights, 1)
        mixed = mixed * fade[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        highest = peak
    mixed = mixed / tl.where(sums == 0, 1.0, sums)[:, None]
    tl.store(out_start + stream * row_slots * DIM + rows[:, None] * DIM + dims[None, :], mixed.to(q.dtype))


def fused(
    q: Float[Tensor, "b h rows d"],
    k: Float[Tensor, "b kv cols d"],
    v: Float[Tensor, "b kv cols d"],
    rows: Tiled,
    keys: Tiled,
    choice: Choice,
    size: int,
    valid: Bool[Tensor, "b cols"] | None,
) -> Float[Tensor, "b h rows d"]:
    """head_dim a power of two of at least 16, tiles of at least 16 positions."""
    b, heads, count, dim = q.shape
    if dim & (dim - 1) or dim < 16 or size < 16:
        raise ValueError(f"impl='triton' needs a head_dim that is a power of two of at least 16 and block_size of at least 16, not {dim} and {size}")
    real = keys.real(b, valid)
    q, k, v = rows.spread(q).contiguous(), keys.spread(k).contiguous(), keys.spread(v).contiguous()
    out = torch.empty_like(q)
    row_block = min(size, 128 if dim <= 64 else 64)
    attend_tiles[(q.shape[2] // row_block, b * heads)](
        q,
        k,
        v,
        out,
        real.to(torch.int8).contiguous(),
        choice.index.contiguous(),
        choice.count.contiguous(),
        dim**-0.5 * math.log2(math.e),
        q.shape[2],
        k.shape[2],
        choice.index.shape[-1],
        HEADS=heads,
        GROUPS=heads // k.shape[1],
        DIM=dim,
        SIZE=size,
        ROWS=row_block,
        COLUMNS=min(size, 64),
        num_warps=4 if dim <= 64 else 8,
        num_stages=2,
    )
    return rows.collect(out, count)
