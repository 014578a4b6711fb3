"""From importance to what is pruned: True = pruned."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def parse_pattern(text: str) -> tuple[int, int] | None:
    """`none`, or `N:M`: N of every M consecutive weights of a row are pruned."""
    if text == "none":
        return None
    parts = text.split(":")
    if len(parts) == 2 and all(part.isdigit() for part in parts) and 0 < int(parts[0]) < int(parts[1]) <= 64:
        return int(parts[0]), int(parts[1])
    raise ValueError(f"pattern={text!r} is not accepted; give none, 2:4, 4:8 or another N:M with 0 < N < M <= 64")


def per_row(score: Float[Tensor, "rows cols"], ratio: float) -> Bool[Tensor, "rows cols"]:
    """The floor(cols · ratio) least important of each row."""
    chosen = score.sort(dim=-1, stable=True).indices[:, : int(score.shape[1] * ratio)]
    return torch.zeros_like(score, dtype=torch.bool).scatter_(1, chosen, True)


def of_matrix(score: Float[Tensor, "rows cols"], ratio: float) -> Bool[Tensor, "rows cols"]:
    """Everything up to the value at the ratio in the whole matrix, ties included, so a weight more than asked for."""
    return score <= score.flatten().sort().values[int(score.numel() * ratio)]


def grouped(score: Float[Tensor, "rows cols"], n: int, m: int) -> Bool[Tensor, "rows cols"]:
    """The n least important of every m consecutive ones of a row. Raises ValueError if the rows do not divide into such groups."""
    if score.shape[1] % m:
        raise ValueError(f"pattern={n}:{m}: a matrix has {score.shape[1]} columns, which are not a multiple of {m}")
    parts = score.unflatten(1, (-1, m))
    return torch.zeros_like(parts, dtype=torch.bool).scatter_(2, parts.topk(n, dim=2, largest=False).indices, True).flatten(1)


def adaptive(score: Float[Tensor, "rows cols"], ratio: float) -> Bool[Tensor, "rows cols"]:
    """Each row loses the weights that hold the same share of its importance; the share is bisected until the matrix has the ratio (Wanda's variant)."""
    ordered = score.sort(dim=-1, stable=True).values
    running = ordered.cumsum(-1)
    low, share, high = 0.0, 0.4, 0.8
    while True:
        count = (running <= running[:, -1:] * share).sum(1, keepdim=True)
        mask = (score <= ordered.gather(1, (count - 1).clamp_min(0))) & (count > 0)
        found = float(mask.double().mean())
        if abs(found - ratio) <= 1e-3 or high - low < 1e-3:
            return mask
        if found > ratio:
            share, high = (share + low) / 2, share
        else:
            share, low = (share + high) / 2, share
