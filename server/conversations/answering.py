"""Writes answers: the tenant's live model, by the same way to the engine as every other caller.

A conversation that a canary answers stays with it. Limits, the fair queue, usage and the hidden system prompt are those of ``server/chat``.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from server.adapters.schemas import Resolved
from server.chat.schemas import ChatRequest
from server.chat.service import ChatService
from server.conversations import passing_on, service
from server.conversations.schemas import HandoffView
from server.conversations.service import Ask, Caller, Receipt
from server.conversations.widgets import Site
from server.db.models import MessageState
from server.errors import (
    AdapterRefused,
    Conflict,
    EngineRejected,
    Invalid,
    NotFound,
    ServerError,
    StreamBroken,
    TooMany,
    Unavailable,
)
from server.retrieval.schemas import Source
from server.usage.schemas import Usage

log = structlog.get_logger(__name__)

Reason = Literal["stop", "length"]
Trouble = Literal["engine_unavailable", "limit_reached", "message_too_long", "internal"]


class Written(NamedTuple):
    """An answer, why it ended, and the articles to show below it.

    ``handoff``: nothing supports it, and the conversation was passed on to a person. ``offers_person``:
    nothing does, and its visitor is to be offered that.
    """

    text: str
    reason: Reason
    sources: tuple[Source, ...]
    handoff: HandoffView | None
    offers_person: bool


class NoAnswer(StreamBroken):
    """The model ended its answer without a word."""


class _Draft:
    """An answer under way."""

    def __init__(self) -> None:
        self.text = ""
        self.reason: Reason = "stop"
        self.state: MessageState = "failed"  # until it is known to be otherwise
        self.usage: Usage | None = None
        self.model = ""
        self.version: int | None = None
        self.supported: bool | None = None
        self.sources: tuple[Source, ...] = ()
        self.handoff: HandoffView | None = None
        self.needs_person = False
        self.first_token_ms: int | None = None
        self._began = time.monotonic()

    def begin(self, resolved: Resolved, *, base: str) -> None:
        self.version = resolved.version
        self.model = f"{resolved.slug}@{resolved.version}" if resolved.version else base

    def add(self, text: str) -> None:
        if self.first_token_ms is None:
            self.first_token_ms = self._elapsed_ms()
        self.text += text

    def receipt(self) -> Receipt:
        return Receipt(
            model=self.model,
            adapter_version=self.version,
            first_token_ms=self.first_token_ms,
            total_ms=self._elapsed_ms(),
            prompt_tokens=self.usage.prompt_tokens if self.usage else None,
            completion_tokens=self.usage.completion_tokens if self.usage else None,
        )

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self._began) * 1000)


class Answering:
    """Writes the answers of widgets.

    Args:
        chat: the only way to the engine.
        base: the public name of the base, for receipts of what no adapter answered.

    Example:
        written = await answering.write(caller, ask, on_text=send)  # cancelled when the visitor goes
    """

    def __init__(self, chat: ChatService, *, base: str) -> None:
        self._chat = chat
        self._base = base

    async def write(
        self, caller: Caller, ask: Ask, *, on_text: Callable[[str], Awaitable[None]]
    ) -> Written:
        """Generate an answer, giving its parts to ``on_text``; returns all of it.

        However it ends, by cancelling too, what came is stored with its receipt, in a transaction of
        its own (``server/db/write_behind.py``). Where nothing supports the answer, and the tenant wants a
        person then, the same transaction passes the conversation on.

        Raises:
            ServerError: there is no answer, or only a part; ``trouble`` says what kind it is.
        """
        draft = _Draft()
        try:
            await self._generate(caller.site, ask, draft, on_text)
            draft.state = "complete"
        except ServerError:
            raise
        except Exception:
            log.exception("an answer broke off", answer=ask.answer.id)
            raise
        except BaseException:  # the visitor has gone, or stopped it
            draft.state = "stopped"
            raise
        finally:
            await self._store(caller, ask, draft)
        return Written(
            draft.text,
            draft.reason,
            draft.sources,
            handoff=draft.handoff,
            offers_person=draft.needs_person and draft.handoff is None,
        )

    async def _generate(
        self, site: Site, ask: Ask, draft: _Draft, on_text: Callable[[str], Awaitable[None]]
    ) -> None:
        resolved = await self._chat.models.resolve(
            site.tenant.id, site.tenant.slug, key=ask.conversation_id
        )
        draft.begin(resolved, base=self._base)
        request = ChatRequest(system="", messages=ask.history, drop_oldest=True)
        async with self._chat.stream(
            request, resolved, principal=site.principal, answer_id=ask.answer.id
        ) as answer:
            draft.begin(answer.resolved, base=self._base)
            draft.sources = answer.sources
            if answer.grounding is not None:
                draft.supported = answer.grounding.supported
            async for choices in answer:
                for choice in choices:
                    if choice.finish_reason == "length":
                        draft.reason = "length"
                    if text := choice.delta.content:
                        draft.add(text)
                        await on_text(text)
            draft.usage = answer.usage
        if not draft.text.strip():
            raise NoAnswer("The assistant found no words. Ask again in other words.")

    async def _store(self, caller: Caller, ask: Ask, draft: _Draft) -> None:
        tenant = caller.site.tenant
        text, state, receipt = draft.text, draft.state, draft.receipt()
        unsupported = state == "complete" and draft.supported is False
        draft.needs_person = unsupported and tenant.when_unsupported == "needs_person"

        async def work(session: AsyncSession) -> None:
            waits = await service.finish(
                session,
                tenant.id,
                ask,
                text=text,
                state=state,
                receipt=receipt,
                needs_person=draft.needs_person,
            )
            if waits:
                draft.handoff = await passing_on.pass_on_unsupported(
                    session, caller, ask.conversation_id
                )

        await self._chat.write_behind.put(ask.answer.id, work)


def trouble(exc: ServerError) -> tuple[Trouble, str, float | None]:
    """(kind, words for the visitor, seconds until it may work again) of an answer's failure.

    The words tell nothing of what is inside: no limits of the tenant's, no names of models.
    """
    match exc:
        case TooMany():
            words = "The assistant has answered as much as it may for now."
            return "limit_reached", words, exc.retry_after_seconds
        case Invalid(code="context_length_exceeded"):
            return "message_too_long", "The message is too long for this assistant.", None
        case NoAnswer():
            return "internal", exc.message, None
        case Unavailable():
            words = "The assistant cannot answer at the moment."
            return "engine_unavailable", words, exc.retry_after_seconds
        case StreamBroken() | AdapterRefused() | EngineRejected() | Conflict() | NotFound():
            return "engine_unavailable", "The assistant cannot answer at the moment.", None
        case _:
            return "internal", "Something went wrong on our side.", None
