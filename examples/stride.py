"""An example of a method: a suffix in which only every n-th mask beyond a near window is seen."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

import mezzotint as mz
from mezzotint.suffix import SUFFIXES
from mezzotint.suffix.dpad import undroppable
from mezzotint.types import Positions


# --8<-- [start:method]
@dataclass(frozen=True)
class Stride:
    """Keeps the `near` masks behind the block, and of those beyond every `every`-th.

    every: 1 keeps all (the plain loop); more drops more, faster, and shows less of the room that is left; near: positions that are always kept.
    """

    every: int = 8
    near: int = 32

    def __post_init__(self) -> None:
        if self.every < 1 or self.near < 0:
            raise ValueError(f"stride every={self.every} must be at least 1 and near={self.near} 0 or more")

    def begin(self, canvas: mz.Canvas, generator: torch.Generator) -> Callable[[mz.Block], Positions]:
        def visible(block: mz.Block) -> Positions:
            distance = torch.arange(canvas.length - block.end)
            kept = (distance < self.near) | (distance % self.every == 0)
            kept[undroppable(canvas, block) - block.end] = True
            return torch.cat((torch.arange(block.end), block.end + kept.nonzero()[:, 0]))

        return visible


# --8<-- [end:method]

# --8<-- [start:registered]
SUFFIXES["stride"] = Stride
# --8<-- [end:registered]

# --8<-- [start:used]
model, tokenizer = mz.load()
recipe = mz.Recipe(gen_length=64, block_length=16, commit=mz.Threshold(0.9)).with_(suffix="stride:every=4,near=8")
result = mz.generate(model, tokenizer, "Copy these words: amber coral", recipe)
print(result.text, result.forwards, result.positions_computed)
# --8<-- [end:used]
