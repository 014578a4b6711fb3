"""What block-sparse attention means, and which implementation computes it."""

import os
import shutil
import warnings
from functools import cache
from importlib.util import find_spec

import torch
from jaxtyping import Bool, Float
from torch import OutOfMemoryError, Tensor

from mezzotint.kernels.block_sparse.native import native
from mezzotint.kernels.block_sparse.reference import reference
from mezzotint.kernels.native import library
from mezzotint.kernels.tiles import Choice, Tiled

IMPLEMENTATIONS = ("reference", "native", "flex", "triton")


@cache
def available(impl: str, device_type: str) -> str:
    """Why an implementation cannot run on a device; "" if it can. Asking for "native" builds it."""
    if impl == "native":
        if device_type != "cpu":
            return "it is the CPU's kernel"
        found = library()
        return found if isinstance(found, str) else ""
    if impl == "flex":
        if device_type == "cpu" and not any(shutil.which(c) for c in ("c++", "g++", "clang++")):
            return "FlexAttention compiles C++ on a CPU, and no C++ compiler was found"
        return ""
    if impl == "triton":
        if find_spec("triton") is None:
            return "Triton is not installed"
        return "" if device_type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1" else "Triton needs a CUDA device"
    return ""


def block_sparse(
    q: Float[Tensor, "b h rows d"],
    k: Float[Tensor, "b kv cols d"],
    v: Float[Tensor, "b kv cols d"],
    rows: Tiled,
    keys: Tiled,
    choice: Choice | None,
    size: int,
    *,
    valid: Bool[Tensor, "b cols"] | None = None,
    impl: str = "reference",
    lse: Float[Tensor, "b h rows"] | None = None,
) -> Float[Tensor, "b h rows d"]:
    """softmax(q·kᵀ/√d) v, where a row sees the real keys of its tile's chosen key tiles.

    rows, keys: where the rows of q and the columns of k and v stand; choice: None for all tiles; valid: (b, cols) False on padding. A row with no real key
    gets zeros. lse: if given, filled with the rows' log-sum-exp of their scores, fp32, -inf for a row with no real key.
    Raises ValueError for an implementation that cannot run here, and for lists that do not divide among the heads.
    """
    reason = available(impl, q.device.type)
    if reason:
        others = ", ".join(other for other in IMPLEMENTATIONS if not available(other, q.device.type))
        raise ValueError(f"impl={impl!r} cannot run here: {reason}; accepted: {others}")
    if choice is not None and (q.shape[1] % choice.index.shape[1] or choice.index.shape[1] % k.shape[1]):
        raise ValueError(f"{choice.index.shape[1]} lists of tiles do not divide among {q.shape[1]} heads with {k.shape[1]} key heads")
    if impl == "native":
        return native(q, k, v, rows, keys, choice, size, valid, lse)
    if choice is None:
        choice = Choice.of(torch.ones(q.shape[0], k.shape[1], len(rows.tiles), len(keys.tiles), dtype=torch.bool, device=q.device))
    if impl == "reference" or (impl == "flex" and lse is not None and q.device.type == "cpu"):  # FlexAttention gives sums on a GPU only
        return reference(q, k, v, rows, keys, choice, size, valid, lse)
    if impl == "flex":
        from mezzotint.kernels.block_sparse.flex import flex

        try:
            return flex(q, k, v, rows, keys, choice, size, valid, lse=lse)
        except Exception as error:
            if type(error).__module__.split(".")[0] != "torch" or isinstance(error, OutOfMemoryError):
                raise
            warn_once(f"FlexAttention failed to compile ({type(error).__name__}); the slower reference computes block-sparse attention")
            return reference(q, k, v, rows, keys, choice, size, valid, lse)
    from mezzotint.kernels.block_sparse.fused import fused

    return fused(q, k, v, rows, keys, choice, size, valid, lse=lse)


@cache
def warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=3)
