"""A tenant's versions as people choose among them: how each stands, its main figures, and what may be done.

Lists load no report: of it they read single figures. They are paged by the last row's version.
"""

import datetime
from collections.abc import Collection, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Row, Select, and_, func
from sqlalchemy.ext.asyncio import AsyncSession

from server import spreadsheets
from server.adapters.changes import running_canary
from server.db.models import (
    MAX_NUMBER,
    Adapter,
    Canary,
    DatasetVersion,
    Job,
    Promotion,
    Tenant,
)
from server.db.scope import of_tenant
from server.errors import NotFound
from training.results import LanguageCoverage, TopicCoverage, languages_of_topics

Standing = Literal[
    "live",
    "waiting",
    "approved",
    "ready",
    "undecided",
    "replaced",
    "rejected",
    "failed",
    "unsafe",
]
PAGE = 25
CSV_COLUMNS = (
    "version",
    "standing",
    "base",
    "perplexity",
    "token_f1",
    "parity",
    "conversations",
    "created_at",
    "job",
)


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version.

    ``standing``: ``waiting`` for a person's decision, ``approved`` and about to go live, ``replaced``
    was live once. ``promotable``: a person may make it live, by ``service.promote`` without force.
    ``perplexity`` and ``token_f1`` are of held-out conversations; ``parity`` is how far trainer and
    engine are apart, in nats a token on average; None is not measured. ``conversations``: that it was
    trained for, held-out ones included. ``canary_percent``: of requests that it answers as the canary,
    None where it is none. ``triable``: a person may let it answer a share, by ``canary.start``.
    """

    version: int
    name: str
    standing: Standing
    promotable: bool
    triable: bool
    canary_percent: int | None
    base: str
    perplexity: float | None
    token_f1: float | None
    parity: float | None
    conversations: int | None
    created_at: datetime.datetime
    job_id: str | None


async def list_versions(
    session: AsyncSession, tenant: Tenant, *, limit: int = PAGE, below: int | None = None
) -> list[Version]:
    """The tenant's versions but deleted ones, newest first, from under the version ``below`` on."""
    query = _query(tenant).order_by(Adapter.version.desc()).limit(limit)
    if below is not None:
        query = query.where(Adapter.version < min(below, MAX_NUMBER))
    return await _read(session, tenant, query)


async def get_version(session: AsyncSession, tenant: Tenant, version: int) -> Version:
    """One version of this tenant.

    Raises:
        NotFound: no such version, or it was deleted.
    """
    found = []
    if 0 < version <= MAX_NUMBER:
        found = await _read(session, tenant, _query(tenant).where(Adapter.version == version))
    if not found:
        raise NotFound(f"There is no version '{tenant.slug}@{version}'.", code="adapter_not_found")
    return found[0]


class Topics(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant's conversations are about, as the evaluation of version ``name`` found it."""

    name: str
    created_at: datetime.datetime
    topics: tuple[TopicCoverage, ...]

    @property
    def thin(self) -> list[TopicCoverage]:
        """Topics where more transcripts help most: less than an even share, and replies below average."""
        scored = [each for each in self.topics if each.new is not None]
        mean = _mean_score(scored)
        return [
            each
            for each in scored
            if each.share < 1 / len(self.topics) and each.new is not None and each.new < mean
        ]

    @property
    def languages(self) -> tuple[str, ...]:
        """The columns of the map of topics by language; none where all is in one language."""
        return languages_of_topics(self.topics)

    @property
    def thin_cells(self) -> set[tuple[TopicCoverage, str]]:
        """Topics and languages where more transcripts help most: as `thin`, of the map's cells."""
        if not self.languages:
            return set()
        cells = [(topic, cell) for topic in self.topics for cell in topic.languages]
        mean = _mean_score([cell for _, cell in cells])
        even = sum(cell.conversations for _, cell in cells) / len(cells)
        return {
            (topic, cell.language)
            for topic, cell in cells
            if cell.language != "und"
            and cell.conversations < even
            and cell.new is not None
            and cell.new < mean
        }


def _mean_score(parts: Sequence[TopicCoverage | LanguageCoverage]) -> float:
    """Mean token F1 over the replies of all parts; 0 of none."""
    replies = sum(each.replies for each in parts)
    return sum((each.new or 0.0) * each.replies for each in parts) / replies if replies else 0.0


async def newest_topics(session: AsyncSession, tenant: Tenant) -> Topics | None:
    """The topics of the newest version whose evaluation found some; None where none did."""
    found = Adapter.report[("evaluation", "topics")].as_string()
    query = (
        of_tenant(tenant.id)
        .select(Adapter.version, Adapter.created_at, found.label("topics"))
        .where(Adapter.state != "deleted", func.length(found) > len("[]"))
        .order_by(Adapter.version.desc())
        .limit(1)
    )
    row = (await session.execute(query)).first()
    if row is None:
        return None
    return Topics(
        name=f"{tenant.slug}@{row.version}",
        created_at=row.created_at,
        topics=msgspec.json.decode(row.topics, type=tuple[TopicCoverage, ...]),
    )


def topics_to_csv(topics: Sequence[TopicCoverage]) -> bytes:
    """Topics, a line each; in several languages, a line for each topic and language."""
    several = bool(languages_of_topics(topics))
    return spreadsheets.to_csv(
        (
            *("words", "example", "language", "conversations", "share"),
            *("held_out_replies", "new", "lookup"),
        ),
        (
            (
                " ".join(topic.words),
                topic.example,
                part.language if isinstance(part, LanguageCoverage) else "",
                part.conversations,
                topic.share if part is topic else _part_of_share(topic, part.conversations),
                part.replies,
                "" if part.new is None else part.new,
                "" if part.lookup is None else part.lookup,
            )
            for topic in topics
            for part in (topic.languages if several and topic.languages else (topic,))
        ),
    )


def _part_of_share(topic: TopicCoverage, conversations: int) -> float:
    return round(topic.share * conversations / topic.conversations, 4)


async def list_waiting(session: AsyncSession, tenant: Tenant) -> list[Version]:
    """The versions that wait for a person's decision, newest first."""
    waiting = and_(Job.state == "awaiting_approval", Job.decision.is_(None))
    query = _query(tenant).where(waiting).order_by(Adapter.version.desc())
    return await _read(session, tenant, query)


async def newest_candidate(session: AsyncSession, tenant: Tenant, *, base: str) -> Version | None:
    """The newest version of ``base`` that is not live and answers to all of its names."""
    query = _query(tenant).where(Adapter.state != "unsafe", Adapter.base_name == base)
    if tenant.live_adapter_id is not None:
        query = query.where(Adapter.id != tenant.live_adapter_id)
    found = await _read(session, tenant, query.order_by(Adapter.version.desc()).limit(1))
    return found[0] if found else None


def to_csv(versions: Sequence[Version]) -> bytes:
    """Versions, a line each."""
    return spreadsheets.to_csv(
        CSV_COLUMNS,
        (
            (
                each.name,
                each.standing,
                each.base,
                _figure(each.perplexity),
                _figure(each.token_f1),
                _figure(each.parity),
                each.conversations,
                each.created_at.isoformat(timespec="seconds"),
                each.job_id,
            )
            for each in versions
        ),
    )


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"


def _query(tenant: Tenant) -> Select[*tuple[Any, ...]]:
    return (
        of_tenant(tenant.id)
        .select(
            Adapter.id,
            Adapter.version,
            Adapter.state,
            Adapter.base_name,
            Adapter.scores,
            Adapter.created_at,
            Adapter.job_id,
            Adapter.report[("parity", "mean_abs")].as_float().label("parity"),
        )
        .outerjoin(Job, and_(Job.id == Adapter.job_id, Job.tenant_id == Adapter.tenant_id))
        .outerjoin(
            DatasetVersion,
            and_(
                DatasetVersion.id == Adapter.dataset_id,
                DatasetVersion.tenant_id == Adapter.tenant_id,
            ),
        )
        .add_columns(Job.state.label("job_state"), Job.decision, DatasetVersion.counts)
        .where(Adapter.state != "deleted")
    )


async def _read(
    session: AsyncSession, tenant: Tenant, query: Select[*tuple[Any, ...]]
) -> list[Version]:
    rows = (await session.execute(query)).all()
    once_live = await _once_live(session, tenant, [row.id for row in rows])
    canary = await running_canary(session, tenant)
    return [_version(tenant, row, was_live=row.id in once_live, canary=canary) for row in rows]


async def _once_live(
    session: AsyncSession, tenant: Tenant, ids: Collection[str]
) -> set[str | None]:
    query = of_tenant(tenant.id).select(Promotion.to_adapter_id).distinct()
    return set(await session.scalars(query.where(Promotion.to_adapter_id.in_(ids))))


def _version(
    tenant: Tenant, row: Row[*tuple[Any, ...]], *, was_live: bool, canary: Canary | None
) -> Version:
    standing = _standing(row, is_live=row.id == tenant.live_adapter_id, was_live=was_live)
    new = (row.scores or {}).get("new") or {}
    passed = row.state in {"ready", "candidate"}
    return Version(
        version=row.version,
        name=f"{tenant.slug}@{row.version}",
        standing=standing,
        promotable=passed and standing not in {"live", "waiting", "approved"},
        triable=passed and standing not in {"live", "approved"},
        canary_percent=canary.percent if canary and canary.adapter_id == row.id else None,
        base=row.base_name,
        perplexity=new.get("perplexity"),
        token_f1=new.get("token_f1") if new.get("replies") else None,
        parity=row.parity,
        conversations=sum(row.counts.values()) if row.counts else None,
        created_at=row.created_at,
        job_id=row.job_id,
    )


def _standing(  # noqa: PLR0911 - one line each
    row: Row[*tuple[Any, ...]], *, is_live: bool, was_live: bool
) -> Standing:
    if is_live:
        return "live"
    if row.state == "unsafe":
        return "unsafe"
    if row.job_state == "awaiting_approval":
        return "waiting" if row.decision is None else row.decision
    if was_live:
        return "replaced"
    if row.state == "failed_gates":
        return "failed"
    if row.decision == "rejected":
        return "rejected"
    return "ready" if row.state == "ready" else "undecided"
