"""HEAD wherever GET is: the same answer without its body (RFC 9110, 9.3.2)."""

from typing import cast

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.types import (
    HTTPReceiveMessage,
    HTTPScope,
    LifeSpanReceive,
    LifeSpanScope,
    LifeSpanSend,
    Message,
    Receive,
    Scope,
    Send,
)


class Application(Litestar):
    """Litestar, which has HEAD only where a handler names it."""

    async def __call__(
        self,
        scope: Scope | LifeSpanScope,
        receive: Receive | LifeSpanReceive,
        send: Send | LifeSpanSend,
    ) -> None:
        """Answer; a HEAD is handled as GET, and its handler stopped once the headers are out."""
        if scope["type"] == ScopeType.HTTP and scope.get("method") == "HEAD":
            answer = _WithoutBody(cast("Receive", receive), cast("Send", send))
            # a copy: the server below still sees a HEAD, and waits for no body
            as_get = cast("HTTPScope", {**scope, "method": "GET"})
            await super().__call__(as_get, answer.receive, answer.send)
        else:
            await super().__call__(scope, receive, send)


class _WithoutBody:
    """A connection whose client gets the headers of the answer, and nothing after them."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._done = False

    async def receive(self) -> HTTPReceiveMessage:
        if self._done:  # a stream stops, since its client is gone
            return {"type": "http.disconnect"}
        message: HTTPReceiveMessage = await self._receive()  # type: ignore[assignment]
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            self._done = True
