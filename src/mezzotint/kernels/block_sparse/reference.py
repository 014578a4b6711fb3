"""Block-sparse attention as one reads it: for every tile of rows gather the chosen keys and attend to them."""

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
) -> Float[Tensor, "b h rows d"]:
    """Also the fast way for few rows: what is not chosen is not even read."""
    b, heads, count, _ = q.shape
    groups = heads // k.shape[1]
    place = keys.index.clamp_min(0)
    real = keys.index >= 0 if valid is None else valid[:, place] & (keys.index >= 0)
    real = real.expand(b, -1).view(b, 1, -1, size)
    k, v = (keys.spread(x).unflatten(2, (-1, size)) for x in (k, v))
    padded, there = rows.spread(q), (rows.index >= 0).view(-1, size)
    out = torch.zeros_like(padded)
    nth_batch = torch.arange(b, device=q.device)[:, None, None]
    nth_head = torch.arange(heads, device=q.device)[None, :, None]
    for tile in range(len(rows.tiles)):
        listed = choice.count[:, :, tile]
        chosen = choice.index[:, :, tile, : int(listed.max())].long()
        seen = real[nth_batch, 0, chosen] & (torch.arange(chosen.shape[-1], device=q.device) < listed[..., None])[..., None]
        some_k, some_v = (x[nth_batch, nth_head // groups, chosen].flatten(2, 3) for x in (k, v))
        mask = None if bool(seen.all()) else seen.flatten(2)[:, :, None]
        span = slice(tile * size, tile * size + size)
        part = F.scaled_dot_product_attention(padded[:, :, span][:, :, there[tile]], some_k, some_v, attn_mask=mask)
        out[:, :, span][:, :, there[tile]] = part.nan_to_num() if mask is not None else part
    return rows.collect(out, count)
