"""Fixed patterns to compare with: a sliding window, and StreamingLLM's window with the first tokens (arXiv 2309.17453)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from mezzotint.attention.sparsed import implementation, kernel, tile_size
from mezzotint.canvas import Canvas
from mezzotint.fields import check
from mezzotint.kernels.block_sparse import block_sparse
from mezzotint.kernels.tiles import Choice, Grid, Tiled
from mezzotint.models.transformer import Attend, Scope
from mezzotint.types import Moment


@dataclass(frozen=True)
class SlidingWindow:
    """Rows see the tiles that lie, in part, within window / 2 positions before or after their own tile.

    window: positions beside the row's own tile; block_size: positions per tile, a power of two; impl: "auto", the fastest kernel, or its name. The pattern
    holds on short canvases too, where it gains nothing.
    """

    window: int = 1024
    block_size: int = 128
    impl: str = "auto"

    owner: ClassVar[str] = "window"

    def __post_init__(self) -> None:
        check(self.owner, self)
        if self.window < 0:
            raise ValueError(f"{self.owner} window={self.window} must be 0 or more positions")
        tile_size(self.owner, self.block_size)
        implementation(self.owner, self.impl, self.block_size)

    def begin(self, canvas: Canvas) -> Callable[[Moment], Attend]:
        return windowed(self, 0)


@dataclass(frozen=True)
class StreamingLLM(SlidingWindow):
    """A sliding window, and everywhere the first `first` tokens, the usual attention sinks of autoregressive models."""

    first: int = 128
    owner: ClassVar[str] = "streaming"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first < 1:
            raise ValueError(f"streaming first={self.first} must be at least 1 token")

    def begin(self, canvas: Canvas) -> Callable[[Moment], Attend]:
        return windowed(self, self.first)


def windowed(settings: SlidingWindow, first: int) -> Callable[[Moment], Attend]:
    """The same pattern in every layer and head, kept for every number of key heads (pruned layers differ); it depends only on where rows and columns stand."""
    size = settings.block_size
    last: Scope | None = None
    kept: dict[int, tuple[Tiled, Tiled, Choice]] = {}

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, scope: Scope) -> Tensor:
        nonlocal last
        if last is None or (last is not scope and not (torch.equal(last.at, scope.at) and torch.equal(last.over, scope.over))):
            kept.clear()
        last = scope
        if k.shape[1] not in kept:
            rows, keys = (Tiled.of(p, Grid(0, size), q.device) for p in (scope.at, scope.over))
            chosen = pattern(rows, keys, scope, q.shape[0]).expand(-1, k.shape[1], -1, -1)
            kept[k.shape[1]] = rows, keys, Choice.of(chosen, keys.whole(q.shape[0], scope.valid))
        impl = kernel(q, size) if settings.impl == "auto" else settings.impl
        return block_sparse(q, k, v, *kept[k.shape[1]], size, valid=scope.valid, impl=impl)

    def pattern(rows: Tiled, keys: Tiled, scope: Scope, batch: int) -> Bool[Tensor, "b 1 rows keys"]:
        apart = (rows.tiles[:, None] - keys.tiles).abs() * size - size
        near = (apart < settings.window / 2).expand(batch, 1, -1, -1)
        if not first:
            return near.to(keys.index.device)
        padding = torch.zeros(batch, dtype=torch.long) if scope.valid is None else (~scope.valid).sum(1).cpu()
        begins, ends = padding[:, None] // size, (padding[:, None] + first - 1) // size
        return (near | ((keys.tiles >= begins) & (keys.tiles <= ends))[:, None, None]).to(keys.index.device)

    return lambda moment: attend
