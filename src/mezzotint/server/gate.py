"""What every request passes first: its key, its size, and how long it takes to arrive; and where its answer is counted."""

import asyncio
import hmac
from collections.abc import Callable
from typing import Any

from mezzotint.server.errors import ApiError
from mezzotint.server.settings import ServerSettings

OPEN = ("/", "/health", "/ready", "/metrics", "/openapi.json")
"""Paths that need no key: they show neither prompts nor answers."""


class Gate:
    """ASGI middleware. The body is read here, whole, so that nothing behind it can be made to wait or to hold more than the limit."""

    def __init__(self, app: Any, settings: ServerSettings, counted: Callable[[str, int], None]):
        self.app, self.settings, self.counted = app, settings, counted

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def count(message: dict) -> None:
            if message["type"] == "http.response.start":
                self.counted(scope["path"], message["status"])
            await send(message)

        await self.pass_on(scope, receive, count)

    async def pass_on(self, scope: dict, receive: Any, send: Any) -> None:
        try:
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
            if scope["path"] not in OPEN:
                self.check_key(headers.get("authorization", ""))
            body = await asyncio.wait_for(self.read(headers, receive), self.settings.read_seconds)
        except TimeoutError:
            await ApiError(408, f"the request took longer than {self.settings.read_seconds:g} s to arrive").response(scope, receive, send)
            return
        except ApiError as error:
            await error.response(scope, receive, send)
            return
        if body is None:
            return

        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> dict:
            return waiting.pop() if waiting else await receive()

        await self.app(scope, replay, send)

    def check_key(self, given: str) -> None:
        keys = self.settings.keys
        if keys and not sum(hmac.compare_digest(given.encode(), f"Bearer {key}".encode()) for key in keys):
            raise ApiError(401, "give a valid API key as 'Authorization: Bearer KEY'", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    async def read(self, headers: dict[str, str], receive: Any) -> bytes | None:
        """The body, None if the client has gone. Raises ApiError beyond the limit, before reading on."""
        limit = self.settings.body
        declared = headers.get("content-length", "")
        too_large = ApiError(413, f"the request is larger than {limit:,} bytes", headers={"Connection": "close"})
        if declared.isdigit() and int(declared) > limit:
            raise too_large
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > limit:
                raise too_large
            if not message.get("more_body", False):
                return bytes(body)
