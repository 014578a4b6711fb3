"""How long a gap should be, when nobody says: the size at which the model is surest of what it would put there.

Every size is tried with one forward over the whole text, all masks open; the sizes share forwards.
"""

import asyncio
from collections.abc import Sequence

from mezzotint.engine.engine import Engine
from mezzotint.engine.run import Request
from mezzotint.recipe import Recipe


async def surest(engine: Engine, before: tuple[int, ...], after: tuple[int, ...], sizes: Sequence[int], seconds: float | None = None) -> int:
    """The size whose masks have the highest mean log-probability of their likeliest tokens in the first forward."""

    async def score(size: int) -> float:
        recipe = Recipe(gen_length=size, block_length=None, steps=1)
        total = 0.0
        async for update in engine.submit(Request((before, size, after), recipe, alternatives=0, seconds=seconds)):
            total += sum(chosen.logprob or 0.0 for chosen in update.accepted)
        return total / size

    scores = await asyncio.gather(*(score(size) for size in sizes))
    return max(zip(scores, sizes, strict=True))[1]
