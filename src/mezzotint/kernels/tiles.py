"""Tiles: canvas positions in groups of `size`, and which tiles of keys each tile of rows attends to.

Prompt and generation are tiled apart, so no tile holds both: the prompt's last tile may be ragged, the generation's first begins at the boundary.
A forward that computes or sees only some positions has tiles with holes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """boundary: the first position of the generation; size: positions per tile, a power of two."""

    boundary: int
    size: int

    @property
    def prompt_tiles(self) -> int:
        return -(-self.boundary // self.size)

    def slots(self, positions: Int[Tensor, " _"]) -> Int[Tensor, " _"]:
        """Where positions stand when every tile is full: slot // size is the tile."""
        return positions + (positions >= self.boundary) * (self.prompt_tiles * self.size - self.boundary)

    def tile(self, position: int) -> int:
        return int(self.slots(torch.tensor([position]))) // self.size


@dataclass(frozen=True)
class Tiled:
    """Some positions in their tiles.

    tiles, filled: (t,) the numbers of the tiles that hold any, and how many each holds, on the host; index: (t * size,) on the device, for every slot of these
    tiles the place among the positions, -1 for a hole; back: (positions,) the slot of each, None if nothing moves.
    """

    tiles: Int[Tensor, " t"]
    filled: Int[Tensor, " t"]
    index: Int[Tensor, " slots"]
    back: Int[Tensor, " n"] | None

    @staticmethod
    def of(positions: Int[Tensor, " n"], grid: Grid, device: torch.device) -> "Tiled":
        slots = grid.slots(positions)
        tiles, nth = torch.unique_consecutive(slots // grid.size, return_inverse=True)
        back = nth * grid.size + slots % grid.size
        index = torch.full((len(tiles) * grid.size,), -1)
        index[back] = torch.arange(len(positions))
        filled = (index >= 0).view(-1, grid.size).sum(1)
        unmoved = torch.equal(back, torch.arange(len(positions)))
        return Tiled(tiles, filled, index.to(device), None if unmoved else back.to(device))

    def real(self, batch: int, valid: Bool[Tensor, "b n"] | None) -> Bool[Tensor, "b slots"]:
        """Which slots hold a position that may be seen; valid: False on padding."""
        there = (self.index >= 0).expand(batch, -1)
        return there if valid is None else there & valid[:, self.index.clamp_min(0)]

    def spread(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h slots d"]:
        """Rows of x in their slots; holes hold zeros."""
        if self.back is None:
            return torch.nn.functional.pad(x, (0, 0, 0, len(self.index) - x.shape[2]))
        return x.new_zeros(*x.shape[:2], len(self.index), x.shape[3]).index_copy_(2, self.back, x)

    def collect(self, x: Float[Tensor, "b h slots d"], count: int) -> Float[Tensor, "b h n d"]:
        """The inverse of `spread`."""
        return x[:, :, :count] if self.back is None else x.index_select(2, self.back)


@dataclass(frozen=True)
class Choice:
    """Which tiles of keys each tile of rows attends to, sorted, as lists.

    index: (b, heads, row_tiles, most) int32, places in the forward's key tiles, only the first `count` count; count: (b, heads, row_tiles) int32.
    """

    index: Int[Tensor, "b h rows most"]
    count: Int[Tensor, "b h rows"]

    @staticmethod
    def of(chosen: Bool[Tensor, "b h rows keys"]) -> "Choice":
        count = chosen.sum(-1, dtype=torch.int32)
        order = torch.argsort(~chosen, dim=-1, stable=True)[..., : max(1, int(count.max()))]
        return Choice(order.to(torch.int32), count)

    def split(self, ragged: Bool[Tensor, "b keys"]) -> "tuple[Choice, Choice]":
        """The lists of tiles with holes, and of those without."""
        inside = torch.arange(self.index.shape[-1], device=self.index.device) < self.count[..., None]
        holes = ragged[:, None, None].expand(*self.index.shape[:3], -1).gather(-1, self.index.long())
        return self._filter(inside & holes), self._filter(inside & ~holes)

    def _filter(self, keep: Bool[Tensor, "b h rows most"]) -> "Choice":
        order = torch.argsort(~keep, dim=-1, stable=True)
        return Choice(self.index.gather(-1, order), keep.sum(-1, dtype=torch.int32))
