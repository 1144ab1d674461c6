"""Answers that are written while they are generated, and end when their client does.

An answer is one JSON object, or a stream of server-sent events. What goes wrong before the first
byte is an HTTP error; after it, an event ``{"error": ...}``, and the stream ends without ``[DONE]``,
which means complete.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
import structlog
from litestar.types import Receive, Scope, Send

from server.adapters.schemas import Resolved
from server.api.problems import failure_of
from server.auth.keys import Principal
from server.chat.completions import TextChoice, TextRequest
from server.chat.schemas import ChatRequest, ChunkChoice
from server.chat.service import ChatService, StreamedAnswer
from server.db.models import new_id
from server.errors import ServerError
from server.usage.schemas import Usage

log = structlog.get_logger(__name__)

R = TypeVar("R", bound=ChatRequest | TextRequest)
C = TypeVar("C", bound=ChunkChoice | TextChoice)
_encode = msgspec.json.encode

WATCH_SECONDS = 5.0
HEARTBEAT_SECONDS = 15.0  # proxies commonly cut a silent line after 30 to 60
STALLED_SECONDS = 60.0  # a client that takes no byte for this long is gone
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
        """Send a comment where nothing was sent for long; False when the client reads nothing."""
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
    """Do some work, and cancel it when the client goes; returns then as well.

    Args:
        receive: ASGI's; it must have given the request's body already.
        work: writes the answer.
        beat: called every ``WATCH_SECONDS``; the client is gone when it returns False.

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


async def send_json(send: Send, body: bytes) -> None:
    """A whole answer with status 200."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class Answer(ABC, Generic[R, C]):
    """An ASGI response that is generated while it is sent, for as long as its client is there.

    ``prefix`` begins its id; ``whole`` and ``chunk`` are the names of its objects; ``also`` are
    fields of the object beside the answer's own. ``supported`` is ours: whether something supports the
    answer, absent where nothing was looked up.
    """

    prefix: ClassVar[str]
    whole: ClassVar[str]
    chunk: ClassVar[str]

    def __init__(
        self,
        chat: ChatService,
        request: R,
        resolved: Resolved,
        *,
        principal: Principal,
        stream: bool,
        include_usage: bool,
        also: dict[str, Any] | None = None,
    ) -> None:
        self.id = f"{self.prefix}{new_id()}"
        self._chat = chat
        self._request = request
        self._resolved = resolved
        self._principal = principal
        self._streams = stream
        self._include_usage = include_usage
        self._also = also or {}
        self._supported: bool | None = None

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if self._streams:
            events = EventStream(send)
            await while_connected(receive, self._stream(events), beat=events.beat)
        else:
            await while_connected(receive, self._complete(send))

    @abstractmethod
    def begin(self) -> AbstractAsyncContextManager[StreamedAnswer[C]]:
        """Begin a streamed answer."""

    @abstractmethod
    async def generate(self) -> tuple[Sequence[Any], Usage | None]:
        """An answer in one piece: its choices, and what it used."""

    def chunks(self, answer: StreamedAnswer[C]) -> AsyncIterator[list[C]]:
        """What each chunk adds to a streamed answer; a subclass may look at it on its way."""
        return aiter(answer)

    async def done(self, head: dict[str, Any], usage: dict[str, Any] | None) -> None:
        """What must happen when all is generated, before the client can know that it is."""

    def _head(self, kind: str) -> dict[str, Any]:
        """The beginning of the object, the same for each chunk of an answer."""
        return {
            "id": self.id,
            "object": kind,
            "created": int(time.time()),
            "model": self._resolved.model,
            **self._also,
            **({} if self._supported is None else {"supported": self._supported}),
        }

    async def _complete(self, send: Send) -> None:
        choices, usage = await self.generate()
        head, counted = self._head(self.whole), _usage_object(usage)
        await self.done(head, counted)
        body = _encode({**head, "choices": choices, "usage": counted})
        await send_json(send, body)

    async def _stream(self, events: EventStream) -> None:
        try:
            await self._write_events(events)
        except ServerError as exc:
            if not events.started:
                raise
            await events.write(_event(failure_of(exc).openai()), last=True)
        except Exception as exc:  # the headers are out: silence is the only alternative
            if not events.started:
                raise
            log.exception("answer broke off")
            await events.write(_event(failure_of(exc).openai()), last=True)

    async def _write_events(self, events: EventStream) -> None:
        closing = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"
        write = events.write
        async with self.begin() as answer:
            self._supported = answer.supported
            head = self._head(self.chunk)
            opening = b"data: " + _encode(head)[:-1] + b',"choices":'
            async for choices in self.chunks(answer):
                await write(opening + _encode(choices) + closing)
            usage = answer.usage
        counted = _usage_object(usage)
        await self.done(head, counted)
        end = b"data: [DONE]\n\n"
        if self._include_usage and counted is not None:
            end = opening + b'[],"usage":' + _encode(counted) + b"}\n\n" + end
        await write(end, last=True)


def _usage_object(usage: Usage | None) -> dict[str, Any] | None:
    """OpenAI's object of the usage, with the details that clients read; zero where unknown."""
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
