"""The tenant's side of conversations: lists, reading, a person's answers, and better answers to learn.

A conversation is one row, so it stands in a queue once. Lists go by the time of the last message and
load no bodies.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Text, case, collate, func, or_, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from server import spreadsheets
from server.audit import service as audit
from server.audit.actions import Action
from server.conversations import handoffs, passing_on, service, views
from server.conversations.given import Given, given_to
from server.conversations.schemas import MAX_TEXT, MessageView
from server.db.models import (
    Handoff,
    HandoffState,
    LiveConversation,
    LiveMessage,
    LiveState,
    MessageLabel,
    Visitor,
    Widget,
    now,
)
from server.db.scope import of_tenant
from server.errors import Invalid, NotFound
from server.schemas import Moment
from training.heads.config import Task

Queue = Literal["all", "needs_person", "thumbs_down", "annoyed", "unverified"]
MAX_MESSAGES = 500  # of a conversation that is read
MAX_FOUND = 2_000  # messages of a search
LISTED_TOPIC = 120  # characters of a topic in a list; the conversation itself has all
LISTED_NAME = 60
_NEEDS_PERSON = or_(
    LiveConversation.state == "handed_over", LiveConversation.unsupported_since.is_not(None)
)
CSV_COLUMNS = (
    "last_at",
    "name",
    "verified",
    "state",
    "messages",
    "thumbs_down",
    "annoyed",
    "unsupported",
    "topic",
    "id",
)


class Place(NamedTuple):
    """Where a list goes on: behind this conversation."""

    last_at: datetime
    id: str


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation in a list; ``topic`` and ``name`` are cut.

    ``look_reason``: that a rule asked for a person to look, in words. ``name`` is signed where ``verified``, else what the visitor says. ``unsupported``: nothing supported an
    answer, and a person has not looked yet.
    """

    id: str
    topic: str
    name: str | None
    verified: bool
    state: LiveState
    messages: int
    thumbs_down: int
    annoyed: int
    unsupported: bool
    look_reason: str
    last_at: Moment

    @property
    def place(self) -> Place:
        """Where the list goes on behind it."""
        return Place(self.last_at, self.id)


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many conversations each queue holds."""

    all: int
    needs_person: int
    thumbs_down: int
    annoyed: int
    unverified: int


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """An answer's receipt, what its visitor thinks of it, and the better answer that was given."""

    model: str | None
    adapter_version: int | None
    first_token_ms: int | None
    total_ms: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    opinion_text: str | None
    correction: str | None
    corrected_by: str | None


class ReadLabel(msgspec.Struct, frozen=True, kw_only=True):
    """What a head said of a message: its task and version, and how probable the label is.

    ``shared``: the head was the operator's.
    """

    task: Task
    version: int
    shared: bool
    label: str
    probability: float


class ReadMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message as the tenant reads it; ``detail`` is of answers, ``labels`` of visitors' messages.

    ``given`` is of answers that have a receipt.
    """

    message: MessageView
    author: str | None
    detail: Detail | None
    given: Given | None
    labels: list[ReadLabel]


class VisitorView(msgspec.Struct, frozen=True, kw_only=True):
    """Who wrote. ``says_name`` and ``says_email`` are not verified."""

    verified: bool
    subject: str | None
    name: str | None
    email: str | None
    says_name: str | None
    says_email: str | None


class PassedOn(msgspec.Struct, frozen=True, kw_only=True):
    """The last hand-off of a conversation as the tenant reads it.

    ``messages`` is how many of them the hand-off told the tenant's systems. ``expected`` is what the
    visitor was told. ``reason``: the rule that passed it on. ``given_back_by`` names who as records do.
    """

    number: int
    state: HandoffState
    email: str
    note: str
    reason: str
    wants_copy: bool
    expected: str
    messages: int
    created_at: Moment
    given_back_at: Moment | None
    given_back_by: str | None


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as the tenant reads it, with its last messages, of ``message_count``.

    ``offer_to_take``: it sounds annoyed, no person has it, and the tenant wants the offer.
    ``unsupported_since``: when nothing supported an answer; null where a person has looked since.
    ``look_reason``: that it was a rule that asked for a person, in words.
    """

    id: str
    topic: str
    state: LiveState
    created_at: Moment
    message_count: int
    offer_to_take: bool
    unsupported_since: Moment | None
    look_reason: str
    visitor: VisitorView
    messages: list[ReadMessage]
    handoff: PassedOn | None


async def list_conversations(
    session: AsyncSession,
    tenant_id: str,
    *,
    queue: Queue = "all",
    search: str = "",
    after: Place | None = None,
    limit: int = 50,
) -> list[Listed]:
    """Conversations of a queue, the one with the latest message first, behind ``after``.

    ``search`` finds texts of messages, whatever their case.
    """
    scope = of_tenant(tenant_id)
    query = (
        scope.select(
            LiveConversation.id,
            func.substr(LiveConversation.topic, 1, LISTED_TOPIC).label("topic"),
            func.substr(func.coalesce(Visitor.name, Visitor.said_name), 1, LISTED_NAME).label(
                "name"
            ),
            Visitor.subject.is_not(None).label("verified"),
            LiveConversation.state,
            LiveConversation.message_count,
            LiveConversation.thumbs_down,
            LiveConversation.annoyed_messages,
            LiveConversation.unsupported_since,
            LiveConversation.look_reason,
            LiveConversation.last_at,
        )
        .join(Visitor, Visitor.id == LiveConversation.visitor_id)
        .order_by(LiveConversation.last_at.desc(), LiveConversation.id.desc())
        .limit(limit)
    )
    match queue:
        case "needs_person":
            query = query.where(_NEEDS_PERSON)
        case "thumbs_down":
            query = query.where(LiveConversation.thumbs_down > 0)
        case "annoyed":
            query = query.where(LiveConversation.annoyed_messages > 0)
        case "unverified":
            query = query.where(_is_unverified(session))
        case "all":
            pass
    if search.strip():
        found = await _find(session, tenant_id, search.strip())
        query = query.where(LiveConversation.id.in_(found))
    if after is not None:
        place = tuple_(LiveConversation.last_at, LiveConversation.id)
        query = query.where(place < (after.last_at, after.id))
    return [
        Listed(
            id=row.id,
            topic=row.topic,
            name=row.name,
            verified=bool(row.verified),
            state=row.state,
            messages=row.message_count,
            thumbs_down=row.thumbs_down,
            annoyed=row.annoyed_messages,
            unsupported=row.unsupported_since is not None,
            look_reason=row.look_reason,
            last_at=row.last_at,
        )
        for row in await session.execute(query)
    ]


def to_csv(conversations: Sequence[Listed]) -> bytes:
    """Conversations, a line each; topics and names are cut as in a list."""
    return spreadsheets.to_csv(
        CSV_COLUMNS,
        (
            (
                each.last_at.isoformat(timespec="seconds"),
                each.name,
                "yes" if each.verified else "no",
                each.state,
                each.messages,
                each.thumbs_down,
                each.annoyed,
                "yes" if each.unsupported else "no",
                each.topic,
                each.id,
            )
            for each in conversations
        ),
    )


async def _find(session: AsyncSession, tenant_id: str, words: str) -> list[str]:
    """The conversations of the last messages that hold these words, ``MAX_FOUND`` at most.

    A query of its own: joined to the list, PostgreSQL looks through all messages once for each of its
    rows.
    """
    query = of_tenant(tenant_id).select(LiveMessage.conversation_id)
    query = query.where(_holds(session, words))
    rows = await session.scalars(query.order_by(LiveMessage.id.desc()).limit(MAX_FOUND))
    return list(dict.fromkeys(rows))


def _holds(session: AsyncSession, words: str) -> ColumnElement[bool]:
    """Whether a message holds these words, in the way that each database is quick at.

    SQLite's LIKE knows no case of ASCII letters by itself. PostgreSQL takes several times as long to
    lower the case of all letters as of the ASCII ones, which are enough for words of such.
    """
    if session.get_bind().dialect.name == "sqlite":
        return LiveMessage.text.contains(words, autoescape=True)
    if words.isascii():
        text = func.lower(collate(LiveMessage.text, "C"), type_=Text)
        return text.contains(words.lower(), autoescape=True)
    return LiveMessage.text.icontains(words, autoescape=True)


def _is_unverified(session: AsyncSession) -> ColumnElement[bool]:
    """Whether nobody signed who a conversation's visitor is.

    SQLite would begin with its index of subjects, and read and sort all conversations of such visitors
    for one page. A CASE keeps it on the index that has them in the list's order.
    """
    is_unverified = Visitor.subject.is_(None)
    if session.get_bind().dialect.name == "sqlite":
        return case((is_unverified, 1), else_=0) == 1
    return is_unverified


async def count(session: AsyncSession, tenant_id: str) -> Counts:
    """How many conversations each queue holds, by one query."""

    def number(condition: ColumnElement[bool]) -> ColumnElement[int]:
        return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)

    query = (
        of_tenant(tenant_id)
        .select(
            func.count(LiveConversation.id),
            number(_NEEDS_PERSON),
            number(LiveConversation.thumbs_down > 0),
            number(LiveConversation.annoyed_messages > 0),
            number(Visitor.subject.is_(None)),
        )
        .join(Visitor, Visitor.id == LiveConversation.visitor_id)
    )
    row = (await session.execute(query)).one()
    return Counts(
        all=row[0],
        needs_person=int(row[1]),
        thumbs_down=int(row[2]),
        annoyed=int(row[3]),
        unverified=int(row[4]),
    )


async def count_waiting(session: AsyncSession, tenant_id: str) -> int:
    """How many conversations need a person: a hand-off is open, or nothing supported an answer."""
    scope = of_tenant(tenant_id)
    passed_on = scope.select(func.count(Handoff.id)).where(Handoff.state == "open")
    unsupported = scope.select(func.count(LiveConversation.id)).where(
        LiveConversation.unsupported_since.is_not(None)
    )
    return sum([await session.scalar(query) or 0 for query in (passed_on, unsupported)])


async def read(session: AsyncSession, tenant_id: str, conversation_id: str) -> Opened:
    """A conversation with its answers' receipts.

    Raises:
        NotFound: the tenant has no such conversation.
    """
    scope = of_tenant(tenant_id)
    conversation = await _conversation(session, tenant_id, conversation_id)
    visitor = await scope.get_one(session, Visitor, conversation.visitor_id)
    rows = await service.messages(session, conversation, limit=MAX_MESSAGES)
    labels = await _labels(session, conversation)
    given = await given_to(session, tenant_id, [row.id for row in rows if row.role == "assistant"])
    passed_on = await handoffs.latest_row(session, conversation)
    return Opened(
        id=conversation.id,
        topic=conversation.topic,
        state=conversation.state,
        created_at=conversation.created_at,
        message_count=conversation.message_count,
        offer_to_take=await _offers(session, conversation),
        unsupported_since=conversation.unsupported_since,
        look_reason=conversation.look_reason,
        visitor=VisitorView(
            verified=visitor.subject is not None,
            subject=visitor.subject,
            name=visitor.name,
            email=visitor.email,
            says_name=visitor.said_name,
            says_email=visitor.said_email,
        ),
        messages=[_read(row, labels.get(row.id, []), given.get(row.id)) for row in rows],
        handoff=_passed_on(passed_on, rows) if passed_on else None,
    )


async def answer(
    session: AsyncSession, tenant_id: str, conversation_id: str, text: str, *, author: str
) -> MessageView:
    """Write to a visitor as a person, who sees it when they open the chat.

    Raises:
        NotFound: the tenant has no such conversation.
        Invalid: there is no text, or it is too long.
    """
    text = _text(text)
    conversation = await _conversation(session, tenant_id, conversation_id, lock=True)
    await service.stop_writing(session, conversation)
    row = await service.append(session, conversation, role="person", text=text, author=author)
    conversation.unsupported_since, conversation.look_reason = None, ""
    audit.record(
        session,
        "conversation.answered",
        tenant_id=tenant_id,
        subject=handoffs.subject(conversation.id),
        actor=author,
    )
    return views.of_message(row)


async def correct(
    session: AsyncSession, tenant_id: str, message_id: str, text: str, *, actor: str
) -> None:
    """Say what an answer should have been; the visitor does not see it. An empty text takes it back.

    Raises:
        NotFound: the tenant has no such answer.
        Invalid: the text is too long.
    """
    row = await of_tenant(tenant_id).get(session, LiveMessage, message_id, lock=True)
    if row is None or row.role != "assistant":
        raise NotFound("There is no such answer.", code="message_not_found")
    row.correction = _text(text) if text.strip() else None
    row.corrected_by = actor if row.correction else None
    row.corrected_at = now() if row.correction else None
    await session.flush()
    action: Action = (
        "conversation.corrected" if row.correction else "conversation.correction_removed"
    )
    audit.record(
        session,
        action,
        tenant_id=tenant_id,
        subject=handoffs.subject(row.conversation_id),
        details={"message": row.id},
        actor=actor,
    )


async def count_corrections(session: AsyncSession, tenant_id: str) -> int:
    """How many answers have a better one."""
    query = of_tenant(tenant_id).select(func.count(LiveMessage.id))
    return await session.scalar(query.where(LiveMessage.correction.is_not(None))) or 0


def _passed_on(row: Handoff, rows: list[LiveMessage]) -> PassedOn:
    told = sum(1 for each in rows if each.text and each.created_at <= row.created_at)
    return PassedOn(
        number=row.number,
        state=row.state,
        email=row.email,
        note=row.note,
        reason=row.reason,
        wants_copy=row.wants_copy,
        expected=row.expected,
        messages=min(told, passing_on.PASSED_ON),
        created_at=row.created_at,
        given_back_at=row.given_back_at,
        given_back_by=row.given_back_by,
    )


async def _offers(session: AsyncSession, conversation: LiveConversation) -> bool:
    if conversation.state != "open" or not conversation.annoyed_messages:
        return False
    query = of_tenant(conversation.tenant_id).select(Widget.offer_when_annoyed)
    return bool(await session.scalar(query))


async def _labels(
    session: AsyncSession, conversation: LiveConversation
) -> dict[str, list[ReadLabel]]:
    """What heads said of a conversation's messages, by the message."""
    query = of_tenant(conversation.tenant_id).select(MessageLabel)
    query = query.where(MessageLabel.conversation_id == conversation.id)
    found: dict[str, list[ReadLabel]] = {}
    for row in await session.scalars(query.order_by(MessageLabel.task)):
        label = ReadLabel(
            task=row.task,
            version=row.head_version,
            shared=row.is_shared,
            label=row.label,
            probability=row.probability,
        )
        found.setdefault(row.message_id, []).append(label)
    return found


def _read(row: LiveMessage, labels: list[ReadLabel], given: Given | None) -> ReadMessage:
    detail = None
    if row.role == "assistant":
        detail = Detail(
            model=row.model,
            adapter_version=row.adapter_version,
            first_token_ms=row.first_token_ms,
            total_ms=row.total_ms,
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            opinion_text=row.vote_text,
            correction=row.correction,
            corrected_by=row.corrected_by,
        )
    return ReadMessage(
        message=views.of_message(row),
        author=row.author,
        detail=detail,
        given=given,
        labels=labels,
    )


async def _conversation(
    session: AsyncSession, tenant_id: str, conversation_id: str, *, lock: bool = False
) -> LiveConversation:
    row = await of_tenant(tenant_id).get(session, LiveConversation, conversation_id, lock=lock)
    if row is None:
        raise NotFound("There is no such conversation.", code="conversation_not_found")
    return row


def _text(text: str) -> str:
    text = text.strip()
    if not 0 < len(text) <= MAX_TEXT:
        raise Invalid(f"Write 1 to {MAX_TEXT} characters.", param="text")
    return text
