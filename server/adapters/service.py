"""Adapter versions: registering, promoting, rolling back; ``names.py`` looks models' names up.

An adapter's folder never changes and its version is never given again. What is live is one row,
``Tenant.live_adapter_id``; every change of it raises ``live_revision``, leaves a ``Promotion``, and ends
the canary (``canary.py``), which was tried beside what was live.
"""

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import and_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import set_committed_value

from server.adapters import changes
from server.adapters.schemas import AdapterView, PromotionView, Ruling
from server.audit import service as audit
from server.audit.schemas import Subject
from server.db.models import (
    MAX_NUMBER,
    Adapter,
    AdapterState,
    DatasetVersion,
    Job,
    Promotion,
    PromotionKind,
    Tenant,
)
from server.db.scope import across_tenants, of_tenant
from server.errors import Conflict, NotFound
from server.settings import Settings
from training.adapters.package import Foreign, publish, read_manifest
from training.evaluation.gates import Verdict

_OF_LIVE = Promotion.kind.in_(("promote", "rollback"))


def state_of(verdict: Verdict) -> AdapterState:
    """What a new adapter's gates make of it; see `server.db.models.Adapter`."""
    if verdict.unsafe:
        return "unsafe"
    match verdict.result:
        case "better":
            return "ready"
        case "cannot_tell":
            return "candidate"
        case _:
            return "failed_gates"


async def register(
    session: AsyncSession,
    tenant: Tenant,
    job: Job | None,
    *,
    settings: Settings,
    folder: Path,
    report: dict[str, Any] | None,
    state: AdapterState,
    scores: dict[str, Any] | None = None,
) -> Adapter:
    """Give a trained folder its version; once for a job and for a folder, however often it runs.

    A folder outside ``settings.adapters`` is published there first (hashes checked, by rename).
    ``state`` is ``state_of`` its verdict. ``scores`` are the manifest's unless given; the report is
    told its version.

    Raises:
        ArtifactError: the folder is not what its manifest says.
    """
    if folder.parent != settings.adapters:
        folder = await asyncio.to_thread(publish, folder, settings.adapters, tenant.slug)
    manifest = await asyncio.to_thread(read_manifest, folder)
    await changes.lock(session, tenant)  # versions are given one at a time
    known = Adapter.engine_name == folder.name
    if job is not None:
        known |= Adapter.job_id == job.id
    # folders' names are unique over all tenants, and one is never registered for a second
    taken = across_tenants("an adapter's folder belongs to one tenant at most")
    found = (await session.scalars(taken.select(Adapter).where(known))).first()
    if found is not None:
        return found
    dataset = (
        of_tenant(tenant.id)
        .select(DatasetVersion.id)
        .where(DatasetVersion.sha256 == manifest.dataset_sha256)
    )
    adapter = Adapter(
        tenant_id=tenant.id,
        version=tenant.next_version,
        engine_name=folder.name,
        base_name=manifest.base.name,
        base_sha256=manifest.base.serving_sha256,
        system_prompt=manifest.system_prompt,
        job_id=job.id if job else None,
        dataset_id=(job and job.dataset_id) or await session.scalar(dataset),
        state=state,
        scores=msgspec.to_builtins(manifest.scores) if scores is None else scores,
        report=report and {**report, "version": tenant.next_version},
        suffix=(job and job.suffix) or "",
    )
    session.add(adapter)
    tenant.next_version += 1
    await session.flush()
    return adapter


async def get(session: AsyncSession, tenant: Tenant, *, version: int) -> Adapter:
    """One version of this tenant.

    Raises:
        NotFound: no such version, or it was deleted.
    """
    adapter = await session.scalar(
        of_tenant(tenant.id)
        .select(Adapter)
        .where(Adapter.version == version, Adapter.state != "deleted")
    )
    if adapter is None:
        raise NotFound(f"There is no adapter '{tenant.slug}@{version}'.", code="adapter_not_found")
    if adapter.report is not None and adapter.report.get("version") != version:
        # reports were once stored before they had their version; reading one changes no row
        set_committed_value(adapter, "report", {**adapter.report, "version": version})
    return adapter


async def get_by_ids(
    session: AsyncSession, tenant_id: str, ids: Collection[str | None]
) -> dict[str | None, Adapter]:
    """This tenant's versions with these ids, deleted ones too; None among them is left out."""
    wanted = [each for each in ids if each is not None]
    query = of_tenant(tenant_id).select(Adapter).where(Adapter.id.in_(wanted))
    return {adapter.id: adapter for adapter in await session.scalars(query)}


async def dataset_of(session: AsyncSession, adapter: Adapter) -> DatasetVersion | None:
    """The dataset that a version was trained for; None where it was deleted."""
    return await of_tenant(adapter.tenant_id).get(session, DatasetVersion, adapter.dataset_id)


async def list_for(session: AsyncSession, tenant: Tenant) -> list[Adapter]:
    """Every version of this tenant but deleted ones, newest first."""
    query = of_tenant(tenant.id).select(Adapter).where(Adapter.state != "deleted")
    return list(await session.scalars(query.order_by(Adapter.version.desc())))


async def promote(
    session: AsyncSession,
    tenant: Tenant,
    *,
    version: int,
    actor: str,
    expected_revision: int | None = None,
    force: bool = False,
) -> Tenant:
    """Make a version live from the next request on. The live one again changes nothing.

    A canary ends with it, of this version or of another. The caller decides: of a ``candidate`` the
    gates cannot tell, so that a person may promote it, and a job may not. Where the version's job still
    waits for approval, this is it.

    Raises:
        NotFound: no such version.
        Conflict: it failed its gates or is unsafe (without ``force``), or the live version was changed
            since ``expected_revision`` was read.
    """
    await _approve_waiting(session, tenant, version)  # jobs are locked before their tenant
    await changes.lock(session, tenant, expected_revision)
    adapter = await get(session, tenant, version=version)
    if adapter.state in {"failed_gates", "unsafe"} and not force:
        why = "failed its gates" if adapter.state == "failed_gates" else "is unsafe to serve"
        raise Conflict(
            f"'{tenant.slug}@{version}' {why} and cannot go live; read its report. "
            "The operator can promote it with force.",
            code="gates_failed",
        )
    if tenant.live_adapter_id != adapter.id:
        before = await live_version(session, tenant)
        await _make_live(session, tenant, adapter_id=adapter.id, kind="promote", actor=actor)
        audit.record(
            session,
            "adapter.promoted",
            tenant_id=tenant.id,
            subject=subject_of(tenant, adapter.id, version),
            details=_live_changes(tenant, before, version) | ({"force": True} if force else {}),
            actor=actor,
        )
    return tenant


async def _approve_waiting(session: AsyncSession, tenant: Tenant, version: int) -> None:
    scope = of_tenant(tenant.id)
    wanted = scope.select(Adapter.id).where(Adapter.version == version)
    waiting = (Job.state == "awaiting_approval", Job.decision.is_(None), Job.adapter_id.in_(wanted))
    await session.execute(scope.update(Job).where(*waiting).values(decision="approved"))


async def roll_back(
    session: AsyncSession, tenant: Tenant, *, actor: str, expected_revision: int | None = None
) -> Tenant:
    """Make live what was before the live version, further back each time; at last, the base.

    Versions deleted since are passed over. A canary ends with it.

    Raises:
        Conflict: nothing was live before, or the live version was changed since
            ``expected_revision`` was read.
    """
    await changes.lock(session, tenant, expected_revision)
    earlier = await before_live(session, tenant)
    was = await live_version(session, tenant)
    await _make_live(session, tenant, adapter_id=earlier, kind="rollback", actor=actor)
    becomes = await live_version(session, tenant)
    audit.record(
        session,
        "adapter.rolled_back",
        tenant_id=tenant.id,
        subject=subject_of(tenant, earlier, becomes),
        details=_live_changes(tenant, was, becomes),
        actor=actor,
    )
    return tenant


async def before_live(session: AsyncSession, tenant: Tenant) -> str | None:
    """The id of the version that a roll-back makes live; None is the base.

    Raises:
        Conflict: nothing was live before.
    """
    scope = of_tenant(tenant.id)
    trail: list[str | None] = [None]
    steps = scope.select(Promotion).where(_OF_LIVE).order_by(Promotion.revision)
    for step in await session.scalars(steps):
        if step.kind == "promote":
            trail.append(step.to_adapter_id)
        else:
            while len(trail) > 1 and trail[-1] != step.to_adapter_id:
                trail.pop()
    gone = scope.select(Adapter.id).where(Adapter.state == "deleted")
    deleted = set(await session.scalars(gone))
    current = trail.pop() if len(trail) > 1 else None
    while trail and (trail[-1] in deleted or trail[-1] == current):
        trail.pop()
    if not trail:
        raise Conflict(
            f"'{tenant.slug}' has no earlier version to go back to: the base answers already.",
            code="nothing_to_roll_back",
        )
    return trail[-1]


async def delete(session: AsyncSession, tenant: Tenant, *, version: int) -> str:
    """Mark a version deleted and return its engine name.

    After the commit the caller makes the engine forget it and only then removes its folder: an
    engine that is asked for an adapter whose folder is gone ends for everybody.

    Raises:
        NotFound: no such version.
        Conflict: it is live, or the canary.
    """
    await changes.lock(session, tenant)
    adapter = await get(session, tenant, version=version)
    if tenant.live_adapter_id == adapter.id:
        raise Conflict(
            f"'{tenant.slug}@{version}' is live: promote another or roll back first.",
            code="adapter_is_live",
        )
    canary = await changes.running_canary(session, tenant)
    if canary is not None and canary.adapter_id == adapter.id:
        raise Conflict(
            f"'{tenant.slug}@{version}' is the canary and answers {canary.percent} % of the requests: "
            "take it back first.",
            code="adapter_is_canary",
        )
    adapter.state = "deleted"
    await session.flush()
    audit.record(
        session,
        "adapter.deleted",
        tenant_id=tenant.id,
        subject=subject_of(tenant, adapter.id, version),
    )
    return adapter.engine_name


async def history(
    session: AsyncSession,
    tenant: Tenant,
    *,
    limit: int | None = None,
    below: int | None = None,
    version: int | None = None,
) -> list[PromotionView]:
    """Changes of what is live and of the canary, newest first.

    All of them, or ``limit`` from under the revision ``below`` on. With ``version`` only those from it,
    to it, and of it as the canary.
    """
    scope = of_tenant(tenant.id)
    rows = await session.execute(scope.select(Adapter.id, Adapter.version))
    versions = {row.id: row.version for row in rows}
    query = scope.select(Promotion).order_by(Promotion.revision.desc()).limit(limit)
    if below is not None:
        query = query.where(Promotion.revision < min(below, MAX_NUMBER))
    if version is not None:
        wanted = [each for each, number in versions.items() if number == version]
        made_live = Promotion.from_adapter_id.in_(wanted) | Promotion.to_adapter_id.in_(wanted)
        query = query.where(and_(_OF_LIVE, made_live) | Promotion.canary_adapter_id.in_(wanted))
    steps = await session.scalars(query)
    return [
        PromotionView(
            revision=step.revision,
            kind=step.kind,
            from_version=versions.get(step.from_adapter_id or ""),
            to_version=versions.get(step.to_adapter_id or ""),
            canary_version=versions.get(step.canary_adapter_id or ""),
            canary_percent=step.canary_percent,
            reason=step.reason or "",
            actor=step.actor,
            created_at=step.created_at,
        )
        for step in steps
    ]


async def live_version(session: AsyncSession, tenant: Tenant) -> int | None:
    """The version that is live; None where the base is."""
    versions = of_tenant(tenant.id).select(Adapter.version)
    return await session.scalar(versions.where(Adapter.id == tenant.live_adapter_id))


async def last_change(session: AsyncSession, tenant: Tenant) -> Promotion | None:
    """The last change of what is live; None where nothing ever was."""
    query = of_tenant(tenant.id).select(Promotion).where(_OF_LIVE)
    return await session.scalar(query.order_by(Promotion.revision.desc()).limit(1))


async def views(
    session: AsyncSession, tenant: Tenant, adapters: list[Adapter]
) -> list[AdapterView]:
    """Adapters as people see them."""
    wanted = {adapter.dataset_id for adapter in adapters if adapter.dataset_id}
    query = of_tenant(tenant.id).select(DatasetVersion.id, DatasetVersion.sha256)
    rows = await session.execute(query.where(DatasetVersion.id.in_(wanted)))
    datasets = {row.id: row.sha256 for row in rows}
    canary = await changes.running_canary(session, tenant)
    shares = {} if canary is None else {canary.adapter_id: canary.percent}
    return [
        AdapterView(
            version=adapter.version,
            model=f"{tenant.slug}@{adapter.version}",
            fine_tuned_model=fine_tuned_name(tenant.slug, adapter),
            state=adapter.state,
            live=adapter.id == tenant.live_adapter_id,
            canary_percent=shares.get(adapter.id),
            verdict=_ruling(adapter.report),
            base=adapter.base_name,
            job=adapter.job_id,
            dataset=datasets.get(adapter.dataset_id or ""),
            foreign=foreign_of(adapter),
            scores=adapter.scores,
            created_at=adapter.created_at,
        )
        for adapter in adapters
    ]


def subject_of(tenant: Tenant, adapter_id: str | None, version: int | None) -> Subject:
    """A version as the audit log names it."""
    name = f"{tenant.slug}@{version}" if version is not None else "the base"
    return Subject("adapter", adapter_id or "", name)


def _live_changes(tenant: Tenant, before: int | None, after: int | None) -> dict[str, Any]:
    names = [subject_of(tenant, None, version).name for version in (before, after)]
    return {"changes": audit.changes({"live": names[0]}, {"live": names[1]})}


def _ruling(report: dict[str, Any] | None) -> Ruling | None:
    if report is None or "verdict" not in report:
        return None
    verdict = msgspec.convert(report["verdict"], Verdict)
    return Ruling(result=verdict.result or "cannot_tell", summary=verdict.summary)


def foreign_of(adapter: Adapter) -> Foreign | None:
    """Where a version comes from that was not trained here, as its report tells."""
    found = ((adapter.report or {}).get("provenance") or {}).get("foreign")
    return None if found is None else msgspec.convert(found, Foreign)


def fine_tuned_name(slug: str, adapter: Adapter) -> str:
    """OpenAI's form of name for exactly this version: ``ft:<base>:<slug>:<suffix>:<id>``."""
    short = adapter.engine_name.rpartition(".")[2]
    return f"ft:{adapter.base_name}:{slug}:{adapter.suffix}:{short}"


async def _make_live(
    session: AsyncSession,
    tenant: Tenant,
    *,
    adapter_id: str | None,
    kind: PromotionKind,
    actor: str,
) -> None:
    canary = await changes.running_canary(session, tenant)
    if canary is not None:
        await session.delete(canary)
    await changes.add_step(
        session,
        tenant,
        kind=kind,
        actor=actor,
        to_adapter_id=adapter_id,
        canary_adapter_id=None if canary is None else canary.adapter_id,
        canary_percent=None if canary is None else canary.percent,
    )
