"""One engine over several processes that share every layer (`models/parallel.py`). Rank 0 decides what is done next; the others do the same.

A run is deterministic, so it suffices to tell the others which runs begin, which have ended and which share the next forward: their planners, memories and
draws follow. After every forward rank 0 hears what each of them committed, and stops if it is not the same.
"""

import contextlib
import itertools
import multiprocessing
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from mezzotint.denoising import denoise
from mezzotint.engine.desk import Ticket
from mezzotint.engine.engine import Engine
from mezzotint.engine.placing import check_places, place
from mezzotint.engine.run import Request, Update
from mezzotint.engine.settings import EngineSettings
from mezzotint.models.parallel import join
from mezzotint.models.transformer import Transformer
from mezzotint.recipe import Recipe


@dataclass(frozen=True)
class Forward:
    """What the other ranks are to do: take up runs, let go of those that have ended, and make one forward for some."""

    begun: tuple[tuple[int, Request], ...]
    ended: tuple[int, ...]
    batch: tuple[int, ...]


@dataclass(frozen=True)
class Denoise:
    """What the other ranks are to do: a run of the plain loop."""

    prompt: tuple[tuple[int, ...], ...]
    recipe: Recipe
    seed: int


class Apart(ConnectionError):
    """The ranks no longer do the same; nothing more can be answered."""


Outcomes = list[list[Update] | Exception]


def decided(outcomes: Outcomes) -> list[Any]:
    """What a forward committed, run by run, to be compared between ranks."""
    return [[(u.step, u.decided, tuple((c.position, c.token) for c in u.accepted)) for u in o] if isinstance(o, list) else str(o) for o in outcomes]


class Rank(Engine):
    """An engine with a share of the model."""

    def __init__(self, settings: EngineSettings, rank: int, port: int):
        self.rank, self.port = rank, port
        super().__init__(settings)

    def _load(self, settings: EngineSettings) -> tuple[Transformer, Any]:
        from mezzotint.generation import load

        device = place(settings.device, self.rank)
        mesh = join(self.rank, settings.tensor_parallel, self.port, device)
        names = ("dtype", "rope_scaling", "mask_id", "block_causal", "weights")
        return load(settings.model, device=device, mesh=mesh, **{name: getattr(settings, name) for name in names})


class Leader(Rank):
    """Rank 0, in the process that asks. Starts the others, and ends them with itself."""

    def __init__(self, settings: EngineSettings):
        refuse(settings)
        self.numbers: dict[Ticket, int] = {}
        self.gone: list[int] = []
        self.counter = itertools.count()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        self.lines: list[Connection] = []
        threads = max(1, torch.get_num_threads() // settings.tensor_parallel)
        for rank in range(1, settings.tensor_parallel):
            here, there = context.Pipe()
            context.Process(target=follow, args=(settings, rank, port, threads, there), daemon=True).start()
            there.close()
            self.lines.append(here)
        torch.set_num_threads(threads)
        super().__init__(settings, 0, port)
        self.hear()

    def say(self, what: Forward | Denoise) -> None:
        for line in self.lines:
            try:
                line.send(what)
            except OSError:
                raise Apart("another rank of this model has ended") from None

    def hear(self) -> list[Any]:
        """What every other rank has to say."""
        try:
            return [line.recv() for line in self.lines]
        except (EOFError, OSError):
            raise Apart("another rank of this model has ended") from None

    def alongside(self, prompt: Sequence[Sequence[int]], recipe: Recipe, seed: int) -> None:
        """Before this rank runs the plain loop on a prompt: the others do so too."""
        self.say(Denoise(tuple(map(tuple, prompt)), recipe, seed))

    def _forward(self, batch: list[Ticket]) -> Outcomes:
        fresh = [ticket for ticket in batch if ticket.run is None]
        self.numbers |= {ticket: next(self.counter) for ticket in fresh}
        begun = tuple((self.numbers[ticket], ticket.request) for ticket in fresh)
        self.say(Forward(begun, tuple(self.gone), tuple(self.numbers[ticket] for ticket in batch)))
        self.gone.clear()
        outcomes = super()._forward(batch)
        mine = decided(outcomes)
        if any(theirs != mine for theirs in self.hear()):
            raise Apart("the ranks of this model have decided differently")
        return outcomes

    def ended(self, ticket: Ticket, reason: str) -> None:
        super().ended(ticket, reason)
        if ticket in self.numbers:
            self.gone.append(self.numbers.pop(ticket))

    def close(self) -> None:
        super().close()
        for line in self.lines:
            line.close()
        leave()


class Follower(Rank):
    """Any other rank: does what it is told until nobody is there to tell it."""

    def obey(self, line: Connection) -> None:
        tickets: dict[int, Ticket] = {}
        line.send("ready")
        while True:
            what = line.recv()
            if isinstance(what, Denoise):
                with contextlib.suppress(ValueError):  # what cannot be run is refused by rank 0 too, which says so
                    deque(denoise(self.model, [torch.tensor(row) for row in what.prompt], what.recipe, seed=what.seed), maxlen=0)
                continue
            for number in what.ended:
                run = tickets.pop(number).run
                if run is not None:
                    run.close()
            tickets |= {number: Ticket(request, 0, 0.0) for number, request in what.begun}
            line.send(decided(self._forward([tickets[number] for number in what.batch])))


def follow(settings: EngineSettings, rank: int, port: int, threads: int, line: Connection) -> None:
    """The life of another rank's process."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; rank 0 decides what it means
    torch.set_num_threads(threads)
    try:
        Follower(settings, rank, port).obey(line)
    except (EOFError, OSError, ValueError):  # rank 0 has ended, or found the same fault in the checkpoint and says so
        pass
    except RuntimeError:
        if line.closed or (parent := multiprocessing.parent_process()) is None or parent.is_alive():
            raise
    leave()


def leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def refuse(settings: EngineSettings) -> None:
    """Raises ValueError for what can be seen to be impossible before any process is started."""
    from mezzotint.models import parallel
    from mezzotint.models.loading import configure, folder_of, read_config
    from mezzotint.models.quantised import scheme_of

    ranks = settings.tensor_parallel
    check_places("tensor_parallel", ranks, "rank", settings.device)
    folder = folder_of(settings.model, weights=False)
    _, config = configure(folder, mask_id=settings.mask_id, block_causal=settings.block_causal)
    parallel.check(config, ranks, weights=settings.weights, scheme=scheme_of(read_config(folder)))
