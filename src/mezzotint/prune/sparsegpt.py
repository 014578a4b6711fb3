"""SparseGPT (arXiv 2301.00774): prune column by column and let the columns still to come make up for the error."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

BLOCK = 128
"""Columns that are chosen together; all rows × these columns are one comparison group."""


class Singular(ArithmeticError):
    """The Hessian stays without a Cholesky factor at the largest damping."""


def inverse_factor(hessian: Float[Tensor, "c c"], damping: float) -> Float[Tensor, "c c"]:
    """The upper Cholesky factor of the damped inverse; the damping grows tenfold at each failure, up to 1."""
    mean = hessian.diagonal().mean()
    while damping <= 1:
        damped = hessian + damping * mean * torch.eye(len(hessian), device=hessian.device)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed and upper.isfinite().all():
                return upper
        damping *= 10
    raise Singular("not positive definite")


def solve(
    weight: Float[Tensor, "rows c"], hessian: Float[Tensor, "c c"], ratio: float, pattern: tuple[int, int] | None, damping: float = 0.01
) -> tuple[Float[Tensor, "rows c"], Bool[Tensor, "rows c"]]:
    """New weights in fp32 and what was pruned. hessian: 2/n Σ x xᵀ over the inputs. Raises Singular."""
    w = weight.float().clone()
    hessian = hessian.clone()
    dead = hessian.diagonal() == 0
    hessian[dead, dead] = 1
    w[:, dead] = 0
    factor = inverse_factor(hessian, damping)
    pruned = torch.zeros_like(w, dtype=torch.bool)
    columns = w.shape[1]
    if pattern is not None and (columns % pattern[1] or BLOCK % pattern[1]):
        raise ValueError(f"pattern={pattern[0]}:{pattern[1]}: {columns} columns and blocks of {BLOCK} must be multiples of {pattern[1]}")
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        block, errors = w[:, start:end].clone(), torch.zeros_like(w[:, start:end])
        near = factor[start:end, start:end]
        chosen = torch.zeros_like(block, dtype=torch.bool)
        if pattern is None:
            saliency = block**2 / near.diagonal() ** 2
            chosen = saliency <= saliency.flatten().sort().values[int(saliency.numel() * ratio)]
        for j in range(end - start):
            if pattern is not None and j % pattern[1] == 0:
                group = slice(j, j + pattern[1])
                saliency = block[:, group] ** 2 / near.diagonal()[group] ** 2
                chosen.scatter_(1, j + saliency.topk(pattern[0], dim=1, largest=False).indices, True)
            kept = block[:, j].masked_fill(chosen[:, j], 0)
            error = (block[:, j] - kept) / near[j, j]
            block[:, j:] -= error[:, None] * near[j, j:]
            block[:, j] = kept
            errors[:, j] = error
        w[:, start:end] = block
        w[:, end:] -= errors @ factor[start:end, end:]
        pruned[:, start:end] = chosen
    return w, pruned
