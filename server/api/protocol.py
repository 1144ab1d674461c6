"""HTTP/1.1 as uvicorn speaks it, with bounds on what clients may send, how slowly, and how many.

uvicorn waits for the rest of a request without a bound, and reads heads of any length in quadratic
time: one connection could stop the server for all (a head of 150 MB: 45 s).

Each connection takes a file descriptor, and a process has a bounded number of them. The kernel gives
the lowest that is free, so the number of a new connection shows how many are left. From the last
``_reserve()`` on, requests are answered 503. Half of these are never given to a connection, because
requests under way need some too. Meanwhile clients wait in the kernel's queue, and none is dropped.

uvicorn has no option for any of this, so what is here builds on parts of uvicorn 0.54 that it does not
document and may change in any release (``tests/server/api/test_protocol.py`` has them all, and fails
with another release until it has been looked at):

- of ``HttpToolsProtocol``: ``app``, ``loop``, ``transport``, ``client``, ``flow.read_paused``, ``cycle``
  with its ``response_started`` and ``response_complete``, and the callbacks of asyncio and httptools
  that are overridden. Options for the longest head (``h11_max_incomplete_event_size`` is one, but for
  the slower parser alone) and for the longest wait for a request would replace ``BoundedProtocol``.
- of ``Server``: ``startup``, ``servers``, ``server_state``, ``lifespan.state``, and of its configuration
  ``http_protocol_class``. ``limit_concurrency`` answers 503 too, but in text and for a number that is
  fixed, and what has no descriptor is still dropped. An option that stops accepting while there are
  so many connections, and one for the answer to the others, would replace ``BoundedServer``.
"""

import asyncio
import errno
import resource
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Literal

import msgspec
import structlog
import uvicorn
from litestar.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.api.problems import error_body, failure_of, request_id
from server.errors import Unavailable

log = structlog.get_logger(__name__)

MAX_HEAD_BYTES = 64 << 10  # as uvicorn's other implementation, over h11
# Apache's mod_reqtimeout by default: "header=20-40,MinRate=500 body=20,MinRate=500"
PATIENCE_SECONDS = 20.0
BYTES_PER_SECOND = 500
MAX_RESERVED = 64
CROWDED_SECONDS = 1.0  # what a request may take that will be answered 503
ACCEPTED_AT_ONCE = 64  # then others get their turn
PAUSE_SECONDS = 0.02
_NO_MORE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A head that is too long is refused with 431, a request that stalls with 408.

    A request may take ``patience_seconds``, and a second more for each ``BYTES_PER_SECOND`` that
    came; time in which the server itself does not read is not counted. It is looked at every
    ``patience_seconds``, so a connection lasts at most twice as long.
    """

    patience_seconds = PATIENCE_SECONDS

    _part: Literal["head", "body"] | None = "head"  # what is expected of the client
    _received = 0
    _since = 0.0
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        if _descriptors_left(transport.get_extra_info("socket")) < _reserve():
            self.app = _turn_away
            self.patience_seconds = min(self.patience_seconds, CROWDED_SECONDS)
        self._expect("head")
        self._watch = self.loop.call_later(self.patience_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some of a request."""
        if self._part is None:
            self._expect("head")
        self._received += len(data)
        super().data_received(data)
        if self._part == "head" and self._received > MAX_HEAD_BYTES:
            self._refuse(431, f"The request's head has more than {MAX_HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        """The body follows."""
        self._expect("body")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """It is the server's turn."""
        self._expect(None)
        super().on_message_complete()

    def _expect(self, part: Literal["head", "body"] | None) -> None:
        self._part, self._received, self._since = part, 0, self.loop.time()

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        left = self.patience_seconds
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.flow.read_paused or (answering and self._part == "head"):
            self._expect(self._part)  # it is not the client that is slow
        elif self._part is not None:
            left += self._since + self._received / BYTES_PER_SECOND - self.loop.time()
            if left <= 0:
                self._refuse(408, "The rest of the request did not come in time.")
                return
        self._watch = self.loop.call_later(min(left, self.patience_seconds), self._look)

    def _refuse(self, status: int, message: str) -> None:
        """Hang up; say why where that can only be taken for the answer to this request."""
        if self._part == "head":
            waiting = self._received > 0 and (self.cycle is None or self.cycle.response_complete)
        else:
            waiting = not self.cycle.response_started
        if waiting and not self.transport.is_closing():
            log.info("request refused", status=status, client=self.client and self.client[0])
            self.transport.write(_answer(status, message))
        self.transport.close()


class BoundedServer(uvicorn.Server):
    """uvicorn, which accepts connections only while there are descriptors for them.

    Its own way to accept, the event loop's, closes those for which there is none, unanswered.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen on ``sockets``."""
        await super().startup(sockets=[])
        config = self.config

        def protocol() -> asyncio.Protocol:
            kind: Callable[..., asyncio.Protocol] = config.http_protocol_class
            return kind(
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )

        for listening in sockets or []:
            listening.listen(config.backlog)
            self.servers.append(_Listener(listening, protocol))  # type: ignore[arg-type]


class _Listener:
    """Accepts one socket's connections; as much of ``asyncio.Server`` as uvicorn uses."""

    def __init__(self, listening: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        self.sockets = [listening]
        self._socket = listening
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[Any]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._go_on()

    def close(self) -> None:
        """Accept no more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)

    async def wait_closed(self) -> None:
        """Those that were accepted are with the protocol by then."""
        if self._opening:
            await asyncio.wait(self._opening)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket, self._accept)

    def _wait(self) -> None:
        self._loop.remove_reader(self._socket)
        self._pause = self._loop.call_later(PAUSE_SECONDS, self._go_on)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno not in _NO_MORE:
                    raise
                log.warning("no descriptor for a connection", reason=exc.strerror)
                self._wait()
                return
            connection.setblocking(False)
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opening = self._loop.create_task(self._open(connection))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
            if _descriptors_left(connection) < _reserve() // 2:
                self._wait()
                return

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError as exc:  # it has gone already
            log.info("connection was not opened", reason=str(exc))
            connection.close()


async def _turn_away(scope: Scope, _receive: Receive, send: Send) -> None:
    """The application of connections that are too many."""
    failure = failure_of(
        Unavailable(
            "The server has too many connections open. Try again in a moment.",
            retry_after_seconds=1.0,
            code="too_many_connections",
        )
    )
    instance = request_id(scope)
    content, media_type = error_body(failure, scope["path"], instance)
    body = msgspec.json.encode(content)
    headers = {
        **failure.headers,
        "x-request-id": instance,
        "content-type": media_type,
        "content-length": str(len(body)),
        "connection": "close",
    }
    await send(
        {
            "type": "http.response.start",
            "status": failure.status,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _descriptors_left(newest: socket.socket) -> int:
    """How many descriptors are left above that of the newest connection."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft - newest.fileno()


def _reserve() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_RESERVED if soft == resource.RLIM_INFINITY else min(MAX_RESERVED, soft // 4)


def _answer(status: int, message: str) -> bytes:
    code = HTTPStatus(status).phrase.lower().replace(" ", "_")
    error: dict[str, Any] = {"message": message, "type": "invalid_request_error"}
    body = msgspec.json.encode({"error": {**error, "param": None, "code": code}})
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def raise_file_limit() -> int:
    """Allow this process and its children as many open files as it may have; returns how many.

    Each connection is one, and the usual 1,024 are soon used up.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
