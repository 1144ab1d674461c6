"""Train: run the trainer in a child process, and write what it reports into the job's row."""

import asyncio
import time
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Job, JobEvent
from server.db.scope import of_tenant
from server.jobs.states import add_event, set_state
from server.jobs.steps.context import StepContext, lock_job
from server.jobs.trainer_process import (
    Interruption,
    event_body,
    event_kind,
    raise_if_interrupted,
    run_trainer,
)
from training.events import (
    EstimateEvent,
    Event,
    StageEvent,
    StepEvent,
    ValidationEvent,
    parse,
)


async def train(context: StepContext, job_id: str) -> None:
    """Train and evaluate in a child process.

    Each event adds the time since the last one to ``Job.gpu_seconds``: what a kill of this
    process loses is the time since the last event.

    Raises:
        TrainingFailed: see ``trainer_process.run_trainer``.
        TrainingCancelled: the job's cancellation was requested.
        TrainingPaused: the job's pause was requested; the trainer has saved.
    """
    folder = context.folder(job_id)
    counted_at = time.monotonic()

    def seconds_since_last() -> float:
        nonlocal counted_at
        last, counted_at = counted_at, time.monotonic()
        return counted_at - last

    async def on_event(event: Event) -> None:
        async with context.database.transaction() as session:
            job = await lock_job(session, job_id)
            job.gpu_seconds += seconds_since_last()
            await _record(session, job, event)

    async def requested() -> Interruption | None:
        return await context.requested_interruption(job_id)

    await _catch_up(context, job_id)
    raise_if_interrupted(await requested())
    context.trainers.started(job_id)
    try:
        await run_trainer(
            folder / "spec.json",
            folder,
            on_event=on_event,
            requested=requested,
            stopping=context.stopping,
            on_saved=lambda: context.trainers.ended(job_id),
        )
    finally:
        context.trainers.ended(job_id)
    await _catch_up(context, job_id)


async def _catch_up(context: StepContext, job_id: str) -> None:
    """Add to the history the steps that trainers wrote into their file while no worker ran."""
    written = await asyncio.to_thread(_written_steps, context.folder(job_id) / "events.jsonl")
    if not written:
        return
    async with context.database.transaction() as session:
        job = await lock_job(session, job_id)
        bodies = await session.scalars(
            of_tenant(job.tenant_id)
            .select(JobEvent.body)
            .where(
                JobEvent.job_id == job_id,
                JobEvent.kind.in_({event_kind(event) for event in written}),
            )
        )
        known = {body.get("at") for body in bodies}
        for event in written:
            if event.at not in known:
                await add_event(session, job, kind=event_kind(event), body=event_body(event))


def _written_steps(path: Path) -> list[StepEvent | ValidationEvent]:
    """The events about steps in the file that a job's trainers append to."""
    if not path.exists():
        return []
    with path.open("rb") as lines:
        return [
            event for event in map(parse, lines) if isinstance(event, StepEvent | ValidationEvent)
        ]


async def _record(session: AsyncSession, job: Job, event: Event) -> None:
    """Put one event of the trainer into the job's row and history."""
    body: dict[str, Any] = event_body(event)
    match event:
        case StageEvent(stage="evaluating" | "writing" | "done"):
            await set_state(session, job, "evaluating", stage=event.stage)
        case StageEvent():
            await set_state(session, job, "running", stage=event.stage)
        case EstimateEvent():
            job.estimate = body
        case StepEvent():
            job.progress = {**job.progress, **body}
        case ValidationEvent():
            job.progress = {**job.progress, "validation_loss": event.loss}
        case _:
            job.progress = {**job.progress, "last": type(event).__name__, **body}
    await add_event(session, job, kind=event_kind(event), body=body)
