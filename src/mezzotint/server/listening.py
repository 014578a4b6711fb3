"""The HTTP server around the application: what it limits before a request is whole, and how it ends."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from mezzotint.server.settings import ServerSettings

KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than clients wait before they ask again, so that none asks while it is being closed."""


def listening_config(app: FastAPI, settings: ServerSettings, **rest: Any) -> uvicorn.Config:
    """h11 refuses headers beyond 64 KiB; nothing here speaks WebSocket. After the drain come a few seconds to send what it ended with."""
    return uvicorn.Config(
        app,
        http=patient(settings.read_seconds),
        ws="none",
        timeout_graceful_shutdown=int(settings.drain_seconds) + 5,
        timeout_keep_alive=KEEP_ALIVE,
        **rest,
    )


def patient(seconds: float) -> type[H11Protocol]:
    """The protocol of connections that are closed when the headers of a request take longer. Its body is timed by `Gate`."""

    class Patient(H11Protocol):
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:  # uvloop has types of its own
            super().connection_made(transport)
            self.timer = self.loop.call_later(seconds, self.close_late)

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.watch()

        def watch(self) -> None:
            if not self.late:
                self.stop_timer()
            elif self.timer is None:
                self.timer = self.loop.call_later(seconds, self.close_late)

        @property
        def late(self) -> bool:
            """Whether a request has begun to arrive and its headers are not whole."""
            return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

        def stop_timer(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def close_late(self) -> None:
            self.timer = None
            self.transport.close()

    return Patient


class Server(uvicorn.Server):
    """ready: called once requests are taken."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None] = lambda: None):
        super().__init__(config)
        self.ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """The engine drains at once: the application is told only when every answer has been sent, and would wait for those that never end."""
        service = self.config.app.state.service  # type: ignore[union-attr]
        draining = asyncio.create_task(service.engine.drain(service.settings.drain_seconds))
        await super().shutdown(sockets)
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
