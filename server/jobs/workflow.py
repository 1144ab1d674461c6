"""What a job does, step by step. Each step may be run again after a crash at any point.

prepare -> train and evaluate (a child process) -> publish the folder -> parity with the engine
-> gates, report, adapter row -> approval, when asked for -> promotion

The steps know nothing of the workflow library; ``server/worker.py`` makes them durable.
"""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import structlog
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.adapters import service as adapters
from server.db.models import Adapter, DatasetVersion, Import, Job, Tenant
from server.db.session import Database
from server.errors import AdapterRefused, Conflict, ServerError
from server.jobs import scoring
from server.jobs.schemas import FINAL_STATES
from server.jobs.service import add_event, set_state
from server.jobs.trainer import TrainingCancelled, TrainingFailed, event_body, run_trainer
from server.settings import Settings
from server.transcripts import service as transcripts
from training.artifact import check_weights, publish, verify
from training.base_model import load_base
from training.errors import ArtifactError, BadInput, BaseModelError
from training.evaluation import ParitySample, compare_parity
from training.files import write_atomically
from training.progress import EstimateEvent, Event, StageEvent, StepEvent, ValidationEvent
from training.report import build_report, render_html
from training.spec import Objectives, Recipe, TrainingSpec

log = structlog.get_logger(__name__)

UPLOAD_POLL_SECONDS = 0.5


class JobSteps:
    """The steps of jobs on one worker. ``stopping`` is set when the worker is told to end."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self.stopping = asyncio.Event()
        self._training = 0
        self._saved = asyncio.Event()

    def folder(self, job_id: str) -> Path:
        """Where the job's files are."""
        return self._settings.jobs / job_id

    async def prepare(self, job_id: str) -> None:
        """Freeze the dataset and write the spec.

        Raises:
            TrainingFailed: too little to train on, or no such base.
            TrainingCancelled: the job was cancelled before it began.
        """
        async with self._database.transaction() as session:
            job, tenant = await _load(session, job_id)
            job.attempts += 1
            if job.cancel_requested:
                raise TrainingCancelled
            await set_state(session, job, "validating", stage="waiting for uploads to be read")
        await self._uploads_read(job)
        try:
            base = load_base(self._settings.bases / job.base)
            dataset = await transcripts.freeze(self._database, tenant.id, settings=self._settings)
            async with self._database.transaction() as session:
                job, tenant = await _load(session, job_id)
                job.dataset_id = dataset.id
                live = await _live_adapter(session, tenant)
        except (BadInput, BaseModelError) as exc:
            raise TrainingFailed("bad_input", str(exc)) from exc
        live_path = None
        if live is not None and live.base_sha256 == base.serving_sha256:
            live_path = str(self._settings.adapters / live.engine_name)
        spec = TrainingSpec(
            label=tenant.slug,
            base=str(self._settings.bases / job.base),
            dataset=str(self._settings.datasets / dataset.sha256),
            recipe=msgspec.convert(job.recipe, Recipe),
            seed=job.seed,
            live_adapter=live_path,
        )
        write_atomically(
            self.folder(job_id) / "spec.json",
            msgspec.json.format(msgspec.json.encode(spec), indent=2),
        )

    async def _uploads_read(self, job: Job) -> None:
        """Wait for the uploads that were there before the job: they are what it was asked for.

        Raises:
            TrainingCancelled: the job was cancelled meanwhile.
        """
        unread = select(func.count(Import.id)).where(
            Import.tenant_id == job.tenant_id,
            Import.state.in_(("queued", "running")),
            Import.created_at <= job.created_at,
        )
        while True:
            async with self._database.reading() as session:
                if await session.scalar(select(Job.cancel_requested).where(Job.id == job.id)):
                    raise TrainingCancelled
                if not await session.scalar(unread):
                    return
            await asyncio.sleep(UPLOAD_POLL_SECONDS)

    async def train(self, job_id: str) -> None:
        """Train and evaluate in a child process; see ``trainer.run_trainer`` for what it raises."""
        folder = self.folder(job_id)

        async def on_event(event: Event) -> None:
            async with self._database.transaction() as session:
                job, _ = await _load(session, job_id)
                await _record(session, job, event)

        async def cancelled() -> bool:
            async with self._database.reading() as session:
                asked = select(Job.cancel_requested).where(Job.id == job_id)
                return bool(await session.scalar(asked))

        if await cancelled():
            raise TrainingCancelled
        self._training += 1
        self._saved.clear()
        try:
            await run_trainer(
                folder / "spec.json",
                folder,
                on_event=on_event,
                cancelled=cancelled,
                stopping=self.stopping,
                on_saved=self._one_saved,
            )
        finally:
            self._one_saved()

    def _one_saved(self) -> None:
        self._training -= 1
        if self._training == 0:
            self._saved.set()

    async def settle(self) -> None:
        """After ``stopping``: wait until every trainer has saved and ended."""
        if self._training:
            await self._saved.wait()

    async def publish(self, job_id: str) -> str:
        """Check the weights and put the folder where engines find it; the engine's name of it.

        Raises:
            TrainingFailed: the weights must not reach an engine.
        """
        async with self._database.transaction() as session:
            job, tenant = await _load(session, job_id)
            await set_state(session, job, "evaluating", stage="checking the weights")
        base_folder = self._settings.bases / job.base
        source = self.folder(job_id) / "adapter"
        try:
            verify(source, base=load_base(base_folder))
            check_weights(source, base_serving=base_folder / "serving")
            published = await asyncio.to_thread(
                publish, source, self._settings.adapters, tenant.slug
            )
        except (ArtifactError, BaseModelError) as exc:
            raise TrainingFailed("unsafe_adapter", str(exc)) from exc
        return published.name

    async def compare_with_engine(self, job_id: str, name: str) -> None:
        """Score the trainer's tokens on the engine and keep the differences in ``parity_result.json``.

        Waits for the engine as long as it takes.

        Raises:
            TrainingFailed: the engine refuses the adapter.
            TrainingCancelled: the job was cancelled meanwhile.
        """
        folder = self.folder(job_id)
        async with self._database.transaction() as session:
            job, tenant = await _load(session, job_id)
            await set_state(session, job, "evaluating", stage="comparing trainer and engine")
            if job.cancel_requested:
                raise TrainingCancelled
        samples = msgspec.json.decode(
            (folder / "parity.json").read_bytes(), type=list[ParitySample]
        )
        try:
            logprobs = await scoring.score_when_ready(
                self._settings,
                tenant=tenant.slug,
                adapter_name=name,
                sequences=[list(sample.token_ids) for sample in samples],
            )
        except AdapterRefused as exc:
            raise TrainingFailed("adapter_refused", exc.message) from exc
        parity = compare_parity(samples, logprobs)
        write_atomically(folder / "parity_result.json", msgspec.json.encode(parity))

    async def judge(self, job_id: str, name: str) -> bool:
        """Apply the gates, write the report, register the adapter. True if it may be promoted.

        An adapter that fails a gate is registered too, marked, so that it can be looked at.
        """
        folder = self.folder(job_id)
        async with self._database.transaction() as session:
            job, tenant = await _load(session, job_id)
            dataset = await session.get_one(DatasetVersion, job.dataset_id)
            report = build_report(
                folder,
                tenant=tenant.name,
                dataset_folder=self._settings.datasets / dataset.sha256,
                base=load_base(self._settings.bases / job.base),
                objectives=msgspec.convert(job.objectives, Objectives),
            )
            adapter = await adapters.register(
                session,
                tenant,
                job,
                settings=self._settings,
                folder=self._settings.adapters / name,
                report=msgspec.to_builtins(report),
                passed=report.verdict.passed,
            )
            job.adapter_id = adapter.id
            report = msgspec.structs.replace(report, version=adapter.version)
            await add_event(
                session,
                job,
                kind="verdict",
                body={
                    "passed": report.verdict.passed,
                    "summary": report.verdict.summary,
                    "adapter": f"{tenant.slug}@{adapter.version}",
                },
            )
        write_atomically(folder / "report.json", msgspec.json.encode(report))
        write_atomically(folder / "report.html", render_html(report).encode())
        passed: bool = report.verdict.passed
        return passed

    async def await_approval(self, job_id: str) -> bool:
        """Enter ``awaiting_approval`` when the job asks for it; True if there is nothing to await."""
        async with self._database.transaction() as session:
            job, _ = await _load(session, job_id)
            if not job.require_approval or job.decision is not None:
                return True
            await set_state(session, job, "awaiting_approval")
            return False

    async def promote(self, job_id: str) -> None:
        """Make the adapter its tenant's live one and end the job well.

        Raises:
            TrainingCancelled: the job was cancelled before it got here.
            TrainingFailed: a person rejected the adapter.
        """
        async with self._database.transaction() as session:
            job, tenant = await _load(session, job_id)
            if job.state in FINAL_STATES:
                return
            if job.cancel_requested:
                raise TrainingCancelled
            if job.decision == "rejected":
                raise TrainingFailed("rejected", "a person rejected the adapter")
            adapter = await session.get_one(Adapter, job.adapter_id)
            try:
                await adapters.promote(
                    session, tenant, version=adapter.version, actor=f"job {job_id}"
                )
            except Conflict as exc:
                raise TrainingFailed("not_promoted", exc.message) from exc
            await set_state(session, job, "succeeded")

    async def end(self, job_id: str, state: str, error: dict[str, Any] | None) -> None:
        """End a job as failed or cancelled. A cancelled job never yields a model."""
        async with self._database.transaction() as session:
            job, tenant = await _load(session, job_id)
            ended = await set_state(
                session, job, "cancelled" if state == "cancelled" else "failed", error=error
            )
            if ended and state == "cancelled" and job.adapter_id:
                adapter = await session.get_one(Adapter, job.adapter_id)
                await adapters.delete(session, tenant, version=adapter.version)

    async def run_import(self, import_id: str) -> None:
        """Read one uploaded file into conversations."""
        await transcripts.run_import(self._database, import_id, settings=self._settings)


async def _load(session: AsyncSession, job_id: str) -> tuple[Job, Tenant]:
    job = await session.get_one(Job, job_id)
    return job, await session.get_one(Tenant, job.tenant_id)


async def _live_adapter(session: AsyncSession, tenant: Tenant) -> Adapter | None:
    if tenant.live_adapter_id is None:
        return None
    return await session.get(Adapter, tenant.live_adapter_id)


async def _record(session: AsyncSession, job: Job, event: Event) -> None:
    """Put one progress line into the job's row and history."""
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
    await add_event(
        session, job, kind=type(event).__name__.removesuffix("Event").lower(), body=body
    )


def failure(exc: Exception) -> dict[str, Any]:
    """An error as the job's row holds it."""
    match exc:
        case TrainingFailed():
            return {"code": exc.code, "message": exc.message}
        case ServerError():
            return {"code": exc.code or "error", "message": exc.message}
        case _:
            return {"code": "internal", "message": f"{type(exc).__name__}: {exc}"}
