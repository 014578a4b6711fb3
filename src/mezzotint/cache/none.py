"""Nothing is cached: every step computes all it sees. The null choice."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from mezzotint.canvas import Canvas
from mezzotint.types import Moment, Positions


@dataclass(frozen=True)
class NoCache:
    """Exact and slow: the cost of a step is that of the whole visible canvas."""

    stores: ClassVar[bool] = False

    def begin(self, canvas: Canvas) -> Callable[[Moment, Positions], Positions]:
        return lambda moment, visible: visible
