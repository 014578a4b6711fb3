"""Server-sent events that end when the client has gone, or takes too long to read."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import Response


class EventStream(Response):
    """events: what to send, as JSON values; leave: called when nobody reads any more, however that came about."""

    def __init__(self, events: AsyncIterator[dict[str, Any] | str], leave: Callable[[], None], write_seconds: float):
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}, media_type="text/event-stream")
        self.events, self.leave, self.write_seconds = events, leave, write_seconds

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        sending = asyncio.ensure_future(self.send_all(send))
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            self.leave()

    async def send_all(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [h for h in self.raw_headers if h[0] != b"content-length"]})
        async for event in self.events:
            text = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False, separators=(",", ":"))
            body = {"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True}
            await asyncio.wait_for(send(body), self.write_seconds)
        await send({"type": "http.response.body", "body": b""})


async def disconnected(receive: Any) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
