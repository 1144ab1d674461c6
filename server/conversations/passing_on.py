"""Passing a conversation on to a person: what they are given, and the event that tells them."""

from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from server.audit import service as audit
from server.conversations import budgets, handoffs, service, visitors
from server.conversations.budgets import Budget
from server.conversations.schemas import HandoffPreview, HandoffRequest, HandoffView
from server.conversations.service import Caller
from server.db.models import Handoff, LiveConversation, LiveMessage, Visitor, Widget, now
from server.db.scope import of_tenant
from server.errors import Conflict, Invalid, NotFound, TooMany
from server.limits.sliding_window import DAY
from server.webhooks.schemas import EventType
from server.webhooks.service import emit

EVENT: EventType = "conversation.handoff.created"
PASSED_ON = 20  # messages that the event carries
SHOWN_LENGTH = 200
_PER_VISITOR = 5  # a day; each may make the receiver send e-mail


async def preview(session: AsyncSession, caller: Caller) -> HandoffPreview:
    """What a person would be given now, for the visitor to see before sending.

    Raises:
        Unauthenticated: the caller has signed out since.
    """
    site = caller.site
    visitor = await visitors.of_session(session, site.tenant.id, caller.session)
    conversation = await service.find(session, visitor) if visitor else None
    rows: list[LiveMessage] = []
    if conversation is not None:
        rows = await service.messages(session, conversation, limit=PASSED_ON)
    return HandoffPreview(
        topic=conversation.topic if conversation else "",
        tried=_tried(rows),
        messages=conversation.message_count if conversation else 0,
        expected=site.widget.handoff_expected,
        hours=site.widget.handoff_hours,
    )


async def create(session: AsyncSession, caller: Caller, request: HandoffRequest) -> HandoffView:
    """Pass the caller's conversation on; where that was done already, returns the open hand-off.

    Raises:
        Unauthenticated: the caller has signed out since.
        Invalid: the address is none, or there is neither a note nor a message.
        TooMany: too many hand-offs of this visitor, or from their address.
    """
    site = caller.site
    email, note = handoffs.check_email(request.email), request.note.strip()
    visitor, conversation = await service.begin(session, caller, topic=note)
    known = await handoffs.open_one(session, conversation)
    if known is not None:
        return handoffs.view(known)
    if not note and not conversation.message_count:
        raise Invalid("Write what it is about.", param="note")
    await _spend(session, caller)
    widget = await of_tenant(site.tenant.id).get_one(session, Widget, site.widget.id, lock=True)
    row = await _pass_on(
        session, widget, conversation, visitor, email=email, note=note, wants_copy=request.copy
    )
    return handoffs.view(row)


async def pass_on_unsupported(
    session: AsyncSession, caller: Caller, conversation_id: str
) -> HandoffView | None:
    """Pass the caller's conversation on because nothing supports what the assistant answered in it.

    Returns None, and the conversation goes on waiting for a person to look, where no e-mail address of the
    visitor is known, which whoever answers would need, or where there were too many hand-offs today.

    Args:
        session: holds the lock of the conversation (``service.finish``).
        caller: the visitor who was answered.
        conversation_id: theirs.
    """
    tenant_id = caller.site.tenant.id
    scope = of_tenant(tenant_id)
    conversation = await scope.get_one(session, LiveConversation, conversation_id)
    known = await handoffs.open_one(session, conversation)
    if known is not None:
        return handoffs.view(known)
    visitor = await scope.get_one(session, Visitor, conversation.visitor_id)
    email = visitor.email or visitor.said_email
    if not email:
        return None
    try:
        async with session.begin_nested():
            await _spend(session, caller)
    except TooMany:
        return None
    widget = await scope.get_one(session, Widget, caller.site.widget.id, lock=True)
    row = await _pass_on(
        session, widget, conversation, visitor, email=email, note="", wants_copy=False
    )
    return handoffs.view(row)


async def take(
    session: AsyncSession, tenant_id: str, conversation_id: str, *, actor: str
) -> HandoffView:
    """Pass a conversation on without its visitor's asking, because a person of the tenant wants it.

    Where it is passed on already, returns the open hand-off. Webhooks are told as of any other.

    Raises:
        NotFound: the tenant has no such conversation.
        Conflict: no e-mail address of the visitor is known, which the visitor would be told.
    """
    scope = of_tenant(tenant_id)
    conversation = await scope.get(session, LiveConversation, conversation_id, lock=True)
    if conversation is None:
        raise NotFound("There is no such conversation.", code="conversation_not_found")
    known = await handoffs.open_one(session, conversation)
    if known is not None:
        return handoffs.view(known)
    visitor = await scope.get_one(session, Visitor, conversation.visitor_id)
    email = visitor.email or visitor.said_email
    if not email:
        raise Conflict(
            "No e-mail address of this visitor is known: answer in the chat.", code="no_email"
        )
    widget = await session.scalar(scope.select(Widget).with_for_update())
    if widget is None:
        raise NotFound("The tenant has no widget.", code="widget_not_found")
    row = await _pass_on(
        session, widget, conversation, visitor, email=email, note="", wants_copy=False
    )
    audit.record(
        session,
        "conversation.taken",
        tenant_id=tenant_id,
        subject=handoffs.subject(conversation.id),
        details={"hand_off": row.number},
        actor=actor,
    )
    return handoffs.view(row)


async def _spend(session: AsyncSession, caller: Caller) -> None:
    """Count a hand-off of the caller.

    Raises:
        TooMany: too many of this visitor, or from their address.
    """
    limits, claims = caller.site.budgets, caller.session
    await budgets.spend(
        session,
        caller.site.tenant.id,
        [
            Budget("handoffs", claims.vis or str(claims.tok), _PER_VISITOR, DAY),
            budgets.budget(limits, "address_handoffs_per_day", caller.address),
        ],
    )


async def take_by_rule(
    session: AsyncSession, conversation: LiveConversation, *, reason: str, written_at: datetime
) -> None:
    """Pass on a conversation because a rule of its tenant says so, which names a message of it.

    Where no e-mail address of the visitor is known, a person is asked to look, and the assistant goes on.
    What a person has had since the message was written is left alone.

    Args:
        session: a transaction that has locked ``conversation``, and all others that it will pass on.
        conversation: where the message is.
        reason: the rule and what it was met by, in words.
        written_at: when the message was written.
    """
    last = await handoffs.latest_row(session, conversation)
    given_back_at = last.given_back_at if last else None
    if conversation.state != "open" or (given_back_at and given_back_at >= written_at):
        return
    scope = of_tenant(conversation.tenant_id)
    visitor = await scope.get_one(session, Visitor, conversation.visitor_id)
    email = visitor.email or visitor.said_email
    widget = await session.scalar(scope.select(Widget).with_for_update())
    if not email or widget is None:
        conversation.unsupported_since = conversation.unsupported_since or now()
        conversation.look_reason = reason
        await session.flush()
        return
    row = await _pass_on(
        session,
        widget,
        conversation,
        visitor,
        email=email,
        note="",
        wants_copy=False,
        reason=reason,
    )
    audit.record(
        session,
        "conversation.passed_on",
        tenant_id=conversation.tenant_id,
        subject=handoffs.subject(conversation.id),
        details={"hand_off": row.number, "rule": reason},
    )


async def _pass_on(
    session: AsyncSession,
    widget: Widget,
    conversation: LiveConversation,
    visitor: Visitor,
    *,
    email: str,
    note: str,
    wants_copy: bool,
    reason: str = "",
) -> Handoff:
    row = Handoff(
        tenant_id=conversation.tenant_id,
        conversation_id=conversation.id,
        number=widget.next_handoff_number,
        email=email,
        note=note,
        reason=reason,
        wants_copy=wants_copy,
        expected=widget.handoff_expected,
        state="open",
    )
    widget.next_handoff_number += 1
    unsupported = conversation.unsupported_since is not None and not conversation.look_reason
    conversation.state = "handed_over"
    conversation.unsupported_since, conversation.look_reason = None, ""
    await service.stop_writing(session, conversation)
    session.add(row)
    await session.flush()
    await emit(
        session,
        conversation.tenant_id,
        type=EVENT,
        data=await _event(session, row, conversation, visitor, unsupported=unsupported),
    )
    return row


async def _event(
    session: AsyncSession,
    row: Handoff,
    conversation: LiveConversation,
    visitor: Visitor,
    *,
    unsupported: bool,
) -> dict[str, Any]:
    rows = await service.messages(session, conversation, limit=PASSED_ON)
    return {
        "id": row.id,
        "number": row.number,
        "conversation": conversation.id,
        "email": row.email,
        "note": row.note,
        "reason": row.reason,
        "copy": row.wants_copy,
        "topic": conversation.topic,
        "unsupported": unsupported,
        "visitor": {
            "verified": visitor.subject is not None,
            "subject": visitor.subject,
            "name": visitor.name,
            "email": visitor.email,
            "says_name": visitor.said_name,
            "says_email": visitor.said_email,
        },
        "messages": [
            {"role": each.role, "text": each.text, "at": int(each.created_at.timestamp())}
            for each in rows
            if each.text
        ],
    }


def _tried(rows: list[LiveMessage]) -> str:
    """The last answer, cut."""
    for row in reversed(rows):
        if row.role == "assistant" and row.text:
            cut = row.text[:SHOWN_LENGTH]
            return cut if cut == row.text else f"{cut}…"
    return ""
