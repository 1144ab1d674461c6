"""Tenants, which own all other rows."""

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import and_, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.errors import BadPattern
from connectors.redaction.redactor import Redactor
from server.audit import service as audit
from server.audit.actions import Action
from server.audit.schemas import Subject
from server.db.models import (
    FINISHED_JOB_STATES,
    Adapter,
    Canary,
    DatasetVersion,
    Job,
    Tenant,
)
from server.db.scope import across_tenants, of_tenant
from server.errors import Conflict, Invalid, NotFound
from server.storage.references import owned_by
from server.tenants.schemas import TenantCanary, TenantPatch, TenantRequest, TenantView

_PLAIN_FIELDS = (
    "name",
    "system_prompt",
    "keep_upload_days",
    "retrieval",
    "show_sources",
    "when_unsupported",
)
SETTINGS = (*_PLAIN_FIELDS, "custom_patterns", "allowlist", "masked_terms")
PRIVATE = frozenset({"system_prompt", "custom_patterns", "allowlist", "masked_terms"})
"""Settings whose values the audit log does not repeat: it says that they were changed."""


class Leftovers(msgspec.Struct, frozen=True):
    """What a deleted tenant leaves outside the database, for the caller to remove after the commit.

    Other tenants may refer to the same ``blobs``: remove them with ``try_delete_unreferenced``.
    """

    engine_names: tuple[str, ...]
    blobs: tuple[str, ...]
    datasets: tuple[str, ...]


async def create(
    session: AsyncSession, request: TenantRequest, *, reserved: Collection[str] = ()
) -> Tenant:
    """Add a tenant. ``reserved`` slugs are taken by other models: the base's name.

    Raises:
        Conflict: the slug is taken.
        Invalid: a custom pattern is unsafe or no pattern.
    """
    patterns = request.custom_patterns or {}
    _check_patterns(patterns)
    tenant = Tenant(
        slug=request.slug,
        name=request.name or request.slug,
        system_prompt=request.system_prompt,
        custom_patterns=dict(patterns),
        allowlist=list(request.allowlist or ()),
        masked_terms=list(request.masked_terms),
        keep_upload_days=request.keep_upload_days,
        retrieval=request.retrieval,
        show_sources=request.show_sources,
        when_unsupported=request.when_unsupported,
        limits=request.limits,
    )
    taken = Conflict(f"The slug '{request.slug}' is taken.", param="slug", code="slug_taken")
    if request.slug in reserved:
        raise taken
    try:
        async with session.begin_nested():
            session.add(tenant)
    except IntegrityError as exc:
        raise taken from exc
    details = {"name": tenant.name, "limits": tenant.limits}
    audit.record(
        session, "tenant.created", tenant_id=tenant.id, subject=subject(tenant), details=details
    )
    return tenant


async def get(session: AsyncSession, slug: str, *, lock: bool = False) -> Tenant:
    """The tenant of this slug; ``lock`` keeps others from changing it until the transaction ends.

    Raises:
        NotFound: there is none.
    """
    query = select(Tenant).where(Tenant.slug == slug)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    tenant = (await session.scalars(query)).one_or_none()
    if tenant is None:
        raise NotFound(f"There is no tenant '{slug}'.", code="tenant_not_found")
    return tenant


async def get_by_id(session: AsyncSession, tenant_id: str) -> Tenant:
    """The tenant of this id.

    Raises:
        NotFound: it is gone.
    """
    tenant = await session.get(Tenant, tenant_id)
    if tenant is None:
        raise NotFound("This tenant is gone.", code="tenant_not_found")
    return tenant


async def exists_for_update(session: AsyncSession, tenant_id: str) -> bool:
    """Whether a tenant exists; if so it cannot be deleted before the transaction ends."""
    query = of_tenant(tenant_id).select(Tenant.id)
    # the lock that a row's foreign key takes: it waits for nothing but a deletion
    found = await session.scalar(query.with_for_update(read=True, key_share=True))
    return found is not None


async def lock_transcripts(session: AsyncSession, tenant_id: str) -> bool:
    """Keep other transactions from adding or removing a tenant's conversations until this one ends.

    False where the tenant is gone. On PostgreSQL the lock does not stop rows that only refer to the
    tenant; on SQLite there is one writer at a time.
    """
    query = of_tenant(tenant_id).select(Tenant.id).with_for_update(key_share=True)
    return await session.scalar(query) is not None


async def list_all(session: AsyncSession) -> list[Tenant]:
    """Every tenant, by slug."""
    return list(await session.scalars(select(Tenant).order_by(Tenant.slug)))


async def list_for(
    session: AsyncSession,
    tenant_ids: Collection[str] | None,
    *,
    limit: int,
    after: str | None = None,
) -> list[Tenant]:
    """Tenants by name, among ``tenant_ids`` or, with None, among all.

    ``after``: a slug; the list begins behind that tenant, if there is one.
    """
    query = across_tenants("a person may belong to several tenants").select(Tenant)
    if tenant_ids is not None:
        query = query.where(Tenant.id.in_(tenant_ids))
    if after is not None:
        last = across_tenants("only where a list goes on").select(Tenant.name)
        name = last.where(Tenant.slug == after).scalar_subquery()
        query = query.where(or_(Tenant.name > name, and_(Tenant.name == name, Tenant.slug > after)))
    return list(await session.scalars(query.order_by(Tenant.name, Tenant.slug).limit(limit)))


async def names_of(
    session: AsyncSession, tenant_ids: Collection[str]
) -> dict[str, tuple[str, str]]:
    """(slug, name) of tenants by id; those that are gone are absent."""
    query = across_tenants("an operator sees who uses the engine").select(
        Tenant.id, Tenant.slug, Tenant.name
    )
    rows = await session.execute(query.where(Tenant.id.in_(tenant_ids)))
    return {tenant_id: (slug, name) for tenant_id, slug, name in rows}


async def update(session: AsyncSession, slug: str, patch: TenantPatch) -> Tenant:
    """Change what the patch holds.

    Raises:
        NotFound: there is no such tenant.
        Invalid: a custom pattern is unsafe or no pattern.
    """
    tenant = await get(session, slug, lock=True)
    before = audit.fields_of(tenant, SETTINGS), _limits(tenant)
    for field in _PLAIN_FIELDS:
        value = getattr(patch, field)
        if value is not msgspec.UNSET:
            setattr(tenant, field, value)
    if patch.custom_patterns is not msgspec.UNSET:
        _check_patterns(patch.custom_patterns)
        tenant.custom_patterns = dict(patch.custom_patterns)
    if patch.allowlist is not msgspec.UNSET:
        tenant.allowlist = list(patch.allowlist)
    if patch.masked_terms is not msgspec.UNSET:
        tenant.masked_terms = list(patch.masked_terms)
    if patch.limits is not msgspec.UNSET:
        tenant.limits = patch.limits
    await session.flush()
    after = audit.fields_of(tenant, SETTINGS), _limits(tenant)
    actions: tuple[Action, Action] = ("tenant.changed", "tenant.limits_changed")
    for action, was, becomes in zip(actions, before, after, strict=True):
        if changed := audit.changes(was, becomes, private=PRIVATE):
            audit.record(
                session,
                action,
                tenant_id=tenant.id,
                subject=subject(tenant),
                details={"changes": changed},
            )
    return tenant


async def delete(session: AsyncSession, slug: str) -> Leftovers:
    """Remove a tenant and all that it owns.

    Raises:
        NotFound: there is no such tenant.
        Conflict: a job of it is not finished.
    """
    tenant = await get(session, slug, lock=True)
    scope = of_tenant(tenant.id)
    unfinished = scope.select(Job.id).where(Job.state.not_in(FINISHED_JOB_STATES)).limit(1)
    if await session.scalar(unfinished) is not None:
        raise Conflict(
            f"A job of '{slug}' is not finished: cancel it first.", code="job_in_progress"
        )
    names = await session.scalars(scope.select(Adapter.engine_name))
    leftovers = Leftovers(
        engine_names=tuple(names),
        blobs=tuple(await owned_by(session, tenant.id)),
        datasets=await _only_of_it(session, tenant.id),
    )
    # of the installation: the tenant's own log goes with it
    audit.record(session, "tenant.deleted", tenant_id=None, subject=subject(tenant))
    await session.execute(scope.delete(Tenant))
    return leftovers


def subject(tenant: Tenant) -> Subject:
    """A tenant as the audit log names it."""
    return Subject("tenant", tenant.id, tenant.slug)


async def view(session: AsyncSession, tenant: Tenant) -> TenantView:
    """A tenant as the API shows it."""
    return (await views(session, [tenant]))[0]


async def views(session: AsyncSession, tenants: list[Tenant]) -> list[TenantView]:
    """Tenants as the API shows them, with two queries for all."""
    live = [tenant.live_adapter_id for tenant in tenants if tenant.live_adapter_id]
    all_tenants = across_tenants("tenants are listed with their live versions")
    query = all_tenants.select(Adapter.id, Adapter.version)
    rows = await session.execute(query.where(Adapter.id.in_(live)))
    versions = {row.id: row.version for row in rows}
    tried = all_tenants.select(Canary.tenant_id, Canary.percent, Canary.since, Adapter.version)
    rows = await session.execute(
        tried.join(
            Adapter, and_(Adapter.id == Canary.adapter_id, Adapter.tenant_id == Canary.tenant_id)
        ).where(Canary.tenant_id.in_([tenant.id for tenant in tenants]))
    )
    canaries = {
        row.tenant_id: TenantCanary(version=row.version, percent=row.percent, since=row.since)
        for row in rows
    }
    return [
        TenantView(
            slug=tenant.slug,
            name=tenant.name,
            system_prompt=tenant.system_prompt,
            custom_patterns=tenant.custom_patterns,
            allowlist=tenant.allowlist,
            masked_terms=tenant.masked_terms,
            keep_upload_days=tenant.keep_upload_days,
            retrieval=tenant.retrieval,
            show_sources=tenant.show_sources,
            when_unsupported=tenant.when_unsupported,
            limits=tenant.limits,
            live_version=versions.get(tenant.live_adapter_id or ""),
            live_revision=tenant.live_revision,
            canary=canaries.get(tenant.id),
            created_at=tenant.created_at,
            updated_at=tenant.updated_at,
        )
        for tenant in tenants
    ]


def _limits(tenant: Tenant) -> dict[str, Any]:
    return {"limits": audit.plain(tenant.limits or "the installation's")}


async def _only_of_it(session: AsyncSession, tenant_id: str) -> tuple[str, ...]:
    """Hashes of the datasets that this tenant has and no other."""
    all_tenants = across_tenants("equal datasets of several tenants are one folder")
    others = all_tenants.select(DatasetVersion.sha256).where(DatasetVersion.tenant_id != tenant_id)
    scope = of_tenant(tenant_id).select(DatasetVersion.sha256).distinct()
    return tuple(await session.scalars(scope.where(DatasetVersion.sha256.not_in(others))))


def _check_patterns(patterns: dict[str, str]) -> None:
    try:
        Redactor(patterns)
    except BadPattern as exc:
        raise Invalid(f"custom_patterns: {exc}.", param="custom_patterns") from exc
