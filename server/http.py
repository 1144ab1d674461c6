"""HTTP/1.1 as uvicorn speaks it, with bounds on what a client may send and on how slowly.

uvicorn waits for the rest of a request for as long as it takes, and reads heads of any length, in
quadratic time: one connection could stop the server for everybody (a head of 150 MB: 45 s).
"""

import asyncio
import resource
from http import HTTPStatus
from typing import Any, Literal

import msgspec
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = structlog.get_logger(__name__)

MAX_HEAD_BYTES = 64 << 10  # as uvicorn's other implementation, over h11
# Apache's mod_reqtimeout by default: "header=20-40,MinRate=500 body=20,MinRate=500"
PATIENCE_SECONDS = 20.0
BYTES_PER_SECOND = 500


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
