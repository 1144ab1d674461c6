"""The audit log: an entry is a row of the transaction that makes the change.

    tenant.limits = patch.limits
    audit.record(session, "tenant.limits_changed", tenant_id=tenant.id, subject=..., details=...)

So what is undone leaves none, and what is done leaves one, whichever way it was asked for: who acts is
known from ``server/audit/actors.py``. Secrets and private texts do not belong into ``details``.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, or_
from sqlalchemy.ext.asyncio import AsyncSession

from server import spreadsheets
from server.audit import words
from server.audit.actions import Action, actions_of
from server.audit.actors import circumstances, named
from server.audit.schemas import ActorView, AuditEntryView, Filter, Subject, SubjectView
from server.db.models import AuditEntry, Person, Tenant, now
from server.db.scope import across_tenants, of_installation, of_operator, of_tenant
from server.errors import Invalid

PAGE = 50
MAX_EXPORTED = 50_000
"""Rows of a file: some 15 MB, made in memory."""
OPERATOR = "the operator of this server"
"""Who an operator is to a tenant's people."""
MAX_VALUE = 300  # characters of a value that is recorded
COLUMNS = (
    "at",
    "tenant",
    "by",
    "by_kind",
    "by_id",
    "action",
    "text",
    "subject_kind",
    "subject",
    "subject_id",
    "details",
    "address",
    "request_id",
)


def record(
    session: AsyncSession,
    action: Action,
    *,
    tenant_id: str | None,
    subject: Subject | None = None,
    details: Mapping[str, Any] | None = None,
    actor: str | None = None,
) -> None:
    """Add an entry to the transaction of the change.

    Args:
        session: the transaction; nothing is sent before it is flushed.
        action: what was done.
        tenant_id: whose log it belongs to; None: to the installation's, as what outlives a tenant does.
        subject: what it was done to.
        details: JSON that says more, without secrets; ``{"changes": changes(...)}`` for changed fields.
            What is None is left out.
        actor: who did it, as other records of the same change name them, where the service was
            told. Else it is who acts now.
    """
    at = circumstances()
    who = at.actor
    if actor is not None and actor != who.reference:
        who = named(actor)
    session.add(
        AuditEntry(
            tenant_id=tenant_id,
            actor_kind=who.kind,
            actor_id=who.id,
            actor_name=who.name,
            by_operator=who.is_operator or at.actor.is_operator,
            action=action,
            subject_kind=subject.kind if subject else None,
            subject_id=subject.id if subject else None,
            subject_name=subject.name if subject else "",
            details=_short(msgspec.to_builtins(_known(details or {}))),
            request_id=at.request_id,
            address=at.address,
        )
    )


def fields_of(row: object, names: Collection[str]) -> dict[str, Any]:
    """These fields of a row as they are now, to compare with what they become."""
    return {name: plain(getattr(row, name)) for name in names}


def plain(value: object) -> Any:  # noqa: ANN401 - any JSON
    """A value as JSON; a struct with all of its fields, those that are not set too."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    return msgspec.to_builtins(value)


def changes(
    before: Mapping[str, Any], after: Mapping[str, Any], *, private: Collection[str] = ()
) -> list[dict[str, Any]]:
    """The fields that differ, each with its old and new value; of a ``private`` one only its name.

    What differs within an object is listed by itself: ``limits.tokens_per_day``.
    """
    found = []
    for name, old in before.items():
        new = after[name]
        if old == new:
            continue
        if name in private:
            found.append({"field": name})
            continue
        found += list(_parts(name, old, new)) or [{"field": name, "old": old, "new": new}]
    return found


async def list_entries(
    session: AsyncSession,
    tenant_id: str | None,
    *,
    for_operator: bool = False,
    matching: Filter | None = None,
    after: str | None = None,
    limit: int = PAGE,
) -> list[AuditEntryView]:
    """A tenant's entries, or with None all there are, newest first, behind the entry ``after``.

    Unless they are ``for_operator``, they do not say who an operator is, and from where one came; nor
    can that be found out by filtering.
    """
    matching = matching or Filter()
    scope = (
        across_tenants("an operator reads the whole log")
        if tenant_id is None
        else of_tenant(tenant_id)
    )
    query = scope.select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if after is not None:
        query = query.where(AuditEntry.id < after)
    if matching.by.strip():
        query = query.where(_is_by(matching.by.strip(), for_operator=for_operator))
    if matching.group is not None:
        query = query.where(AuditEntry.action.in_(actions_of(matching.group)))
    if matching.first is not None:
        query = query.where(
            AuditEntry.created_at >= datetime.combine(matching.first, time.min, UTC)
        )
    if matching.last is not None:
        query = query.where(AuditEntry.created_at <= datetime.combine(matching.last, time.max, UTC))
    rows = list(await session.scalars(query))
    slugs = await _slugs_of(session, {row.tenant_id for row in rows if row.tenant_id is not None})
    if for_operator:
        return [_view(row, slugs) for row in rows]
    operators = await _operators_among(session, rows)
    return [_view(row, slugs, hides=True, operators=operators) for row in rows]


def _is_by(words: str, *, for_operator: bool) -> ColumnElement[bool]:
    name = AuditEntry.actor_name.icontains(words, autoescape=True)
    found = or_(AuditEntry.actor_id == words, name)
    if for_operator:
        return found
    found = and_(found, AuditEntry.by_operator.is_(False))
    return or_(found, AuditEntry.by_operator) if words.lower() in OPERATOR else found


async def _operators_among(session: AsyncSession, rows: Sequence[AuditEntry]) -> set[str]:
    """The operators to whom something was done."""
    ids = {row.subject_id for row in rows if row.subject_kind == "person"}
    query = of_installation().select(Person.id)
    query = query.where(Person.id.in_(ids), Person.is_operator.is_(True))
    return set(await session.scalars(query)) if ids else set()


async def export(
    session: AsyncSession,
    tenant_id: str | None,
    *,
    for_operator: bool = False,
    matching: Filter | None = None,
) -> list[AuditEntryView]:
    """Every entry that matches, for a file, as ``list_entries`` has them.

    Raises:
        Invalid: there are more than ``MAX_EXPORTED``.
    """
    found = await list_entries(
        session,
        tenant_id,
        for_operator=for_operator,
        matching=matching,
        limit=MAX_EXPORTED + 1,
    )
    if len(found) > MAX_EXPORTED:
        raise Invalid(
            f"That would be more than {MAX_EXPORTED:,} rows: ask for fewer days.",
            param="first",
            code="too_many_rows",
        )
    return found


async def was_recorded(
    session: AsyncSession, action: Action, *, subject: Subject, within: timedelta
) -> bool:
    """Whether the installation's log has this of late, of this subject and from where it comes now."""
    query = (
        of_operator()
        .select(AuditEntry.id)
        .where(
            AuditEntry.created_at > now() - within,
            AuditEntry.action == action,
            AuditEntry.subject_id == subject.id,
            AuditEntry.address == circumstances().address,
        )
    )
    return await session.scalar(query.limit(1)) is not None


async def delete_expired(session: AsyncSession, *, keep_days: int) -> None:
    """Remove the entries that are older than ``keep_days``."""
    old = across_tenants("a sweep of what has expired").delete(AuditEntry)
    await session.execute(old.where(AuditEntry.created_at < now() - timedelta(days=keep_days)))


def to_csv(entries: Sequence[AuditEntryView]) -> bytes:
    """Entries, a line each."""
    return spreadsheets.to_csv(
        COLUMNS,
        (
            (
                each.created_at.isoformat(timespec="seconds"),
                each.tenant,
                each.actor.name,
                each.actor.kind,
                each.actor.id,
                each.action,
                each.text,
                each.subject.kind if each.subject else None,
                each.subject.name if each.subject else None,
                each.subject.id if each.subject else None,
                words.details_text(each),
                each.address,
                each.request_id,
            )
            for each in entries
        ),
    )


def _known(details: Mapping[str, Any]) -> dict[str, Any]:
    """What there is to say: without what is None."""
    return {name: value for name, value in details.items() if value is not None}


def _short(value: Any) -> Any:  # noqa: ANN401 - any JSON
    match value:
        case str() if len(value) > MAX_VALUE:
            return f"{value[:MAX_VALUE]}…"
        case dict():
            return {name: _short(each) for name, each in value.items()}
        case list():
            return [_short(each) for each in value]
        case _:
            return value


def _parts(name: str, old: object, new: object) -> Iterator[dict[str, Any]]:
    """What differs within an object; nothing where one of them is none."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                yield {"field": f"{name}.{key}", "old": old.get(key), "new": new.get(key)}


async def _slugs_of(session: AsyncSession, ids: Collection[str]) -> dict[str | None, str]:
    query = across_tenants("entries are listed with their tenants").select(Tenant.id, Tenant.slug)
    rows = await session.execute(query.where(Tenant.id.in_(ids)))
    return {row.id: row.slug for row in rows}


def _view(
    row: AuditEntry,
    slugs: Mapping[str | None, str],
    *,
    hides: bool = False,
    operators: Collection[str] = (),
) -> AuditEntryView:
    hidden = hides and row.by_operator
    actor = ActorView(row.actor_kind, row.actor_id, row.actor_name)
    if hidden:
        actor = ActorView("operator", None, OPERATOR)
    subject = None
    if row.subject_kind == "person" and row.subject_id in operators:
        subject = SubjectView(row.subject_kind, "", OPERATOR)
    elif row.subject_kind is not None:
        subject = SubjectView(row.subject_kind, row.subject_id or "", row.subject_name)
    return AuditEntryView(
        id=row.id,
        created_at=row.created_at,
        tenant=slugs.get(row.tenant_id),
        actor=actor,
        action=row.action,
        text=words.sentence(actor, row.action, subject),
        subject=subject,
        details=row.details,
        request_id=row.request_id or None,
        address=None if hidden else row.address or None,
    )
