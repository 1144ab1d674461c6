"""Labels visitors' messages with the tenant's live heads, or shared ones, in the background.

Rows are the truth: what has no ``MessageLabel`` of a task is still to be labelled. So nothing is lost
by a restart, and nothing labelled twice. The encoder's process does the work
(``server/embeddings``); here nothing is computed.
"""

import asyncio
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import structlog
from sqlalchemy import ColumnElement, func
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from server.conversations import passing_on
from server.db.models import Head, LiveConversation, LiveMessage, MessageLabel, Tenant, now
from server.db.scope import across_tenants, of_tenant
from server.db.session import Database
from server.embeddings.schemas import Label
from server.embeddings.service import EmbeddingService
from server.errors import ServerError
from server.heads import rules
from server.heads import service as heads
from server.heads.schemas import DayCount
from server.settings import Settings
from training.heads.config import ANNOYED, IMAGE, Task

log = structlog.get_logger(__name__)

POLL_SECONDS = 2.0
TROUBLED_SECONDS = 30.0
BATCH = 32
BACK = timedelta(days=7)
"""How old a conversation's last message may be when a head begins to label."""
FRESH = timedelta(hours=1)
"""How old a message may be that a rule hands to a person: later nobody waits for the answer any more."""
OVERLAP = timedelta(minutes=5)
"""Looked through again: a transaction may write a message with an earlier time than those read."""
ANNOYED_FROM = 0.5
"""The calibrated probability from which a message counts as annoyed."""
_EVERYONE = across_tenants("the live heads of all tenants label messages")


class _Use(NamedTuple):
    """A head that labels a tenant's messages."""

    head: Head
    tenant_id: str

    @property
    def key(self) -> tuple[str, str]:
        return self.head.id, self.tenant_id


class Labelling:
    """Labels new messages while it runs. Use on one event loop.

    Args:
        database: where messages and labels are rows.
        embeddings: whose process applies the heads.
        settings: of where heads lie.

    Example:
        tasks.create_task(Labelling(database, embeddings, settings).run())
    """

    def __init__(
        self, database: Database, embeddings: EmbeddingService, settings: Settings
    ) -> None:
        self._database = database
        self._embeddings = embeddings
        self._settings = settings
        self._done: dict[tuple[str, str], datetime] = {}  # up to when there is nothing to do

    async def run(self) -> None:
        """Label until cancelled."""
        while True:
            seconds = POLL_SECONDS
            try:
                await self.label_all()
            except (ServerError, SQLAlchemyError) as exc:
                log.warning("labelling failed; trying again", reason=str(exc))
                seconds = TROUBLED_SECONDS
            except Exception:
                log.exception("labelling failed; trying again")
                seconds = TROUBLED_SECONDS
            await asyncio.sleep(seconds)

    async def label_all(self) -> int:
        """Label what is there to be labelled now; how many labels were written.

        Raises:
            ServerError: a head or the encoder cannot be used; other tenants' messages were labelled.
        """
        async with self._database.reading() as session:
            uses = await _uses(session)
        known = {use.key for use in uses}
        self._done = {key: until for key, until in self._done.items() if key in known}
        written, trouble = 0, None
        for use in uses:
            try:
                written += await self._label(use)
            except ServerError as exc:
                log.warning("a head cannot be used", head=use.head.id, reason=str(exc))
                trouble = exc
        if trouble is not None:
            raise trouble
        return written

    async def _label(self, use: _Use) -> int:
        folder = heads.weights_folder(self._settings, use.head)
        written = 0
        while True:
            began = now()
            since = self._done.get(use.key, began - BACK)
            async with self._database.reading() as session:
                found = await _pending(session, use, since=since)
            if found:
                written += await self._write(use, folder, found)
            if len(found) < BATCH:
                self._done[use.key] = began - OVERLAP
                return written

    async def _write(self, use: _Use, folder: Path, found: Sequence[LiveMessage]) -> int:
        texts = [message.text for message in found]
        labels = await self._embeddings.classify(texts, tenant=use.tenant_id, head=folder)
        async with self._database.transaction() as session:
            return await _store(session, use, found, labels)


def first_day(last: date, days: int) -> date:
    """The first of so many days that end with this one."""
    return last - timedelta(days=days - 1)


async def counts(
    session: AsyncSession, tenant_id: str, *, days: int, task: Task | None = None
) -> list[DayCount]:
    """How many messages got which label, by UTC day, oldest first; days without any are left out."""
    first = first_day(now().date(), days)
    of = (MessageLabel.day, MessageLabel.task, MessageLabel.label)
    query = of_tenant(tenant_id).select(*of, func.count(MessageLabel.id))
    query = query.where(MessageLabel.day >= first).group_by(*of).order_by(*of)
    if task is not None:
        query = query.where(MessageLabel.task == task)
    return [
        DayCount(day=day, task=task, label=label, messages=messages)
        for day, task, label, messages in await session.execute(query)
    ]


async def _uses(session: AsyncSession) -> list[_Use]:
    """The tenants' own live heads, and the shared ones where a tenant has none and wants it.

    Of those who use a shared one, only tenants with a conversation of late.
    """
    query = _EVERYONE.select(Head).where(Head.live, Head.task != IMAGE)
    rows = list(await session.scalars(query))
    own = [_Use(row, row.tenant_id) for row in rows if row.tenant_id is not None]
    shared = [row for row in rows if row.tenant_id is None]
    if not shared:
        return own
    talked = _EVERYONE.select(LiveConversation.tenant_id)
    talked = talked.where(LiveConversation.last_at >= now() - BACK)
    tenants = _EVERYONE.select(Tenant.id, Tenant.shared_heads_off).where(Tenant.id.in_(talked))
    overridden = {(use.tenant_id, use.head.task) for use in own}
    return own + [
        _Use(row, tenant_id)
        for tenant_id, off in await session.execute(tenants)
        for row in shared
        if row.task not in off and (tenant_id, row.task) not in overridden
    ]


async def _pending(session: AsyncSession, use: _Use, *, since: datetime) -> list[LiveMessage]:
    """Visitors' messages without a label of this task, of conversations that went on since then."""
    scope = of_tenant(use.tenant_id)
    labelled = scope.select(MessageLabel.id).where(
        MessageLabel.message_id == LiveMessage.id, MessageLabel.task == use.head.task
    )
    talks = scope.select(LiveConversation.id).where(LiveConversation.last_at >= since)
    query = scope.select(LiveMessage).where(
        LiveMessage.conversation_id.in_(talks),
        LiveMessage.role == "visitor",
        LiveMessage.text != "",
        ~labelled.exists(),
    )
    return list(await session.scalars(query.order_by(LiveMessage.id).limit(BATCH)))


async def _store(
    session: AsyncSession, use: _Use, found: Sequence[LiveMessage], labels: Sequence[Label]
) -> int:
    """Write labels of messages that are still there and still have none."""
    scope = of_tenant(use.tenant_id)
    head = use.head
    met = await _met_rules(session, use, found, labels)
    talks = await _lock(session, use.tenant_id, [message.conversation_id for message in met])
    ids = [message.id for message in found]
    there = set(await session.scalars(scope.select(LiveMessage.id).where(LiveMessage.id.in_(ids))))
    labelled = scope.select(MessageLabel.message_id).where(
        MessageLabel.task == use.head.task, MessageLabel.message_id.in_(ids)
    )
    there -= set(await session.scalars(labelled))
    written = 0
    annoyed: dict[str, int] = {}
    for message, said in zip(found, labels, strict=True):
        if message.id not in there:
            continue
        session.add(
            MessageLabel(
                tenant_id=use.tenant_id,
                conversation_id=message.conversation_id,
                message_id=message.id,
                task=head.task,
                label=said.label,
                probability=said.probability,
                head_version=head.version,
                head_sha256=head.sha256 or "",
                is_shared=head.tenant_id is None,
                day=message.created_at.date(),
            )
        )
        written += 1
        if (head.task, said.label) == ("annoyance", ANNOYED) and said.probability > ANNOYED_FROM:
            annoyed[message.conversation_id] = annoyed.get(message.conversation_id, 0) + 1
    for conversation_id, count in annoyed.items():
        more: ColumnElement[int] = LiveConversation.annoyed_messages + count
        await session.execute(
            scope.update(LiveConversation)
            .where(LiveConversation.id == conversation_id)
            .values(annoyed_messages=more)
        )
    await session.flush()
    for message, reason in met.items():
        talk = talks.get(message.conversation_id)
        if message.id in there and talk is not None:
            await passing_on.take_by_rule(
                session, talk, reason=reason, written_at=message.created_at
            )
    return written


async def _met_rules(
    session: AsyncSession, use: _Use, found: Sequence[LiveMessage], labels: Sequence[Label]
) -> dict[LiveMessage, str]:
    """Messages that a rule hands to a person, each with the rule in words.

    Those from before the rule, from before the head was live, or older than ``FRESH`` do not count.
    """
    head, oldest = use.head, now() - FRESH
    known = await rules.list_for(session, use.tenant_id, head.task)
    by_label = {rule.label: rule for rule in known}
    met = {}
    for message, said in zip(found, labels, strict=True):
        rule = by_label.get(said.label)
        if rule is None or said.probability < rule.at_least:
            continue
        if message.created_at >= max(oldest, rule.created_at, head.live_since or oldest):
            met[message] = f"{head.task}: {said.label}, {100 * said.probability:.0f} %"
    return met


async def _lock(
    session: AsyncSession, tenant_id: str, conversation_ids: Sequence[str]
) -> dict[str, LiveConversation]:
    """Lock conversations, in one order, before their messages and the widget, as everywhere."""
    if not conversation_ids:
        return {}
    query = of_tenant(tenant_id).select(LiveConversation)
    query = query.where(LiveConversation.id.in_(conversation_ids)).order_by(LiveConversation.id)
    query = query.with_for_update().execution_options(populate_existing=True)
    return {talk.id: talk for talk in await session.scalars(query)}
