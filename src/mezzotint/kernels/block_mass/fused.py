"""Attention mass per pair of tiles as one Triton kernel that computes every score once.

A row's share for a tile of keys is the softmax, over tiles, of the tiles' log-sums of exponentials. So one pass over the keys leaves one number per row and
tile in scratch memory and the row's normaliser in registers; a second pass over those numbers, a tile's width fewer, normalises and averages them.
"""

# pyright: reportMissingImports=false, reportIndexIssue=false
import math

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.kernels.tiles import Tiled

SCRATCH = 2**28
"""Bytes of scratch memory at most, unless one head needs more: heads are taken a few at a time."""
TOGETHER = 32
"""Tiles that the second pass reads at once."""


@triton.jit
def weigh_tiles(
    q_start,
    k_start,
    q_strides,
    k_strides,
    row_starts,
    key_starts,
    valid_start,
    logs_start,
    total_start,
    within_start,
    scale,
    first,
    key_tiles,
    key_count,
    head_offset,
    TAKEN: tl.constexpr,
    GROUPS: tl.constexpr,
    DIM: tl.constexpr,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PADDED: tl.constexpr,
    TOGETHER: tl.constexpr,
):
    """One program: ROWS rows of one tile of one head. `scale` includes log2(e); outputs are (b, heads taken, row pieces, key pieces)."""
    piece = tl.program_id(0)
    batch = (tl.program_id(1) // TAKEN).to(tl.int64)
    head = (tl.program_id(1) % TAKEN + head_offset).to(tl.int64)
    parts: tl.constexpr = SIZE // COLUMNS
    tile = piece // (SIZE // ROWS)
    begin, end = tl.load(row_starts + tile), tl.load(row_starts + tile + 1)
    rows = begin + (piece % (SIZE // ROWS)) * ROWS + tl.arange(0, ROWS)
    here = rows < end
    dims = tl.arange(0, DIM)
    at = q_start + batch * q_strides[0] + head * q_strides[1] + rows[:, None].to(tl.int64) * q_strides[2] + dims[None, :]
    q = tl.load(at, mask=here[:, None], other=0.0)
    k_base = k_start + batch * k_strides[0] + (head // GROUPS) * k_strides[1]
    valid_row = valid_start + batch * key_count
    program = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + piece
    logs = logs_start + program * key_tiles * parts * ROWS

    columns = tl.arange(0, COLUMNS)
    turns = tl.arange(0, ROWS)
    peak = tl.full([ROWS], -float("inf"), tl.float32)
    sums = tl.zeros([ROWS], tl.float32)
    ahead, ahead_sum = peak, sums
    for part in tl.static_range(2):  # the tiles before `first`, then the others
        if part == 1:
            ahead, ahead_sum = peak, sums
            peak = tl.full([ROWS], -float("inf"), tl.float32)
            sums = tl.zeros([ROWS], tl.float32)
        start, stop = part * first * parts, (first if part == 0 else key_tiles) * parts
        begins = key_starts + tl.minimum(start // parts, key_tiles - 1)
        at = tl.load(begins) + (start % parts) * COLUMNS + columns
        seen = at < tl.load(begins + 1) * tl.minimum(stop - start, 1)
        if PADDED:
            seen = seen & (tl.load(valid_row + at, mask=seen, other=0) != 0)
        k = tl.load(k_base + at[None, :].to(tl.int64) * k_strides[2] + dims[:, None], mask=seen[None, :], other=0.0)
        found = tl.dot(q, k, input_precision="ieee")
        for nth in range(start, stop):  # the next keys' product runs while this turn's exponentials are computed
            scores = found * scale + tl.where(seen, 0.0, -float("inf"))[None, :]
            after = tl.minimum(nth + 1, stop - 1)
            at = tl.load(key_starts + after // parts) + (after % parts) * COLUMNS + columns
            seen = at < tl.load(key_starts + after // parts + 1)
            if PADDED:
                seen = seen & (tl.load(valid_row + at, mask=seen, other=0) != 0)
            k = tl.load(k_base + at[None, :].to(tl.int64) * k_strides[2] + dims[:, None], mask=seen[None, :], other=0.0)
            found = tl.dot(q, k, input_precision="ieee")
            top = tl.max(scores, 1)
            base = tl.where(top == -float("inf"), 0.0, top)
            mine = tl.sum(tl.exp2(scores - base[:, None]), 1)
            tl.store(logs + nth * ROWS + turns, base + tl.log2(mine))
            higher = tl.maximum(peak, top)
            level = tl.where(higher == -float("inf"), 0.0, higher)
            sums = sums * tl.exp2(peak - level) + mine * tl.exp2(base - level)
            peak = higher

    highest = tl.maximum(ahead, peak)
    base = tl.where(highest == -float("inf"), 0.0, highest)
    level = base + tl.log2(tl.maximum(ahead_sum * tl.exp2(ahead - base) + sums * tl.exp2(peak - base), 1e-30))
    inner = tl.where(peak == -float("inf"), 0.0, peak) + tl.log2(tl.maximum(sums, 1e-30))
    filled = (end - begin).to(tl.float32)
    tl.debug_barrier()
    totals = total_start + program * key_tiles * parts
    withins = within_start + program * (key_tiles - first) * parts
    for chunk in range(0, key_tiles * parts, TOGETHER):
        these = chunk + tl.arange(0, TOGETHER)
        some, later = these < key_tiles * parts, these >= first * parts
        stored = tl.load(logs + these[:, None] * ROWS + turns[None, :], mask=some[:, None], other=-float("inf"))
        share = tl.where(here[None, :], tl.exp2(stored - level[None, :]), 0.0)
        tl.store(totals + these, tl.sum(share, 1) / filled, mask=some)
        share = tl.where(here[None, :] & later[:, None], tl.exp2(stored - inner[None, :]), 0.0)
        tl.store(withins + these - first * parts, tl.sum(share, 1) / filled, mask=some & later)


def fused(
    q: Float[Tensor, "b h rows d"],
    k: Float[Tensor, "b kv cols d"],
    rows: Tiled,
    keys: Tiled,
    size: int,
    first: int,
    valid: Bool[Tensor, "b cols"] | None,
    factor: float,
) -> tuple[Float[Tensor, "b h tiles keys"], Float[Tensor, "b h tiles some"]]:
    """The two parts of `Mass`; factor multiplies the scores. Beside the result it needs `SCRATCH` bytes, or rows · keys / size · 4 for one head."""
    b, heads, _, dim = q.shape
    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k))
    piece, parts = min(size, 128), size // min(size, 128)
    tiles, row_pieces = len(keys.tiles), len(rows.tiles) * parts
    each = row_pieces * tiles * parts * piece
    taken = max(1, min(heads, SCRATCH // (4 * each * b)))
    taken = next(n for n in range(taken, 0, -1) if heads % n == 0)
    logs = q.new_empty(b * taken * each, dtype=torch.float32)
    totals, withins = [], []
    for offset in range(0, heads, taken):
        total = q.new_empty(b, taken, row_pieces, tiles * parts, dtype=torch.float32)
        within = q.new_empty(b, taken, row_pieces, (tiles - first) * parts, dtype=torch.float32)
        with torch.cuda.device_of(q):
            weigh_tiles[(row_pieces, b * taken)](
                q,
                k,
                q.stride()[:3],
                k.stride()[:3],
                rows.starts,
                keys.starts,
                q if valid is None else valid.contiguous().view(torch.uint8),
                logs,
                total,
                within,
                factor * math.log2(math.e),
                first,
                tiles,
                k.shape[2],
                offset,
                TAKEN=taken,
                GROUPS=heads // k.shape[1],
                DIM=dim,
                SIZE=size,
                ROWS=piece,
                COLUMNS=piece,
                PADDED=valid is not None,
                TOGETHER=TOGETHER,
                num_warps=8 if piece >= 128 else 4,
                num_stages=3 if dim <= 128 else 2,
            )
        totals.append(total)
        withins.append(within)
    whole = (torch.cat(part, 1).unflatten(3, (-1, parts)).sum(4).unflatten(2, (-1, parts)).sum(3) for part in (totals, withins))
    total, within = whole
    return total, within
