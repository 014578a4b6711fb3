"""The engine: many requests, one model. Requests join and leave between denoising steps, and their steps share forwards.

Every request is a run of its own (canvas, planners, random draws), so its tokens are those it would get alone; what is shared is the arithmetic.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from mezzotint.denoising import Draw
from mezzotint.engine.admission import available
from mezzotint.engine.desk import Desk, Failed, Round, Ticket
from mezzotint.engine.drawing import draw_all
from mezzotint.engine.packing import Packed, packable
from mezzotint.engine.run import Run, Update
from mezzotint.engine.settings import EngineSettings
from mezzotint.generation import load
from mezzotint.models.transformer import Transformer

T = TypeVar("T")
R = TypeVar("R")


def failed(error: Exception) -> Failed:
    """What a run's error is to those who asked. Raises an error after which a GPU does nothing more: it ends the engine, not the run."""
    if isinstance(error, torch.AcceleratorError):
        raise error
    return error if isinstance(error, Failed) else Failed(f"{type(error).__name__}: {error}")


class Engine(Desk):
    """One replica in this process. `run` (or `step`, one forward at a time) computes in a thread of its own."""

    model: Transformer

    def __init__(self, settings: EngineSettings):
        model, tokenizer = self._load(settings)
        super().__init__(settings, model, tokenizer, settings.memory or available(model.device))
        self._thread = ThreadPoolExecutor(1, "mezzotint-engine")

    def _load(self, settings: EngineSettings) -> tuple[Transformer, Any]:
        """The model and its tokenizer."""
        names = ("device", "dtype", "rope_scaling", "mask_id", "block_causal", "weights")
        return load(settings.model, **{name: getattr(settings, name) for name in names})

    async def serve(self) -> None:
        if not await self.step() and not self.closing:
            await self._work.wait()

    def close(self) -> None:
        super().close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def step(self) -> bool:
        """Let go of what has ended, admit what fits, and make one forward. False if there was nothing to do."""
        self.sweep()
        self.admit()
        batch = self._next_batch()
        if not batch:
            return False
        begun = time.monotonic()
        outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, self._forward, batch)
        self._publish(batch, outcomes, time.monotonic() - begun)
        return True

    def ended(self, ticket: Ticket, reason: str) -> None:
        if ticket.run is not None:
            with contextlib.suppress(ValueError):  # where the engine was stopped, its forward may still be on its way
                ticket.run.close()
        super().ended(ticket, reason)

    def _next_batch(self) -> list[Ticket]:
        """The run that has waited longest, and others that can share its forward, or need none either. They go to the back of the row, so that every run gets
        its turn."""
        fresh = [ticket for ticket in self.running if ticket.run is None]
        if fresh:
            return fresh
        batch: list[Ticket] = []
        rows = 0
        for ticket in self.running:
            assert ticket.run is not None
            ask, first = ticket.run.ask, batch[0].run.ask if batch else ticket.run.ask  # type: ignore[union-attr]
            if (ask is None) != (first is None):
                continue
            if ask is not None and first is not None:
                if batch and (not packable(ask) or not packable(first) or rows + len(ask.at) > self.settings.rows):
                    continue
                rows += len(ask.at)
            batch.append(ticket)
        for ticket in batch:
            self.running.remove(ticket)
        self.running.extend(batch)
        return batch

    @torch.inference_mode()
    def _forward(self, batch: list[Ticket]) -> list[list[Update] | Exception]:
        """In the engine's thread: begin new runs, let runs go on that need no forward, or answer one shared forward and take each run to its next."""
        if batch[0].run is None:
            return [self._guarded(self._begin, ticket) for ticket in batch]
        runs = [ticket.run for ticket in batch if ticket.run is not None]
        if runs[0].ask is None:
            return [self._guarded(Run.go_on, run) for run in runs]
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
                self.ended(ticket, "failed")
                continue
            for update in outcome:
                ticket.publish(update)
            if ticket.run is not None and ticket.run.ended:
                self.running.remove(ticket)
                ticket.publish(None)
                self.ended(ticket, outcome[-1].finished or "length" if outcome else "length")
        if updates:
            computed, remembered = sum(u.computed for u in updates), sum(u.remembered for u in updates)
            self.on_round(Round(len(batch), computed, remembered, sum(len(u.accepted) for u in updates), len(updates), seconds))
