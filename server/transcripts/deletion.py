"""Deleting an import, with what came from it.

Its conversations go, but those that another import holds too. What was learnt from them stays and is
named: a dataset version is the immutable record of what an adapter was trained on, and is removed
with the import only where that is asked for; adapters are deleted as models.
"""

import asyncio
import shutil
from collections.abc import Sequence

import msgspec
from sqlalchemy import and_, exists, func, or_, select, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import (
    FINISHED_JOB_STATES,
    Adapter,
    ConversationRow,
    DatasetVersion,
    Import,
    ImportedAgain,
    Job,
    SourceFile,
    Tenant,
)
from server.db.session import Database
from server.errors import Conflict, NotFound
from server.files import originals
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.references import try_delete_unreferenced
from server.tenants import service as tenants
from server.transcripts.schemas import ImportDeletion

# of a job that has learnt what it learns: a person's decision changes nothing about that
_LEARNT = (*FINISHED_JOB_STATES, "awaiting_approval")


class Leftovers(msgspec.Struct, frozen=True):
    """What is left outside the database, for the caller to remove after commit (``remove``)."""

    blobs: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


async def delete_import(
    session: AsyncSession, slug: str, import_id: str, *, datasets: bool = False
) -> tuple[ImportDeletion, Leftovers]:
    """Delete an import and its conversations; ``datasets``: the dataset versions of them as well.

    Raises:
        NotFound: there is no such tenant, or it has no such import.
        Conflict: it is being read, or a job is learning from it.
    """
    tenant = await tenants.get(session, slug)
    await tenants.hold_transcripts(session, tenant.id)
    found = select(Import).where(Import.tenant_id == tenant.id, Import.id == import_id)
    row = (await session.scalars(found.with_for_update())).one_or_none()
    if row is None:
        raise NotFound(f"There is no import '{import_id}'.", code="import_not_found")
    if row.state == "running":
        raise Conflict(
            f"Import '{import_id}' is being read: delete it when that has ended.",
            code="import_running",
        )
    holding = await _datasets_of(session, row)
    await _expect_no_learner(session, tenant, holding)
    adapters = await _learnt_from(session, tenant, holding)
    deleted, kept = await _delete_conversations(session, row)
    source = await originals.lock(session, SourceFile.id == row.source_file_id)
    await session.execute(sql_delete(Import).where(Import.id == row.id))
    blobs: tuple[str, ...] = ()
    shared = exists().where(Import.source_file_id == row.source_file_id)
    if source is not None and not await session.scalar(select(shared)):
        blobs = (source.sha256,)
        await session.execute(sql_delete(SourceFile).where(SourceFile.id == source.id))
    gone = await _delete_datasets(session, holding) if datasets else ()
    return (
        ImportDeletion(
            id=import_id,
            conversations_deleted=deleted,
            conversations_kept=kept,
            datasets=[dataset.sha256 for dataset in holding],
            datasets_deleted=datasets,
            adapters=[f"{slug}@{adapter.version}" for adapter in adapters],
        ),
        Leftovers(blobs, gone),
    )


async def remove(
    leftovers: Leftovers, *, database: Database, blobs: BlobStore, settings: Settings
) -> None:
    """Remove what a deletion left outside the database, once it is committed."""
    await database.scrub()
    await try_delete_unreferenced(database, blobs, *leftovers.blobs)
    for sha256 in leftovers.datasets:
        await asyncio.to_thread(shutil.rmtree, settings.datasets / sha256, ignore_errors=True)


async def _datasets_of(session: AsyncSession, row: Import) -> list[DatasetVersion]:
    """The dataset versions that were made of an import's conversations among others, oldest first.

    Where that was not noted (by older versions): all since.
    """
    query = select(DatasetVersion).where(DatasetVersion.tenant_id == row.tenant_id)
    return [
        dataset
        for dataset in await session.scalars(query.order_by(DatasetVersion.id))
        if (
            row.id in dataset.import_ids
            if dataset.import_ids is not None
            else dataset.created_at >= row.created_at
        )
    ]


async def _expect_no_learner(
    session: AsyncSession, tenant: Tenant, holding: Sequence[DatasetVersion]
) -> None:
    """Refuse while a job learns from the import, or reads what it is to learn.

    A queued job has read nothing yet. One that begins to waits for ``tenants.hold_transcripts``.
    """
    reading = and_(Job.dataset_id.is_(None), Job.state != "queued", Job.training_file_id.is_(None))
    learner = await session.scalar(
        select(Job.id)
        .where(Job.tenant_id == tenant.id, Job.state.not_in(_LEARNT))
        .where(or_(Job.dataset_id.in_([each.id for each in holding]), reading))
        .limit(1)
    )
    if learner is not None:
        raise Conflict(
            f"Job {learner} is learning from it: wait for its end, or cancel it.",
            code="job_in_progress",
        )


async def _learnt_from(
    session: AsyncSession, tenant: Tenant, holding: Sequence[DatasetVersion]
) -> list[Adapter]:
    """Adapters that were trained on these datasets, or began with the weights of one that was."""
    query = select(Adapter).where(Adapter.tenant_id == tenant.id, Adapter.state != "deleted")
    adapters = list(await session.scalars(query.order_by(Adapter.version)))
    begun = select(Job.id, Job.start_adapter_id).where(
        Job.tenant_id == tenant.id, Job.start_adapter_id.is_not(None)
    )
    starts = {row.id: row.start_adapter_id for row in await session.execute(begun)}
    datasets = {dataset.id for dataset in holding}
    found = {adapter.id for adapter in adapters if adapter.dataset_id in datasets}
    while True:
        more = {a.id for a in adapters if starts.get(a.job_id or "") in found} - found
        if not more:
            return [adapter for adapter in adapters if adapter.id in found]
        found |= more


async def _delete_conversations(session: AsyncSession, row: Import) -> tuple[int, int]:
    """(how many went, how many stay because another import has them too)."""
    ours = select(func.count()).where(ImportedAgain.import_id == row.id)
    foreign = await session.scalar(ours) or 0
    next_holder = (
        select(func.min(ImportedAgain.import_id))
        .where(ImportedAgain.conversation_id == ConversationRow.id)
        .scalar_subquery()
    )
    has_other = exists().where(ImportedAgain.conversation_id == ConversationRow.id)
    moved = await session.scalars(
        update(ConversationRow)
        .where(ConversationRow.import_id == row.id, has_other)
        .values(import_id=next_holder)
        .returning(ConversationRow.id)
        .execution_options(synchronize_session=False)
    )
    moved_count = len(list(moved))
    first = exists().where(
        ConversationRow.id == ImportedAgain.conversation_id,
        ConversationRow.import_id == ImportedAgain.import_id,
    )
    await session.execute(
        sql_delete(ImportedAgain)
        .where(ImportedAgain.tenant_id == row.tenant_id, first)
        .execution_options(synchronize_session=False)
    )
    gone = await session.scalars(
        sql_delete(ConversationRow)
        .where(ConversationRow.import_id == row.id)
        .returning(ConversationRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(list(gone)), moved_count + foreign


async def _delete_datasets(
    session: AsyncSession, holding: Sequence[DatasetVersion]
) -> tuple[str, ...]:
    """Delete the rows; hashes of those whose folder no other tenant's row refers to."""
    ids = [dataset.id for dataset in holding]
    hashes = {dataset.sha256 for dataset in holding}
    await session.execute(sql_delete(DatasetVersion).where(DatasetVersion.id.in_(ids)))
    left = select(DatasetVersion.sha256).where(DatasetVersion.sha256.in_(hashes))
    return tuple(hashes.difference(await session.scalars(left)))
