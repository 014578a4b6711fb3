"""What the attention mass of pairs of tiles means. SparseD (arXiv 2509.24014, section 4) calls it the importance of a block."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from mezzotint.kernels.block_mass.native import native
from mezzotint.kernels.block_mass.reference import reference
from mezzotint.kernels.block_sparse.operator import available
from mezzotint.kernels.tiles import Tiled

IMPLEMENTATIONS = ("reference", "native", "triton")


@dataclass(frozen=True)
class Mass:
    """Mean over a tile's real rows of the attention they pay to each tile of keys, fp32; every row sums to 1.

    total: (b, heads, row_tiles, key_tiles); within: (b, heads, row_tiles, key_tiles - first), the softmax taken over the keys from tile `first` on.
    """

    total: Float[Tensor, "b h rows keys"]
    within: Float[Tensor, "b h rows some"]


def block_mass(
    q: Float[Tensor, "b h rows d"],
    k: Float[Tensor, "b kv cols d"],
    rows: Tiled,
    keys: Tiled,
    size: int,
    first: int,
    *,
    valid: Bool[Tensor, "b cols"] | None = None,
    scale: float | None = None,
    impl: str = "auto",
) -> Mass:
    """q, k: after RoPE; first: the place of the first generation tile among `keys`; valid: False on padding; scale: of the scores, default 1/√d.

    impl: "triton" needs a power of two of at least 16 as head_dim and tiles of at least 16; "auto" takes it on CUDA where it can, and "native" on a CPU.
    """
    dim, kind = q.shape[-1], q.device.type
    factor = dim**-0.5 if scale is None else scale
    if impl == "auto":
        fast = "native" if kind == "cpu" else "triton"
        impl = "reference" if refused(fast, kind, dim, size) else fast
    if reason := refused(impl, kind, dim, size):
        raise ValueError(f"impl={impl!r} cannot run here: {reason}; accepted: auto, {', '.join(IMPLEMENTATIONS)}")
    if impl == "reference":
        return Mass(*reference(q, k, rows, keys, size, first, valid, factor))
    if impl == "native":
        return Mass(*native(q, k, rows, keys, size, first, valid, factor))
    from mezzotint.kernels.block_mass.fused import fused

    return Mass(*fused(q, k, rows, keys, size, first, valid, factor))


def refused(impl: str, kind: str, dim: int, size: int) -> str:
    """Why an implementation cannot do this; "" if it can."""
    if impl not in IMPLEMENTATIONS:
        return "it is unknown"
    if impl == "triton" and (dim < 16 or dim & (dim - 1) or size < 16):
        return f"head_dim {dim} and tiles of {size} must be powers of two of at least 16"
    return available(impl, kind)
