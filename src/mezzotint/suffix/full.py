"""The whole canvas is visible. The null choice."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mezzotint.canvas import Block, Canvas
from mezzotint.types import Positions


@dataclass(frozen=True)
class Full:
    """Every mask of the canvas is seen, however far away: slow on long canvases, and what the model was trained with."""

    def begin(self, canvas: Canvas, generator: torch.Generator) -> Callable[[Block], Positions]:
        return lambda block: torch.arange(canvas.length)
