"""Prepare: wait for uploads, make the dataset version, freeze the articles, write the trainer's spec."""

import asyncio

import msgspec
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from server.datasets import creation
from server.db.models import Adapter, DatasetVersion, File, Import, Job, Tenant
from server.db.scope import of_tenant
from server.errors import NotFound
from server.jobs.adapter_import import FOREIGN
from server.jobs.schemas import FINAL_STATES
from server.jobs.service import foreign_of, method_of
from server.jobs.states import add_event, set_state
from server.jobs.steps.context import StepContext, Superseded, lock_job, requested_interruption
from server.jobs.trainer_process import TrainingFailed, raise_if_interrupted
from server.knowledge.pieces import freeze
from server.settings import Settings
from server.tenants import service as tenants
from training.base_models.manifest import BaseModel, load_base
from training.config import Recipe, TrainingSpec
from training.errors import BadInput, BaseModelError
from training.filesystem import write_atomically

UPLOAD_POLL_SECONDS = 0.5


async def prepare(context: StepContext, job_id: str, attempt: int) -> None:
    """Make the dataset version, freeze the articles and write ``spec.json``; later attempts use the same.

    Raises:
        Superseded: the job is not this attempt's to work on.
        TrainingFailed: too little to train on, or no such base.
        TrainingCancelled: the job's cancellation was requested.
        TrainingPaused: the job's pause was requested.
    """
    async with context.database.transaction() as session:
        job = await lock_job(session, job_id)
        if job.attempts != attempt or job.state in {*FINAL_STATES, "paused"}:
            raise Superseded
        raise_if_interrupted(requested_interruption(job))
        # a deletion of conversations has committed by now, or sees this job and is refused
        await tenants.lock_transcripts(session, job.tenant_id)
        await set_state(session, job, "validating", stage="reading what to learn from")
        tenant = await session.get_one(Tenant, job.tenant_id)
    path = context.folder(job_id) / "spec.json"
    if path.exists():
        return
    if job.training_file_id is None:
        await _wait_for_uploads(context, job)
    try:
        base = load_base(context.settings.bases / job.base)
        dataset = await _dataset(context, job)
    except (BadInput, BaseModelError) as exc:
        is_files = job.training_file_id is not None and isinstance(exc, BadInput)
        code = "invalid_training_file" if is_files else "bad_input"
        raise TrainingFailed(code, str(exc)) from exc
    async with context.database.transaction() as session:
        job = await lock_job(session, job_id)
        job.dataset_id = dataset.id
        job.progress = {**job.progress, "examples": dataset.counts.get("train", 0)}
        tenant = await session.get_one(Tenant, job.tenant_id)
        mine = of_tenant(tenant.id)
        live = await mine.get(session, Adapter, tenant.live_adapter_id)
        start = await mine.get(session, Adapter, job.start_adapter_id)
    if job.start_adapter_id and (start is None or start.state == "deleted"):
        raise TrainingFailed("model_not_found", "the model to begin with was deleted meanwhile")
    if start is not None and start.base_sha256 != base.serving_sha256:
        raise TrainingFailed(
            "base_changed", "the model to begin with was trained on another build of the base"
        )
    knowledge = await freeze(context.database, tenant, context.folder(job_id))
    spec = TrainingSpec(
        label=tenant.slug,
        base=str(context.settings.bases / job.base),
        dataset=str(context.settings.datasets / dataset.sha256),
        recipe=msgspec.convert(job.recipe, Recipe),
        seed=job.seed,
        live_adapter=_path_of(live, base, context.settings),
        method=method_of(job),
        start_adapter=_path_of(start, base, context.settings),
        imported=str(context.folder(job_id) / FOREIGN) if foreign_of(job) else None,
        knowledge=str(knowledge) if knowledge else None,
    )
    write_atomically(path, msgspec.json.format(msgspec.json.encode(spec), indent=2))


async def _wait_for_uploads(context: StepContext, job: Job) -> None:
    """Wait until the uploads that are older than the job are read: it is to learn from them.

    Raises:
        TrainingCancelled: the job was cancelled meanwhile.
        TrainingPaused: the job's pause was requested.
    """
    count = of_tenant(job.tenant_id).select(func.count(Import.id))
    unread = count.where(
        Import.state.in_(("queued", "running")), Import.created_at <= job.created_at
    )
    while True:
        raise_if_interrupted(await context.requested_interruption(job.id))
        async with context.database.reading() as session:
            if not await session.scalar(unread):
                return
        await asyncio.sleep(UPLOAD_POLL_SECONDS)


async def _dataset(context: StepContext, job: Job) -> DatasetVersion:
    """The dataset version that the job learns from, created once; a resumed job keeps it.

    Raises:
        TrainingFailed: a file was deleted since the job was made.
        BadInput: there is too little to train on.
    """
    async with context.database.reading() as session:
        if job.dataset_id is not None:
            return await of_tenant(job.tenant_id).get_one(session, DatasetVersion, job.dataset_id)
        training = await _sha256_of(session, job, "training_file")
        validation = await _sha256_of(session, job, "validation_file")
    if training is None:
        return await creation.create_version(
            context.database, job.tenant_id, settings=context.settings
        )
    try:
        created = await creation.create_from_files(
            context.database,
            job.tenant_id,
            settings=context.settings,
            blobs=context.blobs,
            method=method_of(job),
            training=training,
            validation=validation,
        )
    except NotFound as exc:
        raise TrainingFailed("invalid_training_file", exc.message) from exc
    async with context.database.transaction() as session:
        job = await lock_job(session, job.id)
        for warning in created.warnings:
            await add_event(session, job, kind="warning", body={"message": warning})
    return created.dataset


async def _sha256_of(session: AsyncSession, job: Job, which: str) -> str | None:
    """Where the bytes of a job's file are; None where it has no such file.

    Raises:
        TrainingFailed: it was deleted since the job was made.
    """
    file_id: str | None = getattr(job, f"{which}_id")
    if file_id is None:
        return None
    found = of_tenant(job.tenant_id).select(File.sha256).where(File.id == file_id)
    sha256 = await session.scalar(found)
    if sha256 is None:
        raise TrainingFailed(f"invalid_{which}", f"file-{file_id} was deleted meanwhile")
    return sha256


def _path_of(adapter: Adapter | None, base: BaseModel, settings: Settings) -> str | None:
    """An adapter's folder; None where it was trained on another base."""
    if adapter is None or adapter.base_sha256 != base.serving_sha256:
        return None
    return str(settings.adapters / adapter.engine_name)
