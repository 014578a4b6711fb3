"""How long a gap should be, when nobody says: the size at which the model is surest of what it would put there.

Every size is tried with one forward over the whole text, all masks open; the sizes share forwards.
"""

import asyncio
import time
from collections.abc import Sequence

from mezzotint.engine.engine import Engine, Ticket
from mezzotint.engine.run import Request
from mezzotint.recipe import Recipe


async def surest(engine: Engine, before: tuple[int, ...], after: tuple[int, ...], sizes: Sequence[int], seconds: float | None = None) -> int:
    """The size whose masks have the highest mean log-probability of their likeliest tokens in the first forward.

    So many sizes are tried at a time as may run together. seconds: for all of them.
    """
    until = None if seconds is None else time.monotonic() + seconds
    together = engine.settings.running
    scores: list[float] = []

    async def score(ticket: Ticket, size: int) -> float:
        total = 0.0
        async for update in ticket:
            total += sum(chosen.logprob or 0.0 for chosen in update.accepted)
        return total / size

    for first in range(0, len(sizes), together):
        some = sizes[first : first + together]
        left = None if until is None else max(1e-3, until - time.monotonic())
        tickets: list[Ticket] = []
        try:
            for size in some:
                width = engine.model.config.block_length or size
                recipe = Recipe(gen_length=width, block_length=width, steps=1)
                tickets.append(engine.submit(Request((before, size, after), recipe, alternatives=0, seconds=left)))
            scores += await asyncio.gather(*(score(ticket, size) for ticket, size in zip(tickets, some, strict=True)))
        finally:
            for ticket in tickets:
                ticket.cancel()
    return max(zip(scores, sizes, strict=True))[1]


def gap_sizes(most: int) -> Sequence[int]:
    """Sizes tried when the gap is "auto": every one to 8, then steps of an eighth or so."""
    sizes = []
    size = 1
    while size < most:
        sizes.append(size)
        size += max(1, size // 8)
    return [*sizes, most]
