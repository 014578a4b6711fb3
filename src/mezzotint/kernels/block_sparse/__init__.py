"""Attention over chosen tiles: one meaning, three implementations. `reference` is the oracle, `flex` and `triton` are fast."""

from mezzotint.kernels.block_sparse.operator import IMPLEMENTATIONS, available, block_sparse

__all__ = ["IMPLEMENTATIONS", "available", "block_sparse"]
