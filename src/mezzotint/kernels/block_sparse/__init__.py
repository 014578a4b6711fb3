"""Attention over chosen tiles: one meaning, four implementations. `reference` is the oracle, the others are fast."""

from mezzotint.kernels.block_sparse.operator import IMPLEMENTATIONS, available, block_sparse, warn_once

__all__ = ["IMPLEMENTATIONS", "available", "block_sparse", "warn_once"]
