"""The engine: many requests, one model. Requests join and leave between denoising steps, and their steps share forwards.

Every request is a run of its own (canvas, planners, random draws), so its tokens are those it would get alone; what is shared is the arithmetic.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from mezzotint.denoising import Draw
from mezzotint.engine.admission import available, check
from mezzotint.engine.drawing import draw_all
from mezzotint.engine.packing import Packed, packable
from mezzotint.engine.run import Request, Run, Update
from mezzotint.engine.settings import EngineSettings
from mezzotint.models.transformer import Transformer

T = TypeVar("T")
R = TypeVar("R")


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
    """A submitted request. Iterate over it once for its updates; the iteration raises Expired, Failed or Busy (the engine ended) if the run does not finish."""

    def __init__(self, request: Request, size: int, seconds: float):
        self.request, self.size = request, size
        self.submitted = time.monotonic()
        self.deadline = self.submitted + seconds
        self.cancelled = False
        self.run: Run | None = None
        self.forwards = self.positions = 0
        self._news: asyncio.Queue[Update | Exception | None] = asyncio.Queue()

    def cancel(self) -> None:
        """Give the run up; it leaves before the next step."""
        self.cancelled = True
        self._news.put_nowait(None)

    def publish(self, news: "Update | Exception | None") -> None:
        self._news.put_nowait(news)

    async def __aiter__(self) -> AsyncIterator[Update]:
        while (news := await self._news.get()) is not None:
            if isinstance(news, Exception):
                raise news
            yield news


def failed(error: Exception) -> Failed:
    return error if isinstance(error, Failed) else Failed(f"{type(error).__name__}: {error}")


class Engine:
    """One replica. `submit` from the event loop's thread; `run` (or `step`, one forward at a time) does the work in a thread of its own.

    on_round and on_end are told of every forward, and of every request's end ("stop", "length", "cancelled", "expired", "failed").
    """

    def __init__(self, settings: EngineSettings):
        self.settings = settings
        self.model, self.tokenizer = self._load()
        self.longest = settings.length or self.model.config.max_length
        self.budget = settings.memory or available(self.model.device)
        self.waiting: deque[Ticket] = deque()
        self.running: deque[Ticket] = deque()
        self.on_round: Callable[[Round], None] = lambda round: None
        self.on_end: Callable[[Ticket, str], None] = lambda ticket, reason: None
        self.closing = self.stopped = False
        self.pace = 1.0
        self._work = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "mezzotint-engine")

    def _load(self) -> tuple[Transformer, Any]:
        """The model and its tokenizer."""
        from mezzotint.generation import load

        names = ("device", "dtype", "rope_scaling", "mask_id", "block_causal", "weights")
        return load(self.settings.model, **{name: getattr(self.settings, name) for name in names})

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
        if len(self.waiting) >= self.settings.waiting + max(0, self.settings.running - len(self.running)):
            raise Busy(f"{len(self.running)} requests are running and {len(self.waiting)} are waiting, the queue is full", self.wait_expected)
        limit = self.settings.seconds
        ticket = Ticket(request, size, limit if request.seconds is None else min(limit, request.seconds))
        self.waiting.append(ticket)
        self._work.set()
        return ticket

    @property
    def wait_expected(self) -> float:
        """Seconds until a place in the queue is likely to be free, from the pace at which requests have ended lately."""
        return max(1.0, min(60.0, self.pace * max(1, len(self.waiting)) / self.settings.running))

    async def run(self) -> None:
        """Serve until the engine is closing and nothing is left. Whatever ends this early fails every request rather than leave it waiting."""
        self._work = asyncio.Event()
        try:
            while not self.closing or self.waiting or self.running:
                self._work.clear()
                if not await self.step() and not self.closing:
                    await self._work.wait()
        except Exception:
            self.stopped = True
            raise
        finally:
            for ticket in (*self.waiting, *self.running):
                ticket.publish(Failed("the engine has stopped"))
            self.waiting.clear()
            self.running.clear()

    async def drain(self, seconds: float) -> None:
        """Take no more requests; give those at hand `seconds` to end, and fail the rest."""
        self.closing = True
        self._work.set()
        until = time.monotonic() + seconds
        while (self.waiting or self.running) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        for ticket in (*self.waiting, *self.running):
            ticket.publish(Busy("the server was shut down before the answer was complete", 5.0))
            ticket.cancelled = True

    def close(self) -> None:
        self.closing = True
        self._work.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def step(self) -> bool:
        """Let go of what has ended, admit what fits, and make one forward. False if there was nothing to do."""
        self._sweep()
        self._admit()
        batch = self._next_batch()
        if not batch:
            return False
        begun = time.monotonic()
        outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, self._forward, batch)
        self._publish(batch, outcomes, time.monotonic() - begun)
        return True

    def _sweep(self) -> None:
        """Drop what was cancelled or has expired."""
        now = time.monotonic()
        for queue in (self.waiting, self.running):
            for ticket in [t for t in queue if t.cancelled or t.deadline <= now]:
                queue.remove(ticket)
                if not ticket.cancelled:
                    ticket.publish(Expired(f"the answer was not complete after {ticket.deadline - ticket.submitted:g} s"))
                self._end(ticket, "cancelled" if ticket.cancelled else "expired")

    def _end(self, ticket: Ticket, reason: str) -> None:
        if ticket.run is not None:
            ticket.run.close()
            self.pace = 0.9 * self.pace + 0.1 * (time.monotonic() - ticket.run.begun)
        self.on_end(ticket, reason)

    def _admit(self) -> None:
        """First come, first served, while places and memory last: a large request is never overtaken for ever."""
        while self.waiting and len(self.running) < self.settings.running and self.reserved + self.waiting[0].size <= self.budget:
            self.running.append(self.waiting.popleft())

    def _next_batch(self) -> list[Ticket]:
        """The run that has waited longest, and others that can share its forward. They go to the back of the row, so that every run gets its turn."""
        fresh = [ticket for ticket in self.running if ticket.run is None]
        if fresh:
            return fresh
        batch: list[Ticket] = []
        rows = 0
        for ticket in self.running:
            assert ticket.run is not None
            assert ticket.run.ask is not None
            ask = ticket.run.ask
            if batch and (not packable(ask) or not packable(batch[0].run.ask) or rows + len(ask.at) > self.settings.rows):  # type: ignore[union-attr,arg-type]
                continue
            batch.append(ticket)
            rows += len(ask.at)
        for ticket in batch:
            self.running.remove(ticket)
        self.running.extend(batch)
        return batch

    @torch.inference_mode()
    def _forward(self, batch: list[Ticket]) -> list[list[Update] | Exception]:
        """In the engine's thread: begin new runs, or answer one shared forward and take each run to its next."""
        if batch[0].run is None:
            return [self._guarded(self._begin, ticket) for ticket in batch]
        runs = [ticket.run for ticket in batch if ticket.run is not None]
        asks = [run.ask for run in runs if run.ask is not None]
        try:
            logits = Packed(self.model, asks).answer() if packable(asks[0]) else [asks[0].answer()]
        except Exception as error:  # whatever a forward raises ends these requests, not the engine
            return [failed(error) for _ in batch]
        turns = [self._guarded(run.hear, found) for run, found in zip(runs, logits, strict=True)]
        drawn = iter(draw_all([turn for turn in turns if isinstance(turn, Draw)]))
        predictions = [next(drawn) if isinstance(turn, Draw) else turn for turn in turns]
        return [failed(p) if isinstance(p, Exception) else self._guarded(run.take, p) for run, p in zip(runs, predictions, strict=True)]

    def _begin(self, ticket: Ticket) -> list[Update]:
        ticket.run = Run(self.model, ticket.request)
        return ticket.run.start()

    @staticmethod
    def _guarded(action: Callable[[T], R], argument: T) -> R | Exception:
        """What an action on one run gives, or why it failed: that ends this run, not the others."""
        try:
            return action(argument)
        except Exception as error:
            return failed(error)

    def _publish(self, batch: list[Ticket], outcomes: list[list[Update] | Exception], seconds: float) -> None:
        """Tell everyone what became of their run."""
        updates = [update for outcome in outcomes if isinstance(outcome, list) for update in outcome]
        for ticket, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Exception):
                self.running.remove(ticket)
                ticket.publish(outcome)
                self._end(ticket, "failed")
                continue
            for update in outcome:
                ticket.forwards += update.computed > 0
                ticket.positions += update.computed
                ticket.publish(update)
            if ticket.run is not None and ticket.run.ask is None:
                self.running.remove(ticket)
                ticket.publish(None)
                self._end(ticket, outcome[-1].finished or "length" if outcome else "length")
        if updates:
            computed, remembered = sum(u.computed for u in updates), sum(u.remembered for u in updates)
            self.on_round(Round(len(batch), computed, remembered, sum(len(u.accepted) for u in updates), len(updates), seconds))
