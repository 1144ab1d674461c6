"""Answers that end when their client does: a server-sent event stream, and a watch on the line."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from litestar.types import Receive, Send

WATCH_SECONDS = 5.0
HEARTBEAT_SECONDS = 15.0  # proxies commonly cut a silent line after 30 to 60
STALLED_SECONDS = 60.0  # a client that takes no byte for so long holds a place for nothing
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """Server-sent events on an ASGI connection. Headers go out with the first of them."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._clock = asyncio.get_running_loop().time
        self._sending = False
        self._at = self._clock()
        self.started = False

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send bytes, headers before them when these are the first."""
        self._sending = True
        if not self.started:
            self.started = True
            await self._send(
                {"type": "http.response.start", "status": 200, "headers": list(_HEADERS)}
            )
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})
        self._sending = False
        self._at = self._clock()

    async def beat(self) -> bool:
        """Say that we are still here, when nothing else did; False when nobody listens."""
        silent = self._clock() - self._at
        if self._sending:
            return silent < STALLED_SECONDS
        if silent >= HEARTBEAT_SECONDS:
            await self.write(b": still here\n\n")
        return True


async def while_connected(
    receive: Receive,
    work: Coroutine[Any, Any, None],
    *,
    beat: Callable[[], Awaitable[bool]] | None = None,
) -> None:
    """Do some work and cancel it when the client goes; returns then as well.

    ``receive`` must have given the request's body already. ``beat`` is called every
    ``WATCH_SECONDS``; when it returns False the client counts as gone.

    Raises:
        Exception: what the work raises.
    """

    async def watch() -> None:
        while True:
            try:
                async with asyncio.timeout(WATCH_SECONDS if beat else None):
                    message = await receive()
            except TimeoutError:
                if beat is None or await beat():
                    continue
                break
            if message["type"] == "http.disconnect":
                break
        task.cancel()

    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            watcher = group.create_task(watch())
            task.add_done_callback(lambda _: watcher.cancel())
    except BaseExceptionGroup as exc:
        raise exc.exceptions[0] from None
