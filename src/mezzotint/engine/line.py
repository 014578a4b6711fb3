"""Messages between two processes over a socket. Neither end ever waits for the other to read, so two that speak at once do not stand still."""

import asyncio
import pickle
import socket
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

CHUNK = 2**20
HEAD = 8
"""Bytes of a message's length."""


class Line:
    """One end: pickled values in the order in which they were sent. Both ends are processes of this program.

    A process reads either while an event loop runs (`attach`), or before, with `first`.
    """

    def __init__(self, end: socket.socket):
        end.setblocking(False)
        self.socket = end
        self.loop: asyncio.AbstractEventLoop | None = None
        self.outgoing: deque[memoryview] = deque()
        self.incoming = bytearray()
        self.full = False

    @staticmethod
    def pair() -> "tuple[Line, socket.socket]":
        """This end, and the other one for a process that is about to be started."""
        mine, theirs = socket.socketpair()
        return Line(mine), theirs

    def attach(self, hear: Callable[[], None]) -> None:
        """Have the running event loop call `hear` whenever there is something to `receive`."""
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(self.socket, hear)
        self.flush()

    def detach(self) -> None:
        if self.loop is not None and not self.loop.is_closed() and not self.closed:
            self.loop.remove_reader(self.socket)
            self.loop.remove_writer(self.socket)
        self.loop, self.full = None, False

    @property
    def closed(self) -> bool:
        return self.socket.fileno() == -1

    def close(self) -> None:
        self.detach()
        self.socket.close()

    def send(self, what: Any) -> None:
        """Now as far as it goes, the rest when there is room. What nobody will read is dropped."""
        data = pickle.dumps(what, pickle.HIGHEST_PROTOCOL)
        self.outgoing += (memoryview(len(data).to_bytes(HEAD, "little")), memoryview(data))
        if not self.full:
            self.flush()

    def flush(self) -> None:
        try:
            while self.outgoing:
                sent = self.socket.send(self.outgoing[0])
                self.outgoing[0] = self.outgoing[0][sent:]
                if not self.outgoing[0]:
                    self.outgoing.popleft()
        except BlockingIOError:
            pass
        except OSError:  # the other end has gone, which `receive` will say
            self.outgoing.clear()
        if self.loop is not None and self.full != bool(self.outgoing):
            self.full = bool(self.outgoing)
            if self.full:
                self.loop.add_writer(self.socket, self.flush)
            else:
                self.loop.remove_writer(self.socket)

    def receive(self) -> list[Any]:
        """What has arrived whole. Raises EOFError if the other end has gone."""
        try:
            data = self.socket.recv(CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            raise EOFError from None
        if not data:
            raise EOFError
        self.incoming += data
        found, place = list[Any](), 0
        while len(self.incoming) - place >= HEAD:
            begin = place + HEAD
            end = begin + int.from_bytes(self.incoming[place:begin], "little")
            if len(self.incoming) < end:
                break
            found.append(pickle.loads(bytes(self.incoming[begin:end])))
            place = end
        del self.incoming[:place]
        return found

    def first(self) -> Any:
        """The first message, for which this waits; nothing may follow it before it is answered. Raises EOFError if the other end goes before."""
        while True:
            wait([self.socket])
            if found := self.receive():
                return found[0]
