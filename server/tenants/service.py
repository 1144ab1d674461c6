"""Tenants: who owns everything else."""

from collections.abc import Collection

import msgspec
from sqlalchemy import delete as sql_delete
from sqlalchemy import exists, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.errors import BadPattern
from connectors.redaction.redactor import Redactor
from server.auth.keys import limits_of, stored_limits
from server.db.models import (
    FINISHED_JOB_STATES,
    Adapter,
    DatasetVersion,
    Job,
    Tenant,
)
from server.errors import Conflict, Invalid, NotFound
from server.storage.references import owned_by
from server.tenants.schemas import TenantPatch, TenantRequest, TenantView


class Leftovers(msgspec.Struct, frozen=True):
    """What a deleted tenant leaves outside the database, for the caller to remove after commit.

    ``blobs``: what it referred to; others may too, so remove them with ``holdings.try_discard``.
    """

    engine_names: tuple[str, ...]
    blobs: tuple[str, ...]
    datasets: tuple[str, ...]


async def create(
    session: AsyncSession, request: TenantRequest, *, reserved: Collection[str] = ()
) -> Tenant:
    """Add a tenant. ``reserved`` slugs mean something else already: the base's name.

    Raises:
        Conflict: the slug is taken.
        Invalid: a number pattern is unsafe or no pattern.
    """
    _check_patterns(request.number_patterns)
    tenant = Tenant(
        slug=request.slug,
        name=request.name or request.slug,
        system_prompt=request.system_prompt,
        custom_patterns=dict(request.number_patterns),
        allowlist=list(request.keep),
        keep_upload_days=request.keep_upload_days,
        limits=stored_limits(request.limits),
    )
    taken = Conflict(f"The slug '{request.slug}' is taken.", param="slug", code="slug_taken")
    if request.slug in reserved:
        raise taken
    try:
        async with session.begin_nested():
            session.add(tenant)
    except IntegrityError as exc:
        raise taken from exc
    return tenant


async def get(session: AsyncSession, slug: str, *, lock: bool = False) -> Tenant:
    """The tenant of this slug; ``lock`` keeps others from changing its row until the end.

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
    """Whether a tenant is there; one that is cannot be deleted before the transaction's end."""
    query = select(Tenant.id).where(Tenant.id == tenant_id)
    # the lock that a row's foreign key takes: it waits for nothing but a deletion
    found = await session.scalar(query.with_for_update(read=True, key_share=True))
    return found is not None


async def hold_transcripts(session: AsyncSession, tenant_id: str) -> bool:
    """Let nobody else add or remove a tenant's conversations until the transaction ends.

    False where the tenant is gone. On PostgreSQL this lock leaves those alone who only refer to the
    tenant; on SQLite whoever writes is the only one.
    """
    query = select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True)
    return await session.scalar(query) is not None


async def list_all(session: AsyncSession) -> list[Tenant]:
    """Every tenant, by slug."""
    return list(await session.scalars(select(Tenant).order_by(Tenant.slug)))


async def update(session: AsyncSession, slug: str, patch: TenantPatch) -> Tenant:
    """Change what the patch holds.

    Raises:
        NotFound: there is no such tenant.
        Invalid: a number pattern is unsafe or no pattern.
    """
    tenant = await get(session, slug, lock=True)
    if patch.name is not msgspec.UNSET:
        tenant.name = patch.name
    if patch.system_prompt is not msgspec.UNSET:
        tenant.system_prompt = patch.system_prompt
    if patch.number_patterns is not msgspec.UNSET:
        _check_patterns(patch.number_patterns)
        tenant.custom_patterns = dict(patch.number_patterns)
    if patch.keep is not msgspec.UNSET:
        tenant.allowlist = list(patch.keep)
    if patch.keep_upload_days is not msgspec.UNSET:
        tenant.keep_upload_days = patch.keep_upload_days
    if patch.limits is not msgspec.UNSET:
        tenant.limits = stored_limits(patch.limits)
    await session.flush()
    return tenant


async def delete(session: AsyncSession, slug: str) -> Leftovers:
    """Remove a tenant and all that it owns.

    Raises:
        NotFound: there is no such tenant.
        Conflict: a job of it is not finished.
    """
    tenant = await get(session, slug, lock=True)
    unfinished = exists().where(Job.tenant_id == tenant.id, Job.state.not_in(FINISHED_JOB_STATES))
    if await session.scalar(select(unfinished)):
        raise Conflict(
            f"A job of '{slug}' is not finished: cancel it first.", code="job_in_progress"
        )
    names = await session.scalars(select(Adapter.engine_name).where(Adapter.tenant_id == tenant.id))
    leftovers = Leftovers(
        engine_names=tuple(names),
        blobs=tuple(await owned_by(session, tenant.id)),
        datasets=await _only_of_it(session, tenant.id),
    )
    await session.execute(sql_delete(Tenant).where(Tenant.id == tenant.id))
    return leftovers


async def view(session: AsyncSession, tenant: Tenant) -> TenantView:
    """A tenant as people see it."""
    return (await views(session, [tenant]))[0]


async def views(session: AsyncSession, tenants: list[Tenant]) -> list[TenantView]:
    """Tenants as people see them, with one query for all."""
    live = [tenant.live_adapter_id for tenant in tenants if tenant.live_adapter_id]
    rows = await session.execute(select(Adapter.id, Adapter.version).where(Adapter.id.in_(live)))
    versions = {row.id: row.version for row in rows}
    return [
        TenantView(
            slug=tenant.slug,
            name=tenant.name,
            system_prompt=tenant.system_prompt,
            number_patterns=tenant.custom_patterns,
            keep=tenant.allowlist,
            keep_upload_days=tenant.keep_upload_days,
            limits=limits_of(tenant.limits),
            live_version=versions.get(tenant.live_adapter_id or ""),
            live_revision=tenant.live_revision,
            created_at=tenant.created_at,
            updated_at=tenant.updated_at,
        )
        for tenant in tenants
    ]


async def _only_of_it(session: AsyncSession, tenant_id: str) -> tuple[str, ...]:
    """Hashes of this tenant's datasets that no other tenant has too."""
    hashes = select(DatasetVersion.sha256)
    others = hashes.where(DatasetVersion.tenant_id != tenant_id)
    query = hashes.where(
        DatasetVersion.tenant_id == tenant_id, DatasetVersion.sha256.not_in(others)
    )
    return tuple(await session.scalars(query.distinct()))


def _check_patterns(patterns: dict[str, str]) -> None:
    try:
        Redactor(patterns)
    except BadPattern as exc:
        raise Invalid(f"number_patterns: {exc}.", param="number_patterns") from exc
