"""The life of an engine in a process of its own: it does what the desk says over a line, and says what became of it."""

import asyncio
import contextlib
import dataclasses
import pickle
import socket
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

from mezzotint.engine.desk import Failed, Round, Ticket
from mezzotint.engine.engine import Engine
from mezzotint.engine.line import Line
from mezzotint.engine.run import Request, Update
from mezzotint.engine.settings import EngineSettings
from mezzotint.grammar.automaton import Automaton
from mezzotint.models.outline import Outline

SHELF = 8
"""Grammars an engine keeps."""


@dataclass(frozen=True)
class Ready:
    """Said by an engine once it can work: what is known of its model, and the bytes that its runs may take."""

    outline: Outline
    tokenizer: Any
    budget: int


@dataclass(frozen=True)
class Keep:
    """Said to an engine: a grammar that requests will name."""

    number: int
    grammar: Automaton


@dataclass(frozen=True)
class Begin:
    """Said to an engine: a request, pickled without its grammar, the number it is known by, that of its grammar, its bytes and the seconds it has left."""

    number: int
    parcel: bytes
    grammar: int | None
    size: int
    seconds: float


@dataclass(frozen=True)
class Leave:
    """Said to an engine: a request was given up."""

    number: int


@dataclass(frozen=True)
class News:
    """Said of a request: what a step changed, why it failed, or how it ended."""

    number: int
    what: Update | Exception | str


class Shelf:
    """The grammars an engine has at hand. The desk keeps an equal one of each engine, so it knows which are there without asking."""

    def __init__(self) -> None:
        self.kept: OrderedDict[int, Automaton] = OrderedDict()

    def number_of(self, grammar: Automaton) -> int | None:
        return next((number for number, kept in self.kept.items() if kept is grammar), None)

    def put(self, number: int, grammar: Automaton) -> None:
        self.kept[number] = grammar
        if len(self.kept) > SHELF:
            self.kept.popitem(last=False)

    def take(self, number: int) -> Automaton:
        self.kept.move_to_end(number)
        return self.kept[number]


class Sent(Ticket):
    """A ticket whose news goes to the desk."""

    def __init__(self, begin: Begin, request: Request, worker: "Worker"):
        super().__init__(request, begin.size, begin.seconds)
        self.number, self.worker = begin.number, worker

    def publish(self, news: Update | Exception | None) -> None:
        if news is not None:
            self.worker.say(News(self.number, news))


class Worker:
    """One engine and its line to the desk. What is said in one turn of the event loop goes out together."""

    def __init__(self, engine: Engine, line: Line):
        self.engine, self.line = engine, line
        self.tickets: dict[int, Sent] = {}
        self.shelf = Shelf()
        self.bag: list[Round | News] = []

    async def run(self) -> None:
        """Until the desk has gone."""
        work = asyncio.create_task(self.engine.run())
        try:
            await self.engine.warm_up()
        except ValueError as error:  # there is not even memory for that
            self.line.send(error)
            return
        self.engine.on_round, self.engine.on_end = self.say, self.ended

        def hear() -> None:
            try:
                for what in self.line.receive():
                    self.obey(what)
            except EOFError:
                work.cancel()

        self.line.send(Ready(Outline(self.engine.model.config, self.engine.model.dtype), self.engine.tokenizer, self.engine.budget))
        self.line.attach(hear)
        with contextlib.suppress(asyncio.CancelledError):
            await work
        self.line.close()

    def obey(self, what: Keep | Begin | Leave) -> None:
        if isinstance(what, Keep):
            self.shelf.put(what.number, what.grammar)
        elif isinstance(what, Leave):
            if what.number in self.tickets:
                self.tickets[what.number].cancelled = True
                self.engine.wake()
        else:
            self.begin(what)

    def begin(self, begin: Begin) -> None:
        grammar = None if begin.grammar is None else self.shelf.take(begin.grammar)
        try:
            request = dataclasses.replace(pickle.loads(begin.parcel), grammar=grammar)
        except Exception as error:  # it names classes that this process does not know
            self.say(News(begin.number, Failed(f"the request cannot be read in another process: {error}")))
            self.say(News(begin.number, "failed"))
            return
        self.tickets[begin.number] = Sent(begin, request, self)
        self.engine.enqueue(self.tickets[begin.number])

    def ended(self, ticket: Ticket, reason: str) -> None:
        assert isinstance(ticket, Sent)
        del self.tickets[ticket.number]
        self.say(News(ticket.number, reason))

    def say(self, what: Round | News) -> None:
        if not self.bag:
            asyncio.get_running_loop().call_soon(self.send)
        self.bag.append(what)

    def send(self) -> None:
        said, self.bag = self.bag, []
        self.line.send(said)


def work(settings: EngineSettings, threads: int, end: socket.socket) -> None:
    """What a process does that holds an engine. It is started with signals blocked: they are for the desk, which knows when nothing is left to answer."""
    torch.set_num_threads(threads)
    line = Line(end)
    try:
        engine = Engine(settings)
    except (ValueError, OSError) as error:
        line.send(error)
        return
    asyncio.run(Worker(engine, line).run())
