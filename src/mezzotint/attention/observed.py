"""Attention that is watched: another strategy's, unchanged, with its queries and keys shown to someone on the way."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from mezzotint.attention.dense import Dense
from mezzotint.canvas import Canvas
from mezzotint.models.transformer import Attend, Scope, dense
from mezzotint.types import Attention, Moment

Look = Callable[[int, Tensor, Tensor, Scope], None]
"""look(layer, q (b, heads, rows, dim), k (b, kv, visible, dim), scope), both rotated."""


@dataclass(frozen=True)
class Watched:
    """An `Attend` that shows every layer's queries and keys to `look` before `inner` attends."""

    look: Look
    inner: Attend = dense

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scope: Scope) -> Tensor:
        self.look(layer, q, k, scope)
        return self.inner(layer, q, k, v, scope)


@dataclass(frozen=True)
class Observed:
    """Wraps an attention strategy for analysis and calibration; what is generated does not change.

    watch(moment) is asked before every forward and returns who looks at it, or None to let it pass unwatched.
    """

    watch: Callable[[Moment], Look | None]
    inner: Attention = field(default_factory=Dense)

    def begin(self, canvas: Canvas) -> Callable[[Moment], Attend]:
        ask = self.inner.begin(canvas)

        def watched(moment: Moment) -> Attend:
            attend, look = ask(moment), self.watch(moment)
            return attend if look is None else Watched(look, attend)

        return watched
