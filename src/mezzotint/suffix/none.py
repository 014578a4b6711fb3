"""No mask beyond the active block is visible."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mezzotint.canvas import Block, Canvas
from mezzotint.suffix.dpad import undroppable
from mezzotint.types import Positions


@dataclass(frozen=True)
class NoSuffix:
    """Block-diffusion decoding: fastest, but the model no longer sees how much room is left. Given text after the block stays."""

    def begin(self, canvas: Canvas, generator: torch.Generator) -> Callable[[Block], Positions]:
        return lambda block: torch.cat((torch.arange(block.end), undroppable(canvas, block)))
