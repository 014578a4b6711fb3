"""Attention mass that every key receives, exact, without an N × N matrix: the sinks of arXiv 2510.15731 are its peaks."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

CHUNK = 2**22
"""Scores held at once."""


def column_mass(
    q: Float[Tensor, "b h rows d"], k: Float[Tensor, "b kv cols d"], *, rows: Bool[Tensor, "b rows"] | None = None, keys: Bool[Tensor, "b cols"] | None = None
) -> Float[Tensor, "b h cols"]:
    """Sum over the rows of the attention each key gets, per head, fp32; a head's masses sum to its number of rows.

    q, k: after RoPE, scale 1/√d; rows, keys: False on padding, which neither pays nor gets attention. Memory O(b · h · cols) and `CHUNK` scores.
    """
    b, heads, count, dim = q.shape
    facing = k.repeat_interleave(heads // k.shape[1], dim=1).transpose(-1, -2).float()
    hidden = None if keys is None else ~keys[:, None, None, :]
    total = q.new_zeros(b, heads, k.shape[2], dtype=torch.float32)
    together = max(1, CHUNK // (b * heads * k.shape[2]))
    for start in range(0, count, together):
        scores = torch.matmul(q[:, :, start : start + together].float(), facing) / dim**0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        shares = torch.softmax(scores, -1)
        if rows is not None:
            shares = shares * rows[:, None, start : start + together, None]
        total += shares.sum(-2)
    return total
