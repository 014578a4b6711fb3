"""Block-sparse attention as one reads it: for every tile of rows gather the chosen tiles of keys and attend to them."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.kernels.tiles import Choice, Tiled


def reference(
    q: Float[Tensor, "b h rows d"],
    k: Float[Tensor, "b kv cols d"],
    v: Float[Tensor, "b kv cols d"],
    rows: Tiled,
    keys: Tiled,
    choice: Choice,
    size: int,
    valid: Bool[Tensor, "b cols"] | None,
    lse: Float[Tensor, "b h rows"] | None = None,
) -> Float[Tensor, "b h rows d"]:
    """Also the way on a CPU without a compiler, where gathering costs little beside the products: what is not chosen is not even read."""
    b, heads, count, dim = q.shape
    kv, choice = k.shape[1], choice.each(heads)
    real = keys.real(b, valid).reshape(b, -1, size)
    whole = bool(real.all())
    tiles = len(keys.tiles)
    k, v = (keys.spread(x).reshape(b * kv * tiles, size * dim) for x in (k, v))
    padded, there = rows.spread(q), (rows.index >= 0).view(-1, size)
    full = there.all(1).tolist()
    out = torch.zeros_like(padded)
    sums = None if lse is None else out.new_zeros(*out.shape[:3], 1, dtype=torch.float32)
    stream = torch.arange(b, device=q.device)[:, None] * kv + torch.arange(heads, device=q.device) // (heads // kv)
    most, least = choice.count.amax((0, 1)).tolist(), choice.count.amin((0, 1)).tolist()
    gathered = k.new_empty(2, b * heads * max(most), size * dim)
    for tile in range(len(rows.tiles)):
        chosen = choice.index[:, :, tile, : most[tile]].long()
        where = (chosen + stream[..., None] * tiles).flatten()
        some_k, some_v = (torch.index_select(x, 0, where, out=room[: len(where)]).view(b, heads, -1, dim) for x, room in zip((k, v), gathered, strict=True))
        mask = None
        if not whole or least[tile] < most[tile]:
            listed = torch.arange(most[tile], device=q.device) < choice.count[:, :, tile, None]
            seen = real[torch.arange(b, device=q.device)[:, None, None], chosen] & listed[..., None]
            seen = seen.flatten(2)
            ends = int(seen[0, 0].sum())
            if bool((seen == (torch.arange(seen.shape[2], device=q.device) < ends)).all()):
                some_k, some_v = some_k[:, :, :ends], some_v[:, :, :ends]
            else:
                mask = seen[:, :, None]
        span = slice(tile * size, tile * size + size)
        some_q = padded[:, :, span] if full[tile] else padded[:, :, span][:, :, there[tile]]
        part = F.scaled_dot_product_attention(some_q, some_k, some_v, attn_mask=mask)
        part = part if mask is None else part.nan_to_num()
        if sums is not None:
            scores = (some_q @ some_k.transpose(2, 3)).float() * dim**-0.5
            scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
            sums[:, :, span][:, :, there[tile]] = scores.logsumexp(-1, keepdim=True)
        if full[tile]:
            out[:, :, span] = part
        else:
            out[:, :, span][:, :, there[tile]] = part
    if lse is not None and sums is not None:
        lse.copy_(rows.collect(sums, count)[..., 0])
    return rows.collect(out, count)
