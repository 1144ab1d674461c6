"""Writes the engine's answer the way OpenAI does: one JSON object, or a stream of chunks.

What goes wrong before the first byte is an HTTP error; after it, an event ``{"error": ...}``, and
the stream ends without ``[DONE]``: that means complete.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
import structlog
from litestar.types import Receive, Scope, Send

from server.api.openai.connection import EventStream, while_connected
from server.api.problems import failure_of
from server.chat.completions import TextChoice
from server.chat.schemas import ChunkChoice
from server.chat.service import StreamedAnswer
from server.db.models import new_id
from server.errors import ServerError
from server.usage.schemas import Usage

log = structlog.get_logger(__name__)

C = TypeVar("C", bound=ChunkChoice | TextChoice)
_encode = msgspec.json.encode


class Answer(Generic[C]):
    """An ASGI response that generates while it is sent, for as long as somebody listens.

    ``prefix`` begins its id; ``whole`` and ``chunk`` are its kinds of object.
    """

    prefix: ClassVar[str]
    whole: ClassVar[str]
    chunk: ClassVar[str]

    def __init__(
        self, model: str, *, stream: bool, include_usage: bool, also: dict[str, Any] | None = None
    ) -> None:
        self.id = f"{self.prefix}{new_id()}"
        self._model = model
        self._streams = stream
        self._include_usage = include_usage
        self._also = also or {}

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if self._streams:
            events = EventStream(send)
            await while_connected(receive, self._stream(events), beat=events.beat)
        else:
            await while_connected(receive, self._complete(send))

    def begin(self) -> AbstractAsyncContextManager[StreamedAnswer[C]]:
        """Begin a streamed answer."""
        raise NotImplementedError

    async def generate(self) -> tuple[Sequence[Any], Usage | None]:
        """An answer in one piece: its choices, and what it used."""
        raise NotImplementedError

    def passing(self, answer: StreamedAnswer[C]) -> AsyncIterator[list[C]]:
        """What each chunk adds to a streamed answer; to look at it on its way."""
        return aiter(answer)

    async def done(self, head: dict[str, Any], usage: dict[str, Any] | None) -> None:
        """What must happen once all is generated, before a client can know that it is."""

    def _head(self, kind: str) -> dict[str, Any]:
        """The beginning of the object, the same for each chunk of an answer."""
        return {
            "id": self.id,
            "object": kind,
            "created": int(time.time()),
            "model": self._model,
            **self._also,
        }

    async def _complete(self, send: Send) -> None:
        choices, usage = await self.generate()
        head, counted = self._head(self.whole), _full(usage)
        await self.done(head, counted)
        body = _encode({**head, "choices": choices, "usage": counted})
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
        head = self._head(self.chunk)
        opening = b"data: " + _encode(head)[:-1] + b',"choices":'
        closing = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"
        write = events.write
        async with self.begin() as answer:
            async for choices in self.passing(answer):
                await write(opening + _encode(choices) + closing)
            usage = answer.usage
        counted = _full(usage)
        await self.done(head, counted)
        end = b"data: [DONE]\n\n"
        if self._include_usage and counted is not None:
            end = opening + b'[],"usage":' + _encode(counted) + b"}\n\n" + end
        await write(end, last=True)


def _full(usage: Usage | None) -> dict[str, Any] | None:
    """Usage with the details that clients look into, zero where nothing is known."""
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _event(body: dict[str, object]) -> bytes:
    return b"data: " + _encode(body) + b"\n\n"
