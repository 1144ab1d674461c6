"""Hand-offs: a person has a conversation, and the assistant is silent until it is given back.

We send no e-mail. The event ``conversation.handoff.created`` goes to the tenant's webhooks, whose
receiver (a help desk) writes to the visitor, and sends the copy where one is wished for.
"""

import re

from sqlalchemy.ext.asyncio import AsyncSession

from server.audit import service as audit
from server.audit.schemas import Subject
from server.conversations.schemas import HandoffView
from server.db.models import Handoff, LiveConversation, now
from server.db.scope import of_tenant
from server.errors import Conflict, Invalid, NotFound

# one @, a domain with a dot; whether it can be delivered to only sending tells
_EMAIL = re.compile(r"[^\s@,;<>\"()]+@[^\s@,;<>\"()]+\.[^\s@.,;<>\"()]{2,}")


def check_email(text: str) -> str:
    """An e-mail address without blanks around it.

    Raises:
        Invalid: it is none.
    """
    email = text.strip()
    if not _EMAIL.fullmatch(email):
        raise Invalid("Write an e-mail address, as name@example.com.", param="email")
    return email


async def open_one(session: AsyncSession, conversation: LiveConversation) -> Handoff | None:
    """The hand-off of a conversation that has not been given back."""
    query = of_tenant(conversation.tenant_id).select(Handoff)
    return await session.scalar(
        query.where(Handoff.conversation_id == conversation.id, Handoff.state == "open")
    )


async def latest(session: AsyncSession, conversation: LiveConversation) -> HandoffView | None:
    """The last hand-off of a conversation, as its visitor sees it."""
    row = await latest_row(session, conversation)
    return None if row is None else view(row)


async def latest_row(session: AsyncSession, conversation: LiveConversation) -> Handoff | None:
    """The last hand-off of a conversation."""
    query = of_tenant(conversation.tenant_id).select(Handoff)
    query = query.where(Handoff.conversation_id == conversation.id)
    return await session.scalar(query.order_by(Handoff.number.desc()).limit(1))


async def required(session: AsyncSession, conversation: LiveConversation) -> HandoffView:
    """The hand-off of a conversation that is handed over."""
    found = await latest(session, conversation)
    if found is None:
        raise NotFound("There is no hand-off.", code="handoff_not_found")
    return found


async def give_back(
    session: AsyncSession, tenant_id: str, conversation_id: str, *, actor: str
) -> LiveConversation:
    """Let the assistant answer in a conversation again. Again changes nothing.

    Raises:
        NotFound: the tenant has no such conversation.
    """
    scope = of_tenant(tenant_id)
    conversation = await scope.get(session, LiveConversation, conversation_id, lock=True)
    if conversation is None:
        raise NotFound("There is no such conversation.", code="conversation_not_found")
    row = await open_one(session, conversation)
    if row is not None:
        row.state, row.given_back_at, row.given_back_by = "given_back", now(), actor
        audit.record(
            session,
            "conversation.given_back",
            tenant_id=tenant_id,
            subject=subject(conversation.id),
            details={"hand_off": row.number},
            actor=actor,
        )
    conversation.state = "open"
    await session.flush()
    return conversation


async def take_again(
    session: AsyncSession, tenant_id: str, conversation_id: str
) -> LiveConversation:
    """Undo ``give_back``: open the last hand-off again, so that the assistant is silent. Again changes nothing.

    Raises:
        NotFound: the tenant has no such conversation.
        Conflict: it was never handed over.
    """
    scope = of_tenant(tenant_id)
    conversation = await scope.get(session, LiveConversation, conversation_id, lock=True)
    if conversation is None:
        raise NotFound("There is no such conversation.", code="conversation_not_found")
    row = await latest_row(session, conversation)
    if row is None:
        raise Conflict("Nobody has asked for a person in this conversation.", code="no_handoff")
    changes = row.state != "open"
    row.state, row.given_back_at, row.given_back_by = "open", None, None
    conversation.state = "handed_over"
    await session.flush()
    if changes:
        audit.record(
            session,
            "conversation.taken",
            tenant_id=tenant_id,
            subject=subject(conversation.id),
            details={"hand_off": row.number},
        )
    return conversation


async def look_at(
    session: AsyncSession, tenant_id: str, conversation_id: str, *, actor: str
) -> LiveConversation:
    """Note that a person has looked at a conversation where nothing supported an answer. Again changes nothing.

    Raises:
        NotFound: the tenant has no such conversation.
    """
    conversation = await of_tenant(tenant_id).get(
        session, LiveConversation, conversation_id, lock=True
    )
    if conversation is None:
        raise NotFound("There is no such conversation.", code="conversation_not_found")
    if conversation.unsupported_since is not None:
        conversation.unsupported_since, conversation.look_reason = None, ""
        await session.flush()
        audit.record(
            session,
            "conversation.looked_at",
            tenant_id=tenant_id,
            subject=subject(conversation.id),
            actor=actor,
        )
    return conversation


def subject(conversation_id: str) -> Subject:
    """A conversation as the audit log names it: by the end of its id, since what it is about is private."""
    return Subject("conversation", conversation_id, conversation_id[-8:])


def view(row: Handoff) -> HandoffView:
    """A hand-off as its visitor sees it."""
    return HandoffView(
        number=row.number,
        created_at=row.created_at,
        email=row.email,
        expected=row.expected,
        state=row.state,
    )
