"""Several engines on this machine, each in a process of its own, behind one desk.

Two engines with one core each answer more than one engine with two: a forward of few rows leaves a second core mostly idle, and Python runs on one. The desk
queues and lets in; a request that is let in goes to the engine with the fewest, which sends back what every step changed.
"""

import asyncio
import atexit
import contextlib
import dataclasses
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import time
from multiprocessing import resource_tracker
from typing import Any

import torch

from mezzotint.engine.admission import Refused, available
from mezzotint.engine.desk import Desk, Expired, Failed, Round, Ticket
from mezzotint.engine.line import Line
from mezzotint.engine.placing import check_places, place
from mezzotint.engine.run import Request
from mezzotint.engine.settings import EngineSettings
from mezzotint.engine.worker import Begin, Keep, Leave, News, Ready, Shelf, work

TICK = 0.25
"""Seconds between two looks at the deadlines of requests that wait."""

LONGEST_PAUSE = 60.0
"""Seconds before an engine that could not be started again is tried once more; at first it is one, then twice as long each time."""

log = logging.getLogger("mezzotint.engine")


class Member:
    """One engine of a fleet, seen from the desk. tickets: its requests by number; ready: what it said, None while it cannot work."""

    def __init__(self, settings: EngineSettings, threads: int):
        self.settings, self.threads = settings, threads
        self.tickets: dict[int, Ticket] = {}
        self.failures = 0
        self.start()

    def start(self) -> None:
        """Begin a process. Raises OSError if the system gives none."""
        self.ready: Ready | None = None
        self.shelf = Shelf()
        self.line, theirs = Line.pair()
        context = multiprocessing.get_context("spawn")
        resource_tracker.ensure_running()  # the first process would start it, which unblocks signals
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self.process = context.Process(target=work, args=(self.settings, self.threads, theirs), daemon=True)
            self.process.start()
        except BaseException:
            self.line.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def told_ready(self, ready: Ready) -> None:
        """From now on it can work; if it is started again, with the memory it has now."""
        self.ready, self.failures = ready, 0
        self.settings = dataclasses.replace(self.settings, memory=ready.budget)

    @property
    def reserved(self) -> int:
        return sum(ticket.size for ticket in self.tickets.values())

    def begin(self, number: int, ticket: Ticket, parcel: bytes) -> None:
        grammar = ticket.request.grammar
        name = None
        if grammar is not None:
            name = self.shelf.number_of(grammar)
            if name is None:
                name = number
                self.shelf.put(name, grammar)
                self.line.send(Keep(name, grammar))
            self.shelf.take(name)
        self.tickets[number] = ticket
        self.line.send(Begin(number, parcel, name, ticket.size, max(1e-3, ticket.deadline - time.monotonic())))


class Fleet(Desk):
    """An engine made of engines. Raises ValueError for what cannot be loaded, or not so often.

    settings: of every one of them, but memory is for all together. The machine's cores are divided among them; on GPUs each has its own. An engine that dies
    fails its requests and is started again.
    """

    def __init__(self, settings: EngineSettings, replicas: int):
        refuse(settings, replicas)
        memory = settings.memory or (None if settings.device == "cuda" else available(torch.device("cpu")))
        each = dataclasses.replace(settings, memory=None if memory is None else max(1, memory // replicas))
        threads = max(1, torch.get_num_threads() // replicas)
        self.members: list[Member] = []
        atexit.register(self.leave)
        try:
            for number in range(replicas):
                self.members.append(Member(dataclasses.replace(each, device=str(place(each.device, number))), threads))
            for member in self.members:
                said = member.line.first()
                if isinstance(said, Exception):
                    raise said
                member.told_ready(said)
        except EOFError:
            self.leave()
            raise ValueError("an engine ended while it loaded the model; its own messages are above") from None
        except BaseException:
            self.leave()
            raise
        self.numbers = itertools.count()
        self.parcels: dict[Ticket, bytes] = {}
        self.seats: dict[Ticket, tuple[Member, int]] = {}
        first = self.members[0].ready
        assert first is not None
        super().__init__(settings, first.outline, first.tokenizer, min(member.ready.budget for member in self.members if member.ready))

    @property
    def places(self) -> int:
        return self.settings.running * max(1, self.engines)

    @property
    def capacity(self) -> int:
        return self.budget * max(1, self.engines)

    @property
    def able(self) -> list[Member]:
        """The engines that can work now."""
        return [member for member in self.members if member.ready]

    async def warm_up(self) -> None:
        """Nothing: each engine has done so."""

    @property
    def engines(self) -> int:
        return len(self.able)

    @property
    def open(self) -> bool:
        return super().open and self.engines > 0

    def leave(self) -> None:
        """Let go of the engines, which then end."""
        atexit.unregister(self.leave)
        for member in self.members:
            member.line.close()

    def close(self) -> None:
        super().close()
        self.leave()

    def submit(self, request: Request) -> Ticket:
        try:
            parcel = pickle.dumps(dataclasses.replace(request, grammar=None))
        except Exception as error:
            raise Refused(f"the request cannot be sent to another process: {error}") from None
        ticket = super().submit(request)
        self.parcels[ticket] = parcel
        return ticket

    async def run(self) -> None:
        for member in self.members:
            if member.line.closed:
                self.restart(member)
            else:
                self.listen(member)
        try:
            await super().run()
        finally:
            for member in self.members:
                member.line.detach()

    async def serve(self) -> None:
        self.sweep()
        self.admit()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK):
                await self._work.wait()

    def room(self, ticket: Ticket) -> bool:
        return self.free(ticket) is not None

    def free(self, ticket: Ticket) -> Member | None:
        """The engine with the fewest requests, of several the one that has not had one for longest, if it can take one more."""
        able = [m for m in self.able if len(m.tickets) < self.settings.running and m.reserved + ticket.size <= self.budget]
        return min(able, key=lambda member: len(member.tickets), default=None)

    def let_in(self, ticket: Ticket) -> None:
        member = self.free(ticket)
        assert member is not None
        super().let_in(ticket)
        number = next(self.numbers)
        self.seats[ticket] = member, number
        member.begin(number, ticket, self.parcels[ticket])
        self.members.remove(member)
        self.members.append(member)

    def ended(self, ticket: Ticket, reason: str) -> None:
        del self.parcels[ticket]
        if ticket in self.seats:
            member, number = self.seats.pop(ticket)
            if member.tickets.pop(number, None) is not None:
                member.line.send(Leave(number))
        super().ended(ticket, reason)

    def listen(self, member: Member) -> None:
        member.line.attach(lambda: self.hear(member))

    def hear(self, member: Member) -> None:
        """Something was said by an engine, or it has ended."""
        try:
            for what in member.line.receive():
                self.heed(member, what)
        except EOFError:
            self.lost(member, "it has ended")
        self.wake()

    def heed(self, member: Member, what: Any) -> None:
        if isinstance(what, Ready):
            member.told_ready(what)
            log.warning("an engine works again (process %s)", member.process.pid)
        elif isinstance(what, Exception):
            self.lost(member, str(what))
        else:
            for news in what:
                if isinstance(news, Round):
                    self.on_round(news)
                elif news.number in member.tickets:
                    self.told(member, news)

    def told(self, member: Member, news: News) -> None:
        ticket = member.tickets[news.number]
        if isinstance(news.what, Expired):
            ticket.publish(ticket.late())
        elif not isinstance(news.what, str):
            ticket.publish(news.what)
        else:
            del member.tickets[news.number]
            self.running.remove(ticket)
            ticket.publish(None)
            self.ended(ticket, news.what)

    def lost(self, member: Member, why: str) -> None:
        """An engine has ended: so have its requests. It is started again after a pause that grows while that fails."""
        member.line.close()
        member.ready = None
        lost, member.tickets = list(member.tickets.values()), {}
        for ticket in lost:
            self.running.remove(ticket)
            ticket.publish(Failed("the engine that worked on this answer has ended; ask again"))
            self.ended(ticket, "failed")
        log.warning("an engine is lost (process %s): %s; %d requests failed", member.process.pid, why, len(lost))
        self.restart_later(member)

    def restart_later(self, member: Member) -> None:
        pause = min(2.0**member.failures, LONGEST_PAUSE)
        member.failures += 1
        log.warning("it is started again in %.0f s", pause)
        asyncio.get_running_loop().call_later(pause, self.restart, member)

    def restart(self, member: Member) -> None:
        member.process.join(0)
        if self.closing or not member.line.closed:
            return
        try:
            member.start()
        except OSError as error:
            log.warning("an engine could not be started: %s", error)
            self.restart_later(member)
        else:
            self.listen(member)


def refuse(settings: EngineSettings, replicas: int) -> None:
    """Raises ValueError for what can be seen to be impossible before any process is started."""
    if settings.tensor_parallel > 1:
        raise ValueError(f"replicas={replicas} and tensor_parallel={settings.tensor_parallel} go together on a Ray cluster only; add --ray")
    check_places("replicas", replicas, "engine", settings.device)
    if settings.device == "cpu" and replicas > cores_here():
        raise ValueError(f"replicas={replicas} is more than the {cores_here()} cores there are for this process")


def cores_here() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
