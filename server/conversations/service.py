"""Conversations: messages in, answers out, opinions, and what visitors see of it all.

A message and the row of its answer are written together, before anything is generated; the answer's
text is written when it ends, however it ends. The transaction is the caller's.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from server.chat.schemas import ChatMessage
from server.conversations import budgets, handoffs, views, visitors
from server.conversations.schemas import (
    ConversationView,
    HandoffView,
    MessageRequest,
    MessageView,
    OpinionRequest,
)
from server.conversations.tokens import Session
from server.conversations.widgets import Site
from server.db.models import (
    CONTEXT_MESSAGES,
    LiveConversation,
    LiveMessage,
    MessageState,
    Visitor,
    now,
)
from server.db.scope import of_tenant
from server.errors import Conflict, Invalid, NotFound
from server.retrieval import receipts
from server.retrieval.schemas import Source

SHOWN = 100  # messages that a visitor sees again
TOPIC_LENGTH = 200
# an answer that is written for longer may be tried anew: its server may be gone
ABANDONED = timedelta(minutes=2)


class Caller(NamedTuple):
    """Who asks: a session of a widget's visitor, and a pseudonym of their address."""

    site: Site
    session: Session
    address: str


class Ask(NamedTuple):
    """A message was stored, and this is to be answered."""

    conversation_id: str
    message: MessageView
    answer: MessageView
    attempt: int
    history: tuple[ChatMessage, ...]


class Repeated(NamedTuple):
    """A message had been stored and answered before."""

    message: MessageView
    answer: MessageView


class Silent(NamedTuple):
    """A message was stored for the person who has the conversation now."""

    message: MessageView
    handoff: HandoffView


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer came about; what is not known is None."""

    model: str
    adapter_version: int | None
    first_token_ms: int | None
    total_ms: int
    prompt_tokens: int | None
    completion_tokens: int | None


async def current(session: AsyncSession, caller: Caller) -> ConversationView | None:
    """The caller's last conversation.

    Raises:
        Unauthenticated: the caller has signed out since.
    """
    visitor = await visitors.of_session(session, caller.site.tenant.id, caller.session)
    return await of_visitor(session, caller.site, visitor)


async def of_visitor(
    session: AsyncSession, site: Site, visitor: Visitor | None
) -> ConversationView | None:
    """A visitor's last conversation."""
    if visitor is None:
        return None
    conversation = await find(session, visitor)
    return None if conversation is None else await view(session, site, conversation)


async def find(
    session: AsyncSession, visitor: Visitor, *, lock: bool = False
) -> LiveConversation | None:
    """The row of a visitor's last conversation."""
    query = of_tenant(visitor.tenant_id).select(LiveConversation)
    query = query.where(LiveConversation.visitor_id == visitor.id).limit(1)
    query = query.order_by(LiveConversation.last_at.desc(), LiveConversation.id.desc())
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    return await session.scalar(query)


async def view(
    session: AsyncSession, site: Site, conversation: LiveConversation
) -> ConversationView:
    """A conversation as its visitor sees it."""
    rows = await messages(session, conversation, limit=SHOWN)
    sources = await _sources(session, site, rows)
    return ConversationView(
        id=conversation.id,
        state=conversation.state,
        messages=[views.of_message(row, sources=sources.get(row.id, ())) for row in rows],
        handoff=await handoffs.latest(session, conversation),
    )


async def _sources(
    session: AsyncSession, site: Site, rows: Sequence[LiveMessage]
) -> dict[str, tuple[Source, ...]]:
    """The articles to show below answers, by the answer's id; none where the tenant shows none."""
    answers = [row.id for row in rows if row.role == "assistant" and row.state == "complete"]
    if not answers or not site.tenant.show_sources:
        return {}
    return await receipts.sources_of_answers(session, site.tenant.id, answers)


async def messages(
    session: AsyncSession, conversation: LiveConversation, *, limit: int, until: int | None = None
) -> list[LiveMessage]:
    """The last messages, oldest first; with ``until`` none after that number."""
    query = of_tenant(conversation.tenant_id).select(LiveMessage)
    query = query.where(LiveMessage.conversation_id == conversation.id)
    if until is not None:
        query = query.where(LiveMessage.seq <= until)
    rows = await session.scalars(query.order_by(LiveMessage.seq.desc()).limit(limit))
    return list(rows)[::-1]


async def post(
    session: AsyncSession, caller: Caller, request: MessageRequest
) -> Ask | Repeated | Silent:
    """Store a message, and the row of its answer; both exactly once for a ``client_id``.

    A new message stops the answer before it, if that is still being written.

    Raises:
        Unauthenticated: the caller has signed out since.
        Invalid: there is no text.
        TooMany: the visitor or their address has sent too many.
        Conflict: the same message is being answered at this moment.
    """
    text = request.text.strip()
    if not text:
        raise Invalid("The message has no text.", param="text")
    _, conversation = await begin(session, caller, topic=text)
    known = await _by_client_id(session, conversation, request.client_id)
    if known is not None:
        return await _again(session, caller, conversation, known)
    await _spend(session, caller)
    message = await append(
        session, conversation, role="visitor", text=text, client_id=request.client_id
    )
    if conversation.state == "handed_over":
        return Silent(views.of_message(message), await handoffs.required(session, conversation))
    await stop_writing(session, conversation)
    answer = await append(
        session, conversation, role="assistant", state="writing", reply_to=message.id
    )
    return await _ask(session, conversation, message, answer)


async def begin(
    session: AsyncSession, caller: Caller, *, topic: str
) -> tuple[Visitor, LiveConversation]:
    """The caller's rows, locked; made where there are none yet.

    Raises:
        Unauthenticated: the caller has signed out since.
    """
    tenant_id, claims = caller.site.tenant.id, caller.session
    visitor = await visitors.of_session(session, tenant_id, claims, lock=True)
    if visitor is None:
        visitor = await visitors.make_anonymous(session, tenant_id, str(claims.tok))
    conversation = await find(session, visitor, lock=True)
    if conversation is None:
        conversation = LiveConversation(
            tenant_id=tenant_id,
            visitor_id=visitor.id,
            topic=topic[:TOPIC_LENGTH],
            message_count=0,
            last_at=now(),
        )
        session.add(conversation)
        await session.flush()
    return visitor, conversation


async def append(
    session: AsyncSession,
    conversation: LiveConversation,
    **fields: Any,  # noqa: ANN401 - columns
) -> LiveMessage:
    """Add a message at the end of a conversation that the caller has locked."""
    conversation.message_count += 1
    conversation.last_at = now()
    message = LiveMessage(
        tenant_id=conversation.tenant_id,
        conversation_id=conversation.id,
        seq=conversation.message_count,
        **fields,
    )
    session.add(message)
    await session.flush()
    return message


async def finish(
    session: AsyncSession,
    tenant_id: str,
    ask: Ask,
    *,
    text: str,
    state: MessageState,
    receipt: Receipt,
    needs_person: bool = False,
) -> bool:
    """Write what came of an answer, unless it is being written anew.

    An answer that a newer message has stopped stays stopped. With ``needs_person`` the conversation waits
    for a person, unless one has it already: nothing supports the answer. Returns whether it can be passed on
    to one now: it waits, and no newer message is being answered.
    """
    scope = of_tenant(tenant_id)
    conversation = None
    if needs_person:  # locked before its messages, as everywhere
        conversation = await scope.get(session, LiveConversation, ask.conversation_id, lock=True)
    row = await scope.get(session, LiveMessage, ask.answer.id, lock=True)
    if row is None or row.attempt != ask.attempt:
        return False
    waits = conversation is not None and conversation.state == "open"
    if conversation is not None and waits:
        conversation.unsupported_since = conversation.unsupported_since or now()
    row.text = text
    row.state = "stopped" if row.state == "stopped" else state
    for field, value in msgspec.structs.asdict(receipt).items():
        setattr(row, field, value)
    await session.flush()
    return waits and row.state == "complete"


async def stop_writing(session: AsyncSession, conversation: LiveConversation) -> None:
    """Stop what is being written; whoever writes it adds what had come."""
    await session.execute(
        of_tenant(conversation.tenant_id)
        .update(LiveMessage)
        .where(LiveMessage.conversation_id == conversation.id, LiveMessage.state == "writing")
        .values(state="stopped")
    )


async def give_opinion(
    session: AsyncSession, caller: Caller, message_id: str, request: OpinionRequest
) -> MessageView:
    """Note what a visitor thinks of an answer.

    Raises:
        Unauthenticated: the caller has signed out since.
        NotFound: it is no answer in the caller's conversations.
    """
    tenant_id = caller.site.tenant.id
    visitor = await visitors.of_session(session, tenant_id, caller.session)
    query = (
        of_tenant(tenant_id)
        .select(LiveMessage, LiveConversation)
        .join(LiveConversation, LiveConversation.id == LiveMessage.conversation_id)
        .where(LiveMessage.id == message_id, LiveMessage.role == "assistant")
        .where(LiveConversation.visitor_id == (visitor.id if visitor else ""))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    found = (await session.execute(query)).one_or_none()
    if found is None:
        raise NotFound("There is no such answer.", code="message_not_found")
    message, conversation = found
    conversation.thumbs_down += (request.vote == "down") - (message.vote == "down")
    message.vote = request.vote
    message.vote_reasons = list(dict.fromkeys(request.reasons)) if request.vote == "down" else []
    message.vote_text = request.text if request.vote else None
    await session.flush()
    return views.of_message(message)


async def transcript(session: AsyncSession, caller: Caller) -> str:
    """The caller's conversation as plain text, in UTC.

    Raises:
        Unauthenticated: the caller has signed out since.
        NotFound: the caller has no conversation.
    """
    visitor = await visitors.of_session(session, caller.site.tenant.id, caller.session)
    conversation = await find(session, visitor) if visitor else None
    if conversation is None:
        raise NotFound("There is no conversation yet.", code="conversation_not_found")
    rows = await messages(session, conversation, limit=10_000)
    return views.as_text(rows, name=caller.site.name)


async def _by_client_id(
    session: AsyncSession, conversation: LiveConversation, client_id: str
) -> LiveMessage | None:
    query = of_tenant(conversation.tenant_id).select(LiveMessage)
    return await session.scalar(
        query.where(
            LiveMessage.conversation_id == conversation.id, LiveMessage.client_id == client_id
        )
    )


async def _again(
    session: AsyncSession, caller: Caller, conversation: LiveConversation, message: LiveMessage
) -> Ask | Repeated | Silent:
    """What a message that was stored before is answered with."""
    query = of_tenant(message.tenant_id).select(LiveMessage).with_for_update()
    answer = await session.scalar(query.where(LiveMessage.reply_to == message.id))
    if answer is not None and answer.state == "complete":
        sources = await _sources(session, caller.site, [answer])
        shown = views.of_message(answer, sources=sources.get(answer.id, ()))
        return Repeated(views.of_message(message), shown)
    if conversation.state == "handed_over":
        return Silent(views.of_message(message), await handoffs.required(session, conversation))
    if answer is None:  # it came while a person had the conversation
        answer = await append(
            session, conversation, role="assistant", state="writing", reply_to=message.id
        )
        return await _ask(session, conversation, message, answer)
    if answer.state == "writing" and answer.updated_at > now() - ABANDONED:
        raise Conflict("This message is being answered already.", code="answer_in_progress")
    await _spend(session, caller)
    await stop_writing(session, conversation)
    answer.state, answer.text, answer.attempt = "writing", "", answer.attempt + 1
    answer.vote, answer.vote_reasons, answer.vote_text = None, [], None
    await session.flush()
    return await _ask(session, conversation, message, answer)


async def _ask(
    session: AsyncSession,
    conversation: LiveConversation,
    message: LiveMessage,
    answer: LiveMessage,
) -> Ask:
    rows = await messages(session, conversation, limit=CONTEXT_MESSAGES, until=message.seq)
    return Ask(
        conversation.id,
        views.of_message(message),
        views.of_message(answer),
        answer.attempt,
        views.as_turns(rows),
    )


async def _spend(session: AsyncSession, caller: Caller) -> None:
    limits, claims = caller.site.budgets, caller.session
    who = claims.vis or str(claims.tok)
    await budgets.spend(
        session,
        caller.site.tenant.id,
        [
            budgets.budget(limits, "visitor_messages_per_minute", who),
            budgets.budget(limits, "visitor_messages_per_day", who),
            budgets.budget(limits, "address_messages_per_minute", caller.address),
        ],
    )
