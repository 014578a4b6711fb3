"""Block-sparse attention as one Triton kernel: online softmax over each row tile's list of key tiles (CUDA; runs in Triton's interpreter on a CPU).

A tile is a span of the forward's positions, so q, k and v are read where they lie, whatever their strides; nothing is gathered or padded first. Tiles known to
be whole come first in a list and need no mask. Query heads that share a list and their keys are packed into one program, so each key is loaded once for
them. FlashAttention-2 (arXiv 2307.08691) is the scheme; which tiles are visited is the only difference.
"""

# pyright: reportMissingImports=false, reportIndexIssue=false
import math
from dataclasses import dataclass, replace
from functools import cache

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.kernels.tiles import Choice, Tiled


@dataclass(frozen=True)
class Tuning:
    """How the kernel is cut for the hardware; the result does not depend on it beyond rounding.

    rows: positions of one program's row tile piece, per head, at most the tile; columns: keys per product, at most the tile; heads: at most so many query
    heads that share a list in one program, a power of two; warps, stages: as Triton means them; descriptors: keys and values come by the tensor memory
    accelerator (Hopper and later) instead of pointers; ahead: the next keys' product is begun before this turn's weights are computed, so that the matrix units
    need not wait for the exponentials, at the price of registers.
    """

    rows: int
    columns: int
    heads: int
    warps: int
    stages: int
    descriptors: bool = False
    ahead: bool = False


def tuning(dim: int, size: int, sharing: int, hopper: bool = True) -> Tuning:
    """The default for heads of `dim` features, tiles of `size` positions and lists that serve `sharing` heads.

    On Hopper what was fastest there (benchmarks/gpu, part `tuning`: tiles of 64 and 128, heads of 128): one head a program, four warps, keys and values by the
    tensor memory accelerator. Elsewhere products have 128 rows where a tile, or the heads that share it, has as many: two groups of four warps with 64 rows
    each; for other tiles and heads on Hopper, whose matrix units run beside the others, the next product is then begun ahead.
    """
    if hopper and size >= 64 and dim <= 128:
        return Tuning(min(size, 128), 64, 1, 4, 2 if size >= 128 else 3, descriptors=True)
    rows = min(size, 128)
    heads = max(1, min(128 // rows, 1 << (sharing - 1).bit_length()))
    wide = rows * heads >= 128
    return Tuning(rows, min(size, 64), heads, 8 if wide else 4, 3 if wide and dim <= 128 else 2, ahead=hopper)


@triton.jit
def attend_tiles(
    q_start,
    k_start,
    v_start,
    k_described,
    v_described,
    out_start,
    q_strides,
    k_strides,
    v_strides,
    out_strides,
    k_places,
    v_places,
    row_starts,
    key_starts,
    valid_start,
    index_start,
    count_start,
    whole_start,
    lse_start,
    scale,
    most,
    row_tiles,
    key_count,
    row_count,
    LISTS: tl.constexpr,
    SHARING: tl.constexpr,
    GROUPS: tl.constexpr,
    DIM: tl.constexpr,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PACK: tl.constexpr,
    PADDED: tl.constexpr,
    DESCRIBED: tl.constexpr,
    AHEAD: tl.constexpr,
    SUMMED: tl.constexpr,
):
    """One program: ROWS rows of one tile, of PACK heads that share a list. `scale` includes log2(e), since powers of two are what the hardware computes.

    Strides are (batch, head, position); k_places, v_places: (batch, head, column of a head) in the described matrices.
    """
    piece = tl.program_id(0)
    tile = piece // (SIZE // ROWS)
    packs: tl.constexpr = (SHARING + PACK - 1) // PACK
    which = tl.program_id(1) // packs
    batch = (which // LISTS).to(tl.int64)
    beside = tl.arange(0, PACK * ROWS) // ROWS + (tl.program_id(1) % packs) * PACK
    head = (which % LISTS) * SHARING + beside
    source = ((which % LISTS) * SHARING // GROUPS).to(tl.int64)
    rows = tl.load(row_starts + tile) + (piece % (SIZE // ROWS)) * ROWS + tl.arange(0, PACK * ROWS) % ROWS
    here = (rows < tl.load(row_starts + tile + 1)) & (beside < SHARING)
    dims = tl.arange(0, DIM)
    columns = tl.arange(0, COLUMNS)
    parts: tl.constexpr = SIZE // COLUMNS

    lies = q_start + batch * q_strides[0] + head[:, None].to(tl.int64) * q_strides[1] + rows[:, None].to(tl.int64) * q_strides[2] + dims[None, :]
    q = tl.load(lies, mask=here[:, None], other=0.0)
    k_base = k_start + batch * k_strides[0] + source * k_strides[1]
    v_base = v_start + batch * v_strides[0] + source * v_strides[1]
    k_row = (batch * k_places[0] + source * k_places[1]).to(tl.int32)
    k_column = (source * k_places[2]).to(tl.int32)
    v_row = (batch * v_places[0] + source * v_places[1]).to(tl.int32)
    v_column = (source * v_places[2]).to(tl.int32)
    highest = tl.full([PACK * ROWS], -float("inf"), tl.float32)
    sums = tl.zeros([PACK * ROWS], tl.float32)
    mixed = tl.zeros([PACK * ROWS, DIM], tl.float32)
    stream = which.to(tl.int64) * row_tiles + tile
    listed = tl.load(count_start + stream)
    whole = tl.load(whole_start + stream)
    listing = index_start + stream * most

    turns = whole * parts
    scores = tl.zeros([PACK * ROWS, COLUMNS], tl.float32)
    if AHEAD:
        begin = tl.load(key_starts + tl.load(listing))
        at = begin + columns
        real = at < (begin + COLUMNS) * tl.minimum(turns, 1)
        k = tl.load(k_base + at[None, :].to(tl.int64) * k_strides[2] + dims[:, None], mask=real[None, :], other=0.0)
        scores = tl.dot(q, k, input_precision="ieee")
    for nth in range(0, turns):
        place = tl.load(key_starts + tl.load(listing + nth // parts)) + (nth % parts) * COLUMNS
        if AHEAD:
            after = tl.minimum(nth + 1, turns - 1)
            k_place = tl.load(key_starts + tl.load(listing + after // parts)) + (after % parts) * COLUMNS
        else:
            k_place = place
        if DESCRIBED:
            k = tl.trans(k_described.load([k_row + k_place, k_column]))
        else:
            k = tl.load(k_base + (k_place + columns)[None, :].to(tl.int64) * k_strides[2] + dims[:, None])
        found = tl.dot(q, k, input_precision="ieee")
        if not AHEAD:
            scores = found
        peak = tl.maximum(highest, tl.max(scores, 1) * scale)
        weights = tl.exp2(scores * scale - peak[:, None])
        fade = tl.exp2(highest - peak)
        sums = sums * fade + tl.sum(weights, 1)
        mixed = mixed * fade[:, None]
        if DESCRIBED:
            v = v_described.load([v_row + place, v_column])
        else:
            v = tl.load(v_base + (place + columns)[:, None].to(tl.int64) * v_strides[2] + dims[None, :])
        mixed = tl.dot(weights.to(v.dtype), v, mixed, input_precision="ieee")
        highest = peak
        scores = found

    for nth in range(turns, listed * parts):
        key_tile = tl.load(listing + nth // parts)
        at = tl.load(key_starts + key_tile) + (nth % parts) * COLUMNS + columns
        real = at < tl.load(key_starts + key_tile + 1)
        if PADDED:
            real = real & (tl.load(valid_start + batch * key_count + at, mask=real, other=0) != 0)
        k = tl.load(k_base + at[None, :].to(tl.int64) * k_strides[2] + dims[:, None], mask=real[None, :], other=0.0)
        scores = tl.where(real[None, :], tl.dot(q, k, input_precision="ieee") * scale, -float("inf"))
        peak = tl.maximum(highest, tl.max(scores, 1))
        base = tl.where(peak == -float("inf"), 0.0, peak)
        weights = tl.exp2(scores - base[:, None])
        fade = tl.exp2(highest - base)
        sums = sums * fade + tl.sum(weights, 1)
        v = tl.load(v_base + at[:, None].to(tl.int64) * v_strides[2] + dims[None, :], mask=real[:, None], other=0.0)
        mixed = tl.dot(weights.to(v.dtype), v, mixed * fade[:, None], input_precision="ieee")
        highest = peak

    if SUMMED:
        lse = tl.where(sums == 0, -float("inf"), (highest + tl.log2(tl.where(sums == 0, 1.0, sums))) * 0.6931471805599453)
        tl.store(lse_start + (batch * (LISTS * SHARING) + head) * row_count + rows, lse, mask=here)
    mixed = mixed / tl.where(sums == 0, 1.0, sums)[:, None]
    to = out_start + batch * out_strides[0] + head[:, None].to(tl.int64) * out_strides[1] + rows[:, None].to(tl.int64) * out_strides[2] + dims[None, :]
    tl.store(to, mixed.to(q.dtype), mask=here[:, None])


@cache
def fallen_back() -> dict[tuple, Tuning]:
    """Tunings that needed more shared memory than a device has, and what took their place."""
    return {}


def described(x: Float[Tensor, "b h n d"], columns: int):
    """x as a matrix for the tensor memory accelerator, with the places of a batch row, a head and a head's first column; None if its layout forbids it."""
    try:
        from triton.tools.tensor_descriptor import TensorDescriptor
    except ImportError:
        return None
    b, heads, n, dim = x.shape
    batch, head, row, _ = x.stride()
    if x.data_ptr() % 16 or row * x.element_size() % 16 or batch % row or not (head % row == 0 or head < row):
        return None
    across = head < row and heads > 1
    places = (batch // row if b > 1 else 0, 0 if across or heads == 1 else head // row, head if across else 0)
    shape = [(b - 1) * places[0] + (heads - 1) * places[1] + n, (heads - 1) * places[2] + dim]
    return TensorDescriptor(x, shape, [row, 1], [columns, dim]), places


def fused(
    q: Float[Tensor, "b h rows d"],
    k: Float[Tensor, "b kv cols d"],
    v: Float[Tensor, "b kv cols d"],
    rows: Tiled,
    keys: Tiled,
    choice: Choice,
    size: int,
    valid: Bool[Tensor, "b cols"] | None,
    tuned: Tuning | None = None,
    lse: Float[Tensor, "b h rows"] | None = None,
) -> Float[Tensor, "b h rows d"]:
    """head_dim a power of two of at least 16, tiles of at least 16 positions. The result lies as (b, rows, h, d), ready for the output projection."""
    b, heads, count, dim = q.shape
    if dim & (dim - 1) or dim < 16 or size < 16:
        raise ValueError(f"impl='triton' needs a head_dim that is a power of two of at least 16 and block_size of at least 16, not {dim} and {size}")
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    groups, lists = heads // k.shape[1], choice.index.shape[1]
    if lists < heads and groups % (heads // lists):
        choice, lists = choice.each(heads), heads
    sharing = heads // lists
    out = q.new_empty(b, count, heads, dim).transpose(1, 2)
    hopper = q.device.type == "cuda" and torch.cuda.get_device_capability(q.device) >= (9, 0)
    wanted = tuned or tuning(dim, size, sharing, hopper)
    tuned = fallen_back().get((q.device, q.dtype, dim, size, wanted), wanted)
    while True:
        views = [described(x, tuned.columns) or (x, None) if tuned.descriptors else (x, None) for x in (k, v)]
        if any(places is None for _, places in views):
            views = [(k, (0, 0, 0)), (v, (0, 0, 0))]
            tuned = replace(tuned, descriptors=False)
        pieces, packs = len(rows.tiles) * (size // tuned.rows), -(-sharing // tuned.heads)
        try:
            with torch.cuda.device_of(q):
                attend_tiles[(pieces, b * lists * packs)](
                    q,
                    k,
                    v,
                    views[0][0],
                    views[1][0],
                    out,
                    q.stride()[:3],
                    k.stride()[:3],
                    v.stride()[:3],
                    out.stride()[:3],
                    views[0][1],
                    views[1][1],
                    rows.starts,
                    keys.starts,
                    q if valid is None else valid.contiguous().view(torch.uint8),
                    choice.index,
                    choice.count,
                    choice.whole,
                    q if lse is None else lse,
                    dim**-0.5 * math.log2(math.e),
                    choice.index.shape[-1],
                    len(rows.tiles),
                    k.shape[2],
                    count,
                    LISTS=lists,
                    SHARING=sharing,
                    GROUPS=groups,
                    DIM=dim,
                    SIZE=size,
                    ROWS=tuned.rows,
                    COLUMNS=tuned.columns,
                    PACK=tuned.heads,
                    PADDED=valid is not None,
                    DESCRIBED=tuned.descriptors,
                    AHEAD=tuned.ahead,
                    SUMMED=lse is not None,
                    num_warps=tuned.warps,
                    num_stages=tuned.stages,
                )
            return out
        except triton.runtime.errors.OutOfResources:
            if tuned.stages == 1 and tuned.columns <= 16:
                raise
            smaller = replace(tuned, stages=tuned.stages - 1) if tuned.stages > 1 else replace(tuned, columns=tuned.columns // 2, stages=2)
            fallen_back()[(q.device, q.dtype, dim, size, wanted)] = tuned = smaller
