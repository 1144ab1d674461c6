"""One question to several models at the same time, so that their answers can be read side by side."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Literal

import msgspec

from server.auth.keys import Principal
from server.chat.schemas import ChatMessage, ChatRequest
from server.chat.service import ChatService
from server.errors import ServerError

Kind = Literal["base", "live", "cand"]


class Voice(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asked: the base, what is live, or a candidate. ``model`` is a name of the tenant's.

    ``system``: what the base is told before, which versions know by themselves.
    """

    kind: Kind
    model: str
    system: str = ""


class Piece(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What comes of one voice next: text, and at last an ``end``, with what went wrong in words.

    ``cut``: the answer reached its greatest length.
    """

    kind: Kind
    text: str = ""
    error: str = ""
    cut: bool = False
    end: bool = False


async def ask(
    chat: ChatService, voices: Sequence[Voice], question: str, *, principal: Principal
) -> AsyncGenerator[Piece]:
    """Put a question to all of ``voices``; each counts as a request of the principal's tenant.

    One that fails does not end the others. Closing the generator ends what is still being written.
    """
    pieces: asyncio.Queue[Piece] = asyncio.Queue()
    tasks = [
        asyncio.create_task(  # noqa: TID251 - a group cannot be left by closing a generator
            _answer(chat, voice, question, principal=principal, put=pieces.put_nowait)
        )
        for voice in voices
    ]
    going = len(tasks)
    try:
        while going:
            piece = await pieces.get()
            going -= piece.end
            yield piece
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(
    chat: ChatService,
    voice: Voice,
    question: str,
    *,
    principal: Principal,
    put: Callable[[Piece], None],
) -> None:
    error, cut = "", False
    request = ChatRequest(
        system=voice.system, messages=(ChatMessage(role="user", content=question),)
    )
    try:
        resolved = await chat.models.resolve(principal.require_tenant(), voice.model)
        async with chat.stream(request, resolved, principal=principal) as answer:
            async for choices in answer:
                cut = any(choice.finish_reason == "length" for choice in choices)
                if text := "".join(choice.delta.content or "" for choice in choices):
                    put(Piece(kind=voice.kind, text=text))
    except ServerError as exc:
        error = exc.message
    finally:
        put(Piece(kind=voice.kind, error=error, cut=cut, end=True))
