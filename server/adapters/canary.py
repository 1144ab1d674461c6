"""The canary: a version that answers a share of a tenant's requests before it goes live, or does not.

A tenant has at most one. Each change of it is a step beside those of what is live (``changes.py``), with the
same revision to compare with. What both versions answer is counted from the last change on, so that they
are compared over the same time: counts of a smaller share from last week would mix days with versions.
"""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

import structlog
from sqlalchemy import case, func
from sqlalchemy.ext.asyncio import AsyncSession

from server.adapters import changes, service
from server.adapters.schemas import (
    MAX_PERCENT,
    MIN_PERCENT,
    Answered,
    CanaryView,
    Comparison,
    PastCanary,
    Share,
)
from server.audit import service as audit
from server.db.models import (
    Adapter,
    Canary,
    CanaryCount,
    LiveConversation,
    LiveMessage,
    Promotion,
    Tenant,
    now,
)
from server.db.scope import of_tenant
from server.errors import Conflict, Invalid, NotFound
from training.evaluation.confidence_intervals import (
    MIN_SAMPLES,
    share_difference_interval,
    share_interval,
)

log = structlog.get_logger(__name__)

REFUSED = "The engine would not load it. The operator's log says why."


class _Period(NamedTuple):
    """From the step that set a share to the next one, which there may not be yet."""

    revision: int
    since: datetime
    until: datetime | None = None


async def start(
    session: AsyncSession,
    tenant: Tenant,
    *,
    version: int,
    percent: int,
    base: str,
    actor: str,
    expected_revision: int | None = None,
) -> Canary:
    """Let a version answer a share of the requests from now on, or change the share of the canary.

    The same share again changes nothing.

    Args:
        session: the caller commits it.
        tenant: whose.
        version: one that passed its gates, or of which they cannot tell.
        percent: of the requests, 1 to 50.
        base: the base that is served.
        actor: who does it.
        expected_revision: who answers must not have been changed since this was read.

    Raises:
        Invalid: no such share.
        NotFound: no such version.
        Conflict: it is live, it may not answer, it was trained on another base, another version is the
            canary, or who answers was changed since ``expected_revision`` was read.
    """
    if not MIN_PERCENT <= percent <= MAX_PERCENT:
        raise Invalid(
            f"A canary answers {MIN_PERCENT} to {MAX_PERCENT} % of the requests, in whole numbers.",
            param="percent",
        )
    await changes.lock(session, tenant, expected_revision)
    adapter = await service.get(session, tenant, version=version)
    _check(tenant, adapter, base=base)
    canary = await changes.running_canary(session, tenant)
    if canary is not None and canary.adapter_id != adapter.id:
        other = (await service.get_by_ids(session, tenant.id, [canary.adapter_id]))[
            canary.adapter_id
        ]
        raise Conflict(
            f"'{tenant.slug}@{other.version}' is the canary already: take it back or promote it first.",
            code="canary_is_running",
        )
    if canary is not None and canary.percent == percent:
        return canary
    before = None if canary is None else canary.percent
    step = await changes.add_step(
        session,
        tenant,
        kind="canary",
        actor=actor,
        to_adapter_id=tenant.live_adapter_id,
        canary_adapter_id=adapter.id,
        canary_percent=percent,
    )
    if canary is None:
        canary = Canary(tenant_id=tenant.id, adapter_id=adapter.id)
        session.add(canary)
    canary.percent, canary.actor = percent, actor
    canary.revision, canary.since = step.revision, now()
    await session.flush()
    audit.record(
        session,
        "adapter.canary_started" if before is None else "adapter.canary_changed",
        tenant_id=tenant.id,
        subject=service.subject_of(tenant, adapter.id, version),
        details={"changes": audit.changes({"percent": before}, {"percent": percent})},
        actor=actor,
    )
    return canary


def _check(tenant: Tenant, adapter: Adapter, *, base: str) -> None:
    """Refuse what may not answer customers.

    Raises:
        Conflict: it may not, with the reason.
    """
    name = f"{tenant.slug}@{adapter.version}"
    if adapter.id == tenant.live_adapter_id:
        raise Conflict(f"'{name}' is live: it answers already.", code="adapter_is_live")
    if adapter.state not in {"ready", "candidate"}:
        why = "is unsafe to serve" if adapter.state == "unsafe" else "failed its gates"
        raise Conflict(
            f"'{name}' {why} and cannot answer customers; read its report.", code="gates_failed"
        )
    if adapter.base_name != base:
        raise Conflict(
            f"'{name}' was trained on the base '{adapter.base_name}'; this server runs '{base}'. "
            "Train it again on this base.",
            code="base_changed",
        )


async def end(
    session: AsyncSession,
    tenant: Tenant,
    *,
    actor: str,
    reason: str | None = None,
    expected_revision: int | None = None,
) -> None:
    """Take the canary back: what is live answers everything again.

    Raises:
        NotFound: there is none (``no_canary``).
        Conflict: who answers was changed since ``expected_revision`` was read.
    """
    await changes.lock(session, tenant, expected_revision)
    canary = await changes.running_canary(session, tenant)
    if canary is None:
        raise _none_of(tenant)
    await _end(session, tenant, canary, actor=actor, reason=reason)


async def end_of(session: AsyncSession, tenant: Tenant, adapter_id: str, *, actor: str) -> None:
    """Take the canary back if it is this version: a person decided against it, or it is to be deleted."""
    await changes.lock(session, tenant)
    canary = await changes.running_canary(session, tenant)
    if canary is not None and canary.adapter_id == adapter_id:
        await _end(session, tenant, canary, actor=actor)


async def end_refused(session: AsyncSession, tenant_id: str, *, revision: int) -> None:
    """Take the canary of a step back because the engine refuses it; one that was changed since stays."""
    tenant = await of_tenant(tenant_id).get(session, Tenant, tenant_id, lock=True)
    canary = None if tenant is None else await changes.running_canary(session, tenant)
    if tenant is None or canary is None or canary.revision != revision:
        return
    log.error("canary was stopped", tenant=tenant.slug, adapter=canary.adapter_id)
    await _end(session, tenant, canary, actor="engine", reason=REFUSED)


async def _end(
    session: AsyncSession, tenant: Tenant, canary: Canary, *, actor: str, reason: str | None = None
) -> None:
    await session.delete(canary)
    await changes.add_step(
        session,
        tenant,
        kind="canary_end",
        actor=actor,
        to_adapter_id=tenant.live_adapter_id,
        canary_adapter_id=canary.adapter_id,
        canary_percent=canary.percent,
        reason=reason,
    )
    adapter = (await service.get_by_ids(session, tenant.id, [canary.adapter_id]))[canary.adapter_id]
    audit.record(
        session,
        "adapter.canary_ended",
        tenant_id=tenant.id,
        subject=service.subject_of(tenant, adapter.id, adapter.version),
        details={"percent": canary.percent, "reason": reason},
        actor=actor,
    )


async def read(session: AsyncSession, tenant: Tenant, *, base: str) -> CanaryView | None:
    """The canary, with how it does beside what is live; None where there is none."""
    canary = await changes.running_canary(session, tenant)
    if canary is None:
        return None
    both = await service.get_by_ids(session, tenant.id, [canary.adapter_id, tenant.live_adapter_id])
    adapter, live = both[canary.adapter_id], both.get(tenant.live_adapter_id)
    period = _Period(canary.revision, canary.since)
    of_canary, of_live = await _both(session, tenant, period, adapter, live)
    return CanaryView(
        version=adapter.version,
        percent=canary.percent,
        since=canary.since,
        actor=canary.actor,
        able=adapter.base_name == base,
        live_revision=tenant.live_revision,
        canary=of_canary,
        live=of_live,
        errors_compared=_compare(of_live.errors, of_canary.errors),
        liked_compared=_compare(of_canary.liked, of_live.liked),
    )


async def read_past(session: AsyncSession, tenant: Tenant, revision: int) -> PastCanary:
    """What came of the share that the step ``revision`` set, up to the step after it.

    Raises:
        NotFound: that step set no share, or the share is still that one (``no_canary``).
    """
    query = of_tenant(tenant.id).select(Promotion).order_by(Promotion.revision).limit(2)
    rows = list(await session.scalars(query.where(Promotion.revision >= revision)))
    if len(rows) < 2 or rows[0].revision != revision or rows[0].kind != "canary":  # noqa: PLR2004
        raise NotFound(
            f"'{tenant.slug}' has no canary that began with step {revision} and has ended.",
            code="no_canary",
        )
    step, after = rows
    both = await service.get_by_ids(
        session, tenant.id, [step.canary_adapter_id, step.to_adapter_id]
    )
    adapter, live = both[step.canary_adapter_id], both.get(step.to_adapter_id)
    period = _Period(revision, step.created_at, after.created_at)
    of_canary, of_live = await _both(session, tenant, period, adapter, live)
    return PastCanary(
        version=adapter.version,
        percent=step.canary_percent or 0,
        since=step.created_at,
        actor=step.actor,
        revision=revision,
        until=after.created_at,
        canary=of_canary,
        live=of_live,
        errors_compared=_compare(of_live.errors, of_canary.errors),
        liked_compared=_compare(of_canary.liked, of_live.liked),
    )


async def requests_of(
    session: AsyncSession, tenant: Tenant, revisions: Collection[int]
) -> dict[int, tuple[int, int]]:
    """How many requests the canary answered, and what was live beside it, by the step that set the share."""
    query = of_tenant(tenant.id).select(CanaryCount)
    found = {revision: [0, 0] for revision in revisions}
    for row in await session.scalars(query.where(CanaryCount.revision.in_(revisions))):
        found[row.revision][not row.is_canary] = row.requests
    return {revision: (canary, live) for revision, (canary, live) in found.items()}


async def required(session: AsyncSession, tenant: Tenant, *, base: str) -> CanaryView:
    """As ``read``.

    Raises:
        NotFound: there is none.
    """
    found = await read(session, tenant, base=base)
    if found is None:
        raise _none_of(tenant)
    return found


def _none_of(tenant: Tenant) -> NotFound:
    return NotFound(f"'{tenant.slug}' has no canary.", code="no_canary")


async def _both(
    session: AsyncSession,
    tenant: Tenant,
    period: _Period,
    adapter: Adapter,
    live: Adapter | None,
) -> tuple[Answered, Answered]:
    """What the canary and what is live answered in a period."""
    query = of_tenant(tenant.id).select(CanaryCount)
    rows = await session.scalars(query.where(CanaryCount.revision == period.revision))
    counts = {row.is_canary: row for row in rows}
    votes = await _votes(session, tenant, period)
    return (
        _answered(adapter.version, counts.get(True), votes),
        _answered(None if live is None else live.version, counts.get(False), votes),
    )


async def _votes(
    session: AsyncSession, tenant: Tenant, period: _Period
) -> dict[int | None, tuple[int, int]]:
    """(thumbs up, all votes) of the widget's answers in a period, by version."""
    rated = LiveMessage.vote.is_not(None)
    query = (
        of_tenant(tenant.id)
        .select(
            LiveMessage.adapter_version,
            func.sum(case((LiveMessage.vote == "up", 1), else_=0)).label("up"),
            func.count().label("all"),
        )
        .join(
            LiveConversation,
            (LiveConversation.id == LiveMessage.conversation_id)
            & (LiveConversation.tenant_id == LiveMessage.tenant_id),
        )
        .where(LiveConversation.last_at >= period.since, LiveMessage.created_at >= period.since)
        .where(LiveMessage.role == "assistant", LiveMessage.model.is_not(None), rated)
        .group_by(LiveMessage.adapter_version)
    )
    if period.until is not None:
        query = query.where(LiveMessage.created_at < period.until)
    return {row[0]: (int(row[1]), int(row[2])) for row in await session.execute(query)}


def _answered(
    version: int | None, count: CanaryCount | None, votes: dict[int | None, tuple[int, int]]
) -> Answered:
    requests = 0 if count is None else count.requests
    return Answered(
        version=version,
        requests=requests,
        errors=_share(0 if count is None else count.errors, requests),
        liked=_share(*votes.get(version, (0, 0))),
        prompt_tokens=0 if count is None else count.prompt_tokens,
        completion_tokens=0 if count is None else count.completion_tokens,
    )


def _share(count: int, of: int) -> Share:
    share = count / of if of else None
    ends = None if share is None else share_interval(share, of)
    low, high = ends or (None, None)
    return Share(count=count, of=of, share=share, low=low, high=high)


def _compare(more: Share, less: Share) -> Comparison:
    """Whether the first share is the greater one, which is better."""
    if min(more.of, less.of) < MIN_SAMPLES:
        return "too_little"
    low, high = share_difference_interval((more.count, more.of), (less.count, less.of))
    if low > 0:
        return "better"
    return "worse" if high < 0 else "cannot_tell"
