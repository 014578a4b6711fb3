"""Attention mass per (tile of rows, tile of keys), exact, without an N × N matrix. `reference` is the oracle, `native` is fast on a CPU, `triton` on a GPU."""

from mezzotint.kernels.block_mass.operator import IMPLEMENTATIONS, Mass, block_mass

__all__ = ["IMPLEMENTATIONS", "Mass", "block_mass"]
