"""Where requests are handed in: they wait in a queue, are let in while places and memory last, and leave when they end, are given up or run out of time."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from mezzotint.engine.admission import check
from mezzotint.engine.run import Request, Run, Update
from mezzotint.engine.settings import EngineSettings
from mezzotint.generation import default_recipe, fitted
from mezzotint.models.outline import Outline
from mezzotint.models.transformer import Transformer


class Busy(RuntimeError):
    """The queue is full, or the engine is ending; retry after `seconds`."""

    def __init__(self, message: str, seconds: float):
        super().__init__(message)
        self.seconds = seconds


class Expired(TimeoutError):
    """A request's deadline passed before its answer was complete."""


class Failed(RuntimeError):
    """A request's run raised an error; others went on."""


@dataclass(frozen=True)
class Round:
    """One forward of the engine: how many runs shared it, the rows it computed and those read from memory, tokens committed, steps, seconds."""

    runs: int
    computed: int
    remembered: int
    committed: int
    steps: int
    seconds: float


class Ticket:
    """A submitted request. Iterate over it once for its updates; the iteration raises Expired, Failed or Busy (the engine ended) if the run does not finish.

    wake: called when the request is given up, so that its place is freed at once.
    """

    def __init__(self, request: Request, size: int, seconds: float, wake: Callable[[], None] = lambda: None):
        self.request, self.size, self.wake = request, size, wake
        self.submitted = time.monotonic()
        self.deadline = self.submitted + seconds
        self.admitted: float | None = None
        self.cancelled = False
        self.run: Run | None = None
        self.forwards = self.positions = 0
        self._news: asyncio.Queue[Update | Exception | None] = asyncio.Queue()

    def cancel(self) -> None:
        """Give the run up; it leaves before the next step."""
        self.cancelled = True
        self.publish(None)
        self.wake()

    def late(self) -> Expired:
        """What is said of it when its deadline has passed."""
        return Expired(f"the answer was not complete after {self.deadline - self.submitted:g} s")

    def publish(self, news: Update | Exception | None) -> None:
        if isinstance(news, Update):
            self.forwards += news.computed > 0
            self.positions += news.computed
        self._news.put_nowait(news)

    async def __aiter__(self) -> AsyncIterator[Update]:
        while (news := await self._news.get()) is not None:
            if isinstance(news, Exception):
                raise news
            yield news


class Desk(ABC):
    """The part of an engine that its users see. `submit` from the event loop's thread; `run` does the work.

    model: what is known of it; budget: bytes that one request may take.
    on_round and on_end are told of every forward, and of every request's end ("stop", "length", "cancelled", "expired", "failed").
    """

    def __init__(self, settings: EngineSettings, model: Transformer | Outline, tokenizer: Any, budget: int):
        self.settings, self.model, self.tokenizer = settings, model, tokenizer
        self.longest = settings.length or model.config.reach
        self.budget = budget
        self.waiting: deque[Ticket] = deque()
        self.running: deque[Ticket] = deque()
        self.on_round: Callable[[Round], None] = lambda round: None
        self.on_end: Callable[[Ticket, str], None] = lambda ticket, reason: None
        self.closing = self.stopped = False
        self.pace = 1.0
        self._work = asyncio.Event()

    @abstractmethod
    async def serve(self) -> None:
        """Let requests in, work on them, and return when there is nothing to do."""

    @property
    def places(self) -> int:
        """Most requests in progress."""
        return self.settings.running

    @property
    def capacity(self) -> int:
        """Bytes that all running requests may take."""
        return self.budget

    @property
    def engines(self) -> int:
        """How many can work now."""
        return 1

    @property
    def open(self) -> bool:
        """Whether a new request would be worked on soon."""
        return not (self.closing or self.stopped)

    @property
    def reserved(self) -> int:
        """Bytes set aside for the running requests."""
        return sum(ticket.size for ticket in self.running)

    def submit(self, request: Request) -> Ticket:
        """Queue a request. Raises Refused if it can never run here, Busy if the queue is full or the engine is ending, Failed if it has broken down."""
        if self.stopped:
            raise Failed("the engine has stopped")
        if self.closing:
            raise Busy("the server is shutting down", 5.0)
        size = check(self.model, request, self.longest, self.budget)
        if len(self.waiting) >= self.settings.waiting + max(0, self.places - len(self.running)):
            raise Busy(f"{len(self.running)} requests are running and {len(self.waiting)} are waiting, the queue is full", self.wait_expected)
        limit = self.settings.seconds
        ticket = Ticket(request, size, limit if request.seconds is None else min(limit, request.seconds), self.wake)
        self.enqueue(ticket)
        return ticket

    async def warm_up(self) -> None:
        """One short answer, so that the first request does not pay for what is done once."""
        async for _ in self.submit(smallest(self.model)):
            pass

    def enqueue(self, ticket: Ticket) -> None:
        self.waiting.append(ticket)
        self.wake()

    def wake(self) -> None:
        """There is something to do."""
        self._work.set()

    @property
    def wait_expected(self) -> float:
        """Seconds until a place in the queue is likely to be free, from the pace at which requests have ended lately."""
        return max(1.0, min(60.0, self.pace * max(1, len(self.waiting)) / self.places))

    async def run(self) -> None:
        """Serve until the engine is closing and nothing is left. Whatever ends this early fails every request rather than leave it waiting."""
        self._work = asyncio.Event()
        try:
            while not self.closing or self.waiting or self.running:
                self._work.clear()
                await self.serve()
        except Exception:
            self.stopped = True
            raise
        finally:
            left = (*self.waiting, *self.running)
            self.waiting.clear()
            self.running.clear()
            for ticket in left:
                ticket.publish(Failed("the engine has stopped"))
                self.ended(ticket, "failed")

    async def drain(self, seconds: float) -> None:
        """Take no more requests; give those at hand `seconds` to end, and fail the rest."""
        self.closing = True
        self.wake()
        until = time.monotonic() + seconds
        while (self.waiting or self.running) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        for ticket in (*self.waiting, *self.running):
            ticket.publish(Busy("the server was shut down before the answer was complete", 5.0))
            ticket.cancelled = True
        self.wake()

    def close(self) -> None:
        self.closing = True
        self.wake()

    def sweep(self) -> None:
        """Drop what was cancelled or has expired."""
        now = time.monotonic()
        for queue in (self.waiting, self.running):
            for ticket in [t for t in queue if t.cancelled or t.deadline <= now]:
                queue.remove(ticket)
                if not ticket.cancelled:
                    ticket.publish(ticket.late())
                self.ended(ticket, "cancelled" if ticket.cancelled else "expired")

    def admit(self) -> None:
        """First come, first served, while places and memory last: a large request is never overtaken for ever."""
        while self.waiting and self.room(self.waiting[0]):
            self.let_in(self.waiting.popleft())

    def let_in(self, ticket: Ticket) -> None:
        """A request may be worked on from now on."""
        ticket.admitted = time.monotonic()
        self.running.append(ticket)

    def room(self, ticket: Ticket) -> bool:
        """Whether a request can be let in now."""
        return len(self.running) < self.places and self.reserved + ticket.size <= self.capacity

    def ended(self, ticket: Ticket, reason: str) -> None:
        """A request has left its queue."""
        if ticket.admitted is not None:
            self.pace = 0.9 * self.pace + 0.1 * (time.monotonic() - ticket.admitted)
        self.on_end(ticket, reason)


def smallest(model: Transformer | Outline) -> Request:
    """A request that goes through everything and takes next to nothing."""
    recipe = fitted(default_recipe(model).with_(gen_length=8, block_length=8, steps=1), model.config)
    return Request(((*model.config.stop_ids[:1], 0),), recipe)
