"""An answer as server-sent events, for as long as its visitor listens."""

from http import HTTPStatus
from typing import Any

import msgspec
from litestar.types import Receive, Scope, Send

from server.api.openai.streaming import EventStream, while_connected
from server.api.problems import Failure, request_id
from server.conversations.answering import Answering, trouble
from server.conversations.service import Ask, Caller, Repeated, Silent
from server.errors import ServerError

_INTERNAL = "Something went wrong on our side."


class AnswerStream:
    """An ASGI response: ``accepted``, then ``delta`` for each part, then ``done`` or ``error``.

    A visitor who closes the connection stops the answer; what came is stored as stopped. ``handoff`` of an
    end: a person is to be offered; ``passed_on`` of ``done`` is the hand-off that was made.
    """

    def __init__(self, answering: Answering, caller: Caller, posted: Ask | Repeated) -> None:
        self._answering = answering
        self._caller = caller
        self._posted = posted

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, whose body must have been read."""
        events = EventStream(send)
        await while_connected(receive, self._write(events), beat=events.beat)

    async def _write(self, events: EventStream) -> None:
        posted = self._posted
        await events.write(_event("accepted", message=posted.message, answer_id=posted.answer.id))
        if isinstance(posted, Repeated):
            await events.write(_event("delta", text=posted.answer.text))
            await events.write(_event("done", message=posted.answer, reason="stop"), last=True)
            return

        async def on_text(text: str) -> None:
            await events.write(_event("delta", text=text))

        try:
            written = await self._answering.write(self._caller, posted, on_text=on_text)
        except ServerError as exc:
            code, words, wait = trouble(exc)
            failed = _event("error", code=code, message=words, retry_after=wait, handoff=True)
            await events.write(failed, last=True)
        except Exception:  # noqa: BLE001 - it is logged; the headers are out, and silence helps nobody
            failed = _event(
                "error", code="internal", message=_INTERNAL, retry_after=None, handoff=True
            )
            await events.write(failed, last=True)
        else:
            message = msgspec.structs.replace(
                posted.answer,
                text=written.text,
                state="complete",
                sources=written.sources or msgspec.UNSET,
            )
            more: dict[str, Any] = {"handoff": True} if written.offers_person else {}
            if written.handoff is not None:
                more = {"passed_on": written.handoff}
            done = _event("done", message=message, reason=written.reason, **more)
            await events.write(done, last=True)


class HandedOver:
    """An ASGI response: the message was stored, and a person answers it. A problem with both in it."""

    def __init__(self, posted: Silent) -> None:
        self._posted = posted

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer the request."""
        message, handoff = self._posted
        text = f"A person has this conversation (number {handoff.number}) and reads your message."
        failure = Failure(HTTPStatus.CONFLICT, text, "conversation_handed_over", None, {})
        problem = failure.problem(request_id(scope))
        body = msgspec.json.encode(problem | {"handoff": handoff, "message": message})
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": failure.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _event(name: str, **data: Any) -> bytes:  # noqa: ANN401 - any JSON
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))
