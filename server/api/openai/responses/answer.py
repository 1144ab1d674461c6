"""Writes a response the way OpenAI does: one JSON object, or a stream of numbered events.

What goes wrong before the first byte is an HTTP error; after it, the events ``error`` and
``response.failed``. A response that is to be kept is kept before its client can know that it is
done, unless the database is locked: then as soon as that answers.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog
from litestar.types import Receive, Scope, Send
from sqlalchemy.ext.asyncio import AsyncSession

from server.adapters.schemas import Resolved
from server.api.openai.responses.draft import Draft
from server.api.openai.responses.schemas import (
    Incomplete,
    ResponseFailure,
    ResponseObject,
    ResponseUsage,
)
from server.api.openai.streaming import EventStream, send_json, while_connected
from server.api.problems import failure_of
from server.auth.keys import Principal
from server.chat.schemas import (
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    FunctionDelta,
    ToolCallDelta,
)
from server.chat.service import ChatService
from server.errors import Invalid, ServerError
from server.responses import service
from server.responses.items import Item
from server.usage.schemas import Usage

log = structlog.get_logger(__name__)

_encode = msgspec.json.encode
_replace = msgspec.structs.replace


class ResponseAnswer:
    """An ASGI response that is generated while it is sent, for as long as its client is there.

    ``opening`` is the response as it begins, ``items`` its own input, ``before`` the ids of the
    responses that it continues.
    """

    def __init__(
        self,
        chat: ChatService,
        request: ChatRequest,
        resolved: Resolved,
        *,
        principal: Principal,
        opening: ResponseObject,
        items: Sequence[Item],
        before: Sequence[str],
        stream: bool,
    ) -> None:
        self._chat = chat
        self._request = request
        self._resolved = resolved
        self._principal = principal
        self._opening = opening
        self._items = items
        self._before = before
        self._streams = stream
        self._draft = Draft(opening.id.removeprefix(service.PREFIX), first=len(items))

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            if self._streams:
                events = EventStream(send)
                await while_connected(receive, self._stream(events), beat=events.beat)
            else:
                await while_connected(receive, self._complete(send))
        except Invalid as exc:
            if exc.param == "messages":
                exc.param = "input"
            raise

    async def _complete(self, send: Send) -> None:
        answer = await self._chat.complete(
            self._request,
            self._resolved,
            principal=self._principal,
            answer_id=self._opening.id,
        )
        self._mark(supported=answer.supported)
        for _ in self._draft.add(_as_chunk(answer.choices[0])):
            pass
        for _ in self._draft.end():
            pass
        done = self._done(answer.usage)
        await self._keep(done)
        body = _encode(done)
        await send_json(send, body)

    async def _stream(self, events: EventStream) -> None:
        event = _numbered()
        try:
            done = await self._write(events, event)
            await self._keep(done)
        except Exception as exc:  # once the headers are out, silence is the only alternative
            if not events.started:
                raise
            if not isinstance(exc, ServerError):
                log.exception("response broke off")
            await self._fail(exc, events, event)
        else:
            await events.write(event(f"response.{done.status}", {"response": done}), last=True)

    async def _write(
        self, events: EventStream, event: Callable[[str, dict[str, Any]], bytes]
    ) -> ResponseObject:
        write, draft = events.write, self._draft
        async with self._chat.stream(
            self._request,
            self._resolved,
            principal=self._principal,
            answer_id=self._opening.id,
        ) as answer:
            self._mark(supported=answer.supported)
            for kind in ("response.created", "response.in_progress"):
                await write(event(kind, {"response": self._opening}))
            async for choices in answer:
                for choice in choices:
                    for made in draft.add(choice):
                        await write(event(*made))
            for made in draft.end():
                await write(event(*made))
            return self._done(answer.usage)

    async def _fail(
        self, exc: Exception, events: EventStream, event: Callable[[str, dict[str, Any]], bytes]
    ) -> None:
        failure = failure_of(exc)
        fields = {"code": failure.code, "message": failure.message, "param": failure.param}
        await events.write(event("error", fields))
        failed = _replace(
            self._opening,
            status="failed",
            error=ResponseFailure(code="server_error", message=failure.message),
            output=self._draft.broken(),
        )
        try:
            await self._keep(failed)
        except Exception:
            log.exception("a response that failed was not kept")
        await events.write(event("response.failed", {"response": failed}), last=True)

    def _mark(self, *, supported: bool | None) -> None:
        """Say whether something supports the answer; nothing where that was not looked up."""
        if supported is not None:
            self._opening = _replace(self._opening, supported=supported)

    def _done(self, usage: Usage | None) -> ResponseObject:
        """The response with everything that was generated."""
        incomplete = None
        if self._draft.incomplete:
            by_length = self._draft.finish_reason == "length"
            incomplete = Incomplete(reason="max_output_tokens" if by_length else "content_filter")
        return _replace(
            self._opening,
            status="incomplete" if incomplete else "completed",
            completed_at=None if incomplete else int(time.time()),
            incomplete_details=incomplete,
            output=self._draft.output,
            usage=_shown(usage) if usage else None,
        )

    async def _keep(self, done: ResponseObject) -> None:
        if not done.store:
            return
        tenant_id = self._resolved.tenant_id

        async def work(session: AsyncSession) -> None:
            await service.keep(
                session,
                tenant_id,
                done.id,
                answer=msgspec.to_builtins(done),
                items=self._items,
                before=self._before,
            )

        await self._chat.write_behind.put(done.id, work)


def _numbered() -> Callable[[str, dict[str, Any]], bytes]:
    """Makes events and numbers them, from 0."""
    number = -1

    def event(kind: str, fields: dict[str, Any]) -> bytes:
        nonlocal number
        number += 1
        data = _encode({"type": kind, "sequence_number": number, **fields})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    return event


def _as_chunk(choice: Choice) -> ChunkChoice:
    """An answer in one piece as a stream of one chunk."""
    message = choice.message
    calls = [
        ToolCallDelta(
            index=index,
            id=call.id,
            function=FunctionDelta(name=call.function.name, arguments=call.function.arguments),
        )
        for index, call in enumerate(message.tool_calls or ())
    ]
    return ChunkChoice(
        index=0,
        delta=Delta(
            content=message.content,
            tool_calls=calls or None,
            annotations=message.annotations or None,
        ),
        logprobs=choice.logprobs,
        finish_reason=choice.finish_reason,
    )


def _shown(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details={"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        output_tokens=usage.completion_tokens,
        output_tokens_details={"reasoning_tokens": 0},
        total_tokens=usage.total_tokens,
    )
