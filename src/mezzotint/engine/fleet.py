"""Several engines on this machine, each in a process of its own, behind one desk.

Two engines with one core each answer more than one engine with two: a forward of few rows leaves a second core mostly idle, and Python runs on one. The desk
queues and lets in; a request that is let in goes to the engine with the fewest, which sends back what every step changed.
"""

import asyncio
import atexit
import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from mezzotint.engine.admission import available
from mezzotint.engine.desk import Desk, Failed, Round, Ticket
from mezzotint.engine.engine import Engine
from mezzotint.engine.run import Request, Update
from mezzotint.engine.settings import EngineSettings
from mezzotint.models.outline import Outline

TICK = 0.25
"""Seconds between two looks at the deadlines of requests that wait."""


@dataclass(frozen=True)
class Ready:
    """What an engine says of itself once it can work."""

    outline: Outline
    tokenizer: Any
    budget: int


@dataclass(frozen=True)
class Begin:
    """What an engine is told to do: a request, by the number it is known by, the bytes it may take and the seconds it has left."""

    number: int
    request: Request
    size: int
    seconds: float


@dataclass(frozen=True)
class Leave:
    """What an engine is told of a request that was given up."""

    number: int


@dataclass(frozen=True)
class News:
    """What an engine says of a request: what a step changed, why it failed, or how it ended."""

    number: int
    what: Update | Exception | str


class Member:
    """One engine of a fleet, seen from the desk. tickets: its requests by number. ready: None until it can work."""

    def __init__(self, settings: EngineSettings, threads: int):
        self.settings, self.threads = settings, threads
        self.tickets: dict[int, Ticket] = {}
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.ready: Ready | None = None
        self.line, there = context.Pipe()
        self.process = context.Process(target=work, args=(self.settings, self.threads, there), daemon=True)
        self.process.start()
        there.close()

    def hear(self) -> Any:
        """What it says next. Raises EOFError if it has ended, ValueError if it cannot begin."""
        try:
            said = self.line.recv()
        except OSError:
            raise EOFError from None
        if isinstance(said, Exception):
            raise said
        if isinstance(said, Ready):
            self.ready = said
        return said

    def say(self, what: Begin | Leave) -> None:
        with contextlib.suppress(OSError):  # it has ended, and its line will say so
            self.line.send(what)

    @property
    def reserved(self) -> int:
        return sum(ticket.size for ticket in self.tickets.values())


class Fleet(Desk):
    """An engine made of engines. Raises ValueError for what cannot be loaded, or not so often.

    settings: of every one of them, but memory is for all together. The machine's cores are divided among them; on GPUs each has its own. An engine that dies
    fails its requests and is started again.
    """

    def __init__(self, settings: EngineSettings, replicas: int):
        refuse(settings, replicas)
        cuda = settings.device == "cuda"
        memory = settings.memory or (None if cuda else available(torch.device("cpu")))
        each = dataclasses.replace(settings, memory=None if memory is None else max(1, memory // replicas))
        threads = max(1, torch.get_num_threads() // replicas)
        self.members: list[Member] = []
        atexit.register(self.leave)
        for number in range(replicas):
            self.members.append(Member(dataclasses.replace(each, device=f"cuda:{number}") if cuda else each, threads))
        try:
            ready = [member.hear() for member in self.members]
        except EOFError:
            self.leave()
            raise ValueError("an engine ended while it loaded the model; its own messages are above") from None
        except Exception:
            self.leave()
            raise
        self.numbers = itertools.count()
        self.places_of: dict[Ticket, tuple[Member, int]] = {}
        budget = min(one.budget for one in ready)
        super().__init__(settings, ready[0].outline, ready[0].tokenizer, replicas * settings.running, budget, replicas * budget)

    def leave(self) -> None:
        """Let go of the engines, which then end."""
        atexit.unregister(self.leave)
        for member in self.members:
            member.line.close()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for member in self.members:
            loop.add_reader(member.line.fileno(), self.hear, member)
        try:
            await super().run()
        finally:
            for member in self.members:
                if not member.line.closed:
                    loop.remove_reader(member.line.fileno())

    async def serve(self) -> None:
        if self.stopped:
            raise Failed("every engine has ended, and could not be started again")
        self.sweep()
        self.admit()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._work.wait(), TICK)

    def room(self, ticket: Ticket) -> bool:
        return self.free(ticket) is not None

    def free(self, ticket: Ticket) -> Member | None:
        """The engine with the fewest requests, if it can take one more."""
        able = [m for m in self.members if m.ready and len(m.tickets) < self.settings.running and m.reserved + ticket.size <= m.ready.budget]
        return min(able, key=lambda member: len(member.tickets), default=None)

    def let_in(self, ticket: Ticket) -> None:
        member = self.free(ticket)
        assert member is not None
        super().let_in(ticket)
        number = next(self.numbers)
        member.tickets[number] = ticket
        self.places_of[ticket] = member, number
        member.say(Begin(number, ticket.request, ticket.size, max(1e-3, ticket.deadline - time.monotonic())))

    def ended(self, ticket: Ticket, reason: str) -> None:
        if ticket in self.places_of:
            member, number = self.places_of.pop(ticket)
            if member.tickets.pop(number, None) is not None:
                member.say(Leave(number))
        super().ended(ticket, reason)

    def hear(self, member: Member) -> None:
        """Something was said by an engine: many things at once, or its end."""
        try:
            said = member.hear()
        except (EOFError, ValueError) as error:
            self.lost(member, error)
            return
        for what in said if isinstance(said, list) else ():
            if isinstance(what, Round):
                self.on_round(what)
            elif what.number in member.tickets:
                self.told(member, what)
        self.wake()

    def told(self, member: Member, news: News) -> None:
        ticket = member.tickets[news.number]
        if not isinstance(news.what, str):
            ticket.publish(news.what)
            return
        del member.tickets[news.number]
        self.running.remove(ticket)
        ticket.publish(None)
        self.ended(ticket, news.what)

    def lost(self, member: Member, error: Exception) -> None:
        """An engine has ended: so have its requests. One that never worked is not tried again."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(member.line.fileno())
        member.line.close()
        lost, member.tickets = list(member.tickets.values()), {}
        for ticket in lost:
            self.running.remove(ticket)
            ticket.publish(Failed("the engine that worked on this answer has ended; ask again"))
            self.ended(ticket, "failed")
        if member.ready and not self.closing:
            member.start()
            loop.add_reader(member.line.fileno(), self.hear, member)
        else:
            self.members.remove(member)
            self.stopped = not self.members
        self.wake()

    def close(self) -> None:
        super().close()
        self.leave()


def refuse(settings: EngineSettings, replicas: int) -> None:
    """Raises ValueError for what can be seen to be impossible before any process is started."""
    device, cores = torch.device(settings.device), os.cpu_count() or 1
    if settings.tensor_parallel > 1:
        raise ValueError(f"replicas={replicas} and tensor_parallel={settings.tensor_parallel} go together on a Ray cluster only; add --ray")
    if device.type == "cuda" and device.index is not None:
        raise ValueError(f"replicas={replicas} places one engine on each GPU from the first; give device='cuda', not {settings.device!r}")
    if device.type == "cuda" and torch.cuda.device_count() < replicas:
        raise ValueError(f"replicas={replicas} needs as many GPUs, there are {torch.cuda.device_count()}")
    if device.type == "cpu" and replicas > cores:
        raise ValueError(f"replicas={replicas} is more than this machine's {cores} cores")


class Sent(Ticket):
    """A ticket whose news goes to the desk."""

    def __init__(self, begin: Begin, post: "Post"):
        super().__init__(begin.request, begin.size, begin.seconds)
        self.number, self.post = begin.number, post

    def publish(self, news: Update | Exception | None) -> None:
        if news is not None:
            self.post.put(News(self.number, news))


class Post:
    """What is said in one turn of the event loop goes out together."""

    def __init__(self, line: Connection):
        self.line, self.bag = line, list[Round | News]()

    def put(self, what: Round | News) -> None:
        if not self.bag:
            asyncio.get_running_loop().call_soon(self.send)
        self.bag.append(what)

    def send(self) -> None:
        said, self.bag = self.bag, []
        with contextlib.suppress(OSError):  # the desk has gone, and the line will say so
            self.line.send(said)


async def obey(engine: Engine, line: Connection) -> None:
    """Do what the desk says until it has gone."""
    post, tickets = Post(line), dict[int, Sent]()
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(engine.run())

    def hear() -> None:
        try:
            what = line.recv()
        except (EOFError, OSError):
            work.cancel()
            return
        if isinstance(what, Begin):
            tickets[what.number] = Sent(what, post)
            engine.enqueue(tickets[what.number])
        elif what.number in tickets:
            tickets[what.number].cancelled = True
            engine.wake()

    def ended(ticket: Ticket, reason: str) -> None:
        assert isinstance(ticket, Sent)
        del tickets[ticket.number]
        post.put(News(ticket.number, reason))

    engine.on_round, engine.on_end = post.put, ended
    loop.add_reader(line.fileno(), hear)
    with contextlib.suppress(asyncio.CancelledError):
        await work


def work(settings: EngineSettings, threads: int, line: Connection) -> None:
    """The life of an engine's process. Signals that reach all of them are for the desk, which knows when there is nothing left to answer."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(threads)
    try:
        engine = Engine(settings)
        line.send(Ready(Outline(engine.model.config, engine.model.dtype), engine.tokenizer, engine.budget))
    except (ValueError, OSError) as error:
        line.send(error)
        return
    with contextlib.suppress(BrokenPipeError):
        asyncio.run(obey(engine, line))
