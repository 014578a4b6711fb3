"""How long a gap should be, when nobody says: the size at which the model is surest of what it would put there.

Every size is tried with one forward over the whole text, all masks open; the sizes share forwards.
"""

import asyncio
import time
from collections.abc import Sequence

from mezzotint.engine.desk import Desk, Ticket
from mezzotint.engine.run import Request
from mezzotint.recipe import Recipe


async def surest(engine: Desk, before: tuple[int, ...], after: tuple[int, ...], sizes: Sequence[int], until: float | None = None) -> int:
    """The size whose masks have the highest mean log-probability of their likeliest tokens in the first forward.

    So many sizes are tried at a time as may run together. until: when all must be done, by time.monotonic().
    """
    together = engine.places
    scores: list[float] = []

    async def score(ticket: Ticket, size: int) -> float:
        total = 0.0
        async for update in ticket:
            total += sum(chosen.logprob or 0.0 for chosen in update.accepted)
        return total / size

    for first in range(0, len(sizes), together):
        some = sizes[first : first + together]
        tickets: list[Ticket] = []
        try:
            for size in some:
                width = engine.model.config.block_length or size
                recipe = Recipe(gen_length=width, block_length=width, steps=1)
                tickets.append(engine.submit(Request((before, size, after), recipe, alternatives=0, seconds=left(until))))
            scores += await asyncio.gather(*(score(ticket, size) for ticket, size in zip(tickets, some, strict=True)))
        finally:
            for ticket in tickets:
                ticket.cancel()
    return max(zip(scores, sizes, strict=True))[1]


def left(until: float | None) -> float | None:
    """Seconds from now to a moment of time.monotonic(); a moment that has passed is nearly now."""
    return None if until is None else max(1e-3, until - time.monotonic())


def gap_sizes(most: int) -> Sequence[int]:
    """Sizes tried when the gap is "auto": every one to 8, then steps of an eighth or so."""
    sizes = []
    size = 1
    while size < most:
        sizes.append(size)
        size += max(1, size // 8)
    return [*sizes, most]
