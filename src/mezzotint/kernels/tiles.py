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
    tiles the place among the positions, -1 for a hole; back: (positions,) the slot of each, None if nothing moves; starts: (t + 1,) int32 on the device, the
    place of each tile's first position and the end: positions are sorted, so a tile is a span of them.
    """

    tiles: Int[Tensor, " t"]
    filled: Int[Tensor, " t"]
    index: Int[Tensor, " slots"]
    back: Int[Tensor, " n"] | None
    starts: Int[Tensor, " ends"]

    @staticmethod
    def of(positions: Int[Tensor, " n"], grid: Grid, device: torch.device) -> "Tiled":
        slots = grid.slots(positions)
        tiles, nth = torch.unique_consecutive(slots // grid.size, return_inverse=True)
        back = nth * grid.size + slots % grid.size
        index = torch.full((len(tiles) * grid.size,), -1)
        index[back] = torch.arange(len(positions))
        filled = (index >= 0).view(-1, grid.size).sum(1)
        unmoved = torch.equal(back, torch.arange(len(positions)))
        starts = torch.nn.functional.pad(filled.cumsum(0), (1, 0)).to(torch.int32)
        return Tiled(tiles, filled, index.to(device), None if unmoved else back.to(device), starts.to(device))

    def whole(self, batch: int, valid: Bool[Tensor, "b n"] | None) -> Bool[Tensor, "b t"]:
        """Which tiles have neither holes nor padding."""
        return self.real(batch, valid).view(batch, len(self.tiles), -1).all(-1)

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
    """Which tiles of keys each tile of rows attends to, as lists.

    index: (b, lists, row_tiles, most) int32, places in the forward's key tiles: first those known to be whole, then the others, each part sorted; only the
    first `count` count; count, whole: (b, lists, row_tiles) int32, how many, and how many of them are whole. Each list serves heads / lists neighbouring
    heads, which share their keys.
    """

    index: Int[Tensor, "b lists rows most"]
    count: Int[Tensor, "b lists rows"]
    whole: Int[Tensor, "b lists rows"]

    @staticmethod
    def of(chosen: Bool[Tensor, "b lists rows keys"], whole: Bool[Tensor, "b keys"] | None = None) -> "Choice":
        """whole: tiles without holes or padding (`Tiled.whole`), which kernels need not mask; None: none is known to be."""
        count = chosen.sum(-1, dtype=torch.int32)
        if whole is None:
            rank, sure = ~chosen, torch.zeros_like(count)
        else:
            inside = chosen & whole[:, None, None]
            rank, sure = torch.where(inside, 0, 2 - chosen.to(torch.int8)).to(torch.int8), inside.sum(-1, dtype=torch.int32)
        most = chosen.shape[-1] if chosen.is_cuda else max(1, int(count.max()))  # to ask a GPU for the longest list would stop its queue
        order = torch.argsort(rank, dim=-1, stable=True)[..., :most]
        return Choice(order.to(torch.int32), count, sure)

    def each(self, heads: int) -> "Choice":
        """The same with one list per head."""
        lists = self.index.shape[1]
        if lists == heads:
            return self
        return Choice(*(part.repeat_interleave(heads // lists, 1) for part in (self.index, self.count, self.whole)))
