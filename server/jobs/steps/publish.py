"""Publish: check the weights, put them where engines find them, compare the engine's scores."""

import asyncio

import msgspec

from server.db.models import Tenant
from server.errors import AdapterRefused
from server.jobs import parity
from server.jobs.states import set_state
from server.jobs.steps.context import StepContext, lock_job, requested_interruption
from server.jobs.trainer_process import TrainingFailed, raise_if_interrupted
from training.adapters.package import check_weights, verify
from training.adapters.package import publish as publish_folder
from training.base_models.manifest import load_base
from training.compute_dtype import COMPUTE_FILE, read_choices
from training.errors import ArtifactError, BaseModelError
from training.filesystem import write_atomically
from training.results import ParitySample, compare_parity


async def publish(context: StepContext, job_id: str) -> str:
    """Check the weights and publish the adapter's folder; returns the engine's name of it.

    Raises:
        TrainingFailed: the weights must not reach an engine.
        TrainingCancelled: the job's cancellation was requested.
        TrainingPaused: the job's pause was requested.
    """
    settings = context.settings
    async with context.database.transaction() as session:
        job = await lock_job(session, job_id)
        raise_if_interrupted(requested_interruption(job))
        await set_state(session, job, "evaluating", stage="checking the weights")
        tenant = await session.get_one(Tenant, job.tenant_id)
    base_folder = settings.bases / job.base
    source = context.folder(job_id) / "adapter"
    try:
        verify(source, base=load_base(base_folder))
        check_weights(source, base_serving=base_folder / "serving")
        published = await asyncio.to_thread(publish_folder, source, settings.adapters, tenant.slug)
    except (ArtifactError, BaseModelError) as exc:
        raise TrainingFailed("unsafe_adapter", str(exc)) from exc
    return published.name


async def compare_with_engine(context: StepContext, job_id: str, adapter_name: str) -> None:
    """Score the trainer's tokens on the engine and write the differences to ``parity_result.json``.

    Waits for the engine as long as it takes.

    Raises:
        TrainingFailed: the engine refuses the adapter.
        TrainingCancelled: the job's cancellation was requested.
        TrainingPaused: the job's pause was requested.
    """
    folder = context.folder(job_id)
    async with context.database.transaction() as session:
        job = await lock_job(session, job_id)
        raise_if_interrupted(requested_interruption(job))
        await set_state(session, job, "evaluating", stage="comparing trainer and engine")
        tenant = await session.get_one(Tenant, job.tenant_id)
    samples = msgspec.json.decode((folder / "parity.json").read_bytes(), type=list[ParitySample])
    try:
        engine = await parity.score_when_ready(
            context.settings,
            tenant=tenant.slug,
            adapter_name=adapter_name,
            sequences=[list(sample.token_ids) for sample in samples],
        )
    except AdapterRefused as exc:
        raise TrainingFailed("adapter_refused", exc.message) from exc
    computing = read_choices(folder / COMPUTE_FILE)
    compared = compare_parity(
        samples,
        engine.logprobs,
        trained_in=computing.choices["training"].type if computing else "",
        served_in=engine.dtype,
    )
    write_atomically(folder / "parity_result.json", msgspec.json.encode(compared))
