"""The canvas a run fills: token ids at absolute positions, and a bitmap of what is decided. Pure position arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """Canvas positions [start, end) that are decoded together; `index` counts from 0."""

    index: int
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


class Canvas:
    """Ids of a batch of rows. What is decided is known from a bitmap, never from comparing with the mask id: a prompt may contain it.

    tokens: (b, n) ids on the model's device, the mask id where undecided; decided: (b, n), likewise on the device;
    open: (b, n) on the host, the mirror of ~decided that the loop keeps without extra synchronisation;
    given: (b, n) on the host, what was decided from the start; fills: finished row -> the id its rest is filled with;
    start: first canvas position that is generated in any row, begins: in each; origin: where the first block starts, `start` unless blocks stand on a grid;
    padding: (b,) empty positions on the left of shorter prompts.
    """

    def __init__(self, tokens: Int[Tensor, "b n"], decided: Bool[Tensor, "b n"], start: int, mask_id: int, padding: Tensor | None = None):
        self.tokens, self.decided, self.start, self.mask_id, self.padding = tokens, decided, start, mask_id, padding
        self.tokens.masked_fill_(~decided, mask_id)
        self.open = (~decided).cpu()
        self.given = ~self.open
        self.fills: dict[int, int] = {}
        self.origin = start
        self.begins = [start] * len(tokens)

    @staticmethod
    def blank(
        prompts: Sequence[Int[Tensor, " _"]], length: int, mask_id: int, device: torch.device, *, grid: int | None = None, to_end: bool = False
    ) -> "Canvas":
        """Prompts of any lengths, aligned to their ends, followed by `length` masks.

        grid: for models that see blocks of `grid` tokens. Blocks then stand on multiples of it from each prompt's first token, prompts are aligned to the
        start of the block they end in, and the canvas ends with a whole block; to_end: blocks are counted from the prompts' ends instead.
        """
        lengths = [len(p) for p in prompts]
        whole = lengths if grid is None or to_end else [count // grid * grid for count in lengths]
        longest = max(whole) if grid is None else -(-max(whole) // grid) * grid
        padding = torch.tensor([longest - count for count in whole])
        begins = [longest - before + count for before, count in zip(whole, lengths, strict=True)]
        end = max(begins) + length
        end = end if grid is None or to_end else -(-end // grid) * grid
        tokens = torch.full((len(prompts), end), mask_id, dtype=torch.long)
        decided = torch.zeros_like(tokens, dtype=torch.bool)
        for row, (prompt, begin) in enumerate(zip(prompts, begins, strict=True)):
            tokens[row, begin - len(prompt) : begin] = prompt
            decided[row, :begin] = True
        padded = padding.to(device) if padding.any() else None
        canvas = Canvas(tokens.to(device), decided.to(device), min(begins), mask_id, padded)
        canvas.begins = begins
        return canvas

    def align(self, grid: int) -> None:
        """Let blocks stand on multiples of `grid`. Raises ValueError if padding moves a row off it."""
        if self.padding is not None and (self.padding % grid).any():
            raise ValueError(
                f"rows are padded by {self.padding.tolist()} positions, but this model's blocks stand on multiples of {grid}; use Canvas.blank(grid=...)"
            )
        self.origin = self.start // grid * grid

    @staticmethod
    def gaps(pieces: Sequence[Sequence[int] | int], mask_id: int, device: torch.device) -> "Canvas":
        """One row from given ids and gaps: a list of ids stands as it is, a number n is n masks."""
        ids: list[int] = []
        given: list[bool] = []
        for piece in pieces:
            count = piece if isinstance(piece, int) else len(piece)
            ids += [mask_id] * count if isinstance(piece, int) else list(piece)
            given += [not isinstance(piece, int)] * count
        decided = torch.tensor([given], device=device)
        start = given.index(False) if False in given else len(given)
        return Canvas(torch.tensor([ids], device=device), decided, start, mask_id)

    @property
    def batch(self) -> int:
        return self.tokens.shape[0]

    @property
    def committed(self) -> float:
        """The share of the positions that were to be filled and are decided, in the row that has the fewest."""
        wanted = (~self.given[:, self.start :]).sum(1).tolist()
        left = self.open[:, self.start :].sum(1).tolist()
        return min(1.0 if not count else (count - open) / count for count, open in zip(wanted, left, strict=True))

    @property
    def length(self) -> int:
        return self.tokens.shape[1]

    def block(self, index: int, block_length: int) -> Block:
        """Block number `index` of those that tile the generated part; the last may be shorter."""
        start = self.origin + index * block_length
        return Block(index, start, min(start + block_length, self.length))

    def extend(self, length: int) -> None:
        """Add undecided positions on the right until the canvas is `length` long."""
        extra = length - self.length
        if extra > 0:
            pad = (0, extra)
            self.tokens = torch.nn.functional.pad(self.tokens, pad, value=self.mask_id)
            self.decided = torch.nn.functional.pad(self.decided, pad, value=False)
            self.open = torch.nn.functional.pad(self.open, pad, value=True)
            self.given = torch.nn.functional.pad(self.given, pad, value=False)
            for row, fill in list(self.fills.items()):
                self.finish(row, length - extra, fill)

    def write(self, at: Int[Tensor, " w"], accepted: Bool[Tensor, "b w"], tokens: Int[Tensor, "b w"]) -> None:
        """Decide the accepted ones of positions `at` (host). `open` is brought up to date by `mirror`."""
        where = at.to(self.tokens.device, non_blocking=True)
        self.tokens.index_copy_(1, where, torch.where(accepted, tokens, self.tokens.index_select(1, where)))
        self.decided.index_copy_(1, where, self.decided.index_select(1, where) | accepted)

    def mirror(self, block: Block) -> Int[Tensor, "b w"]:
        """The block's ids on the host, -1 where undecided: the one synchronisation of a step."""
        span = slice(block.start, block.end)
        ids = torch.where(self.decided[:, span], self.tokens[:, span], -1).cpu()
        self.open[:, span] = ids < 0
        return ids

    def finish(self, row: int, position: int, fill: int) -> None:
        """Decide everything of a row that is open from `position` on with the id `fill`, now and when the canvas grows."""
        rest = ~self.decided[row, position:]
        self.tokens[row, position:].masked_fill_(rest, fill)
        self.decided[row, position:] = True
        self.open[row, position:] = False
        self.fills[row] = fill
