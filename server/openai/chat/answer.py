"""Writes a chat's answer the way OpenAI does: one JSON object, or a stream of chunks.

What goes wrong before the first byte is an HTTP error; after it, an event ``{"error": ...}``, and
the stream ends without ``[DONE]``: that means complete.
"""

import secrets
import time

import msgspec
import structlog
from litestar.types import Receive, Scope, Send

from server.adapters.schemas import Resolved
from server.chat.schemas import ChatRequest, Usage
from server.chat.service import ChatService
from server.errors import ServerError
from server.openai.connection import EventStream, while_connected
from server.responses import failure_of
from server.tenants.keys import Principal

log = structlog.get_logger(__name__)

_encode = msgspec.json.encode


class ChatAnswer:
    """An ASGI response that generates while it is sent, for as long as somebody listens."""

    def __init__(
        self,
        chat: ChatService,
        request: ChatRequest,
        resolved: Resolved,
        *,
        principal: Principal,
        stream: bool,
        include_usage: bool,
    ) -> None:
        self._chat = chat
        self._request = request
        self._resolved = resolved
        self._principal = principal
        self._streams = stream
        self._include_usage = include_usage

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if self._streams:
            events = EventStream(send)
            await while_connected(receive, self._stream(events), beat=events.beat)
        else:
            await while_connected(receive, self._complete(send))

    def _opening(self, kind: str) -> bytes:
        """The beginning of the object, the same for each chunk of an answer."""
        head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": self._resolved.model,
        }
        return _encode(head)[:-1] + b',"choices":'

    async def _complete(self, send: Send) -> None:
        answer = await self._chat.complete(self._request, self._resolved, principal=self._principal)
        body = b"".join(
            (
                self._opening("chat.completion"),
                _encode(answer.choices),
                b',"usage":',
                _encode(_full(answer.usage)),
                b"}",
            )
        )
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _stream(self, events: EventStream) -> None:
        try:
            await self._pass_on(events)
        except ServerError as exc:
            if not events.started:
                raise
            await events.write(_event(failure_of(exc).openai()), last=True)
        except Exception as exc:  # the headers are out: silence is the only alternative
            if not events.started:
                raise
            log.exception("answer broke off")
            await events.write(_event(failure_of(exc).openai()), last=True)

    async def _pass_on(self, events: EventStream) -> None:
        opening = b"data: " + self._opening("chat.completion.chunk")
        closing = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"
        write = events.write
        async with self._chat.stream(
            self._request, self._resolved, principal=self._principal
        ) as answer:
            async for choices in answer:
                await write(opening + _encode(choices) + closing)
            usage = answer.usage
        end = b"data: [DONE]\n\n"
        if self._include_usage and usage is not None:
            end = opening + b'[],"usage":' + _encode(_full(usage)) + b"}\n\n" + end
        await write(end, last=True)


def _full(usage: Usage) -> dict[str, object]:
    """Usage with the details that clients look into, zero where nothing is known."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _event(body: dict[str, object]) -> bytes:
    return b"data: " + _encode(body) + b"\n\n"
