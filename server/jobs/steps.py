"""What a job does, step by step. Each step may be run again after a crash at any point.

prepare -> train and evaluate (a child process) -> publish the folder -> parity with the engine
-> gates, report, adapter row -> result file -> approval, when asked for -> promotion, or not

Gates decide what goes live, not whether a job has succeeded: one that has trained a safe adapter has,
and the adapter answers to its own name. What fails a job is input, weights that must not reach an
engine, and an engine that does not serve what was trained.

The steps know nothing of the workflow library; ``server/worker.py`` makes them durable. A paused
job goes through all of them again when it is resumed, and each finds what it had made: the spec,
the checkpoint, the published folder, the adapter's row.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.adapters import service as adapters
from server.datasets import creation
from server.db.models import Adapter, DatasetVersion, File, Import, Job, JobEvent, Tenant
from server.db.session import Database
from server.errors import AdapterRefused, Conflict, NotFound, ServerError
from server.files import service as files
from server.jobs import parity, results
from server.jobs.adapter_import import FOREIGN
from server.jobs.schemas import FINAL_STATES, Outcome, public_id
from server.jobs.service import foreign_of, method_of
from server.jobs.states import add_event, get_for_update, requeue, set_state
from server.jobs.trainer_process import (
    Interruption,
    TrainingFailed,
    event_body,
    raise_if_interrupted,
    run_trainer,
)
from server.scratch import clear
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.references import stored
from server.tenants import service as tenants
from server.transcripts import service as transcripts
from training.adapters.package import check_weights, publish, verify
from training.base_models.manifest import BaseModel, load_base
from training.compute_dtype import COMPUTE_FILE, read_choices
from training.config import Objectives, Recipe, TrainingSpec
from training.errors import ArtifactError, BadInput, BaseModelError
from training.events import (
    EstimateEvent,
    Event,
    StageEvent,
    StepEvent,
    ValidationEvent,
    parse,
)
from training.filesystem import write_atomically
from training.finetuning.trackers import TRACKERS
from training.reports.report import build_report, render_html
from training.results import ParitySample, compare_parity

log = structlog.get_logger(__name__)

UPLOAD_POLL_SECONDS = 0.5
# of a job that yields no model: what tells its operator why, and the lock of whoever still saves
KEPT_OF_ENDED = {"spec.json", "events.jsonl", "trainer.log", "report.json", "report.html", ".lock"}
KEPT_OF_ENDED |= {TRACKERS}


_GATES: dict[str, str] = {"candidate": "cannot_tell", "failed_gates": "worse"}


class Superseded(Exception):
    """This workflow's attempt is over: the job was paused, resumed or ended without it."""


class JobSteps:
    """The steps of jobs on one worker. ``stopping`` is set when the worker is told to end."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._blobs = BlobStore.open(settings.blobs)
        self.stopping = asyncio.Event()
        self._training = 0
        self._saved = asyncio.Event()

    def folder(self, job_id: str) -> Path:
        """Where the job's files are."""
        return self._settings.jobs / job_id

    async def prepare(self, job_id: str, attempt: int) -> None:
        """Freeze the dataset and write the spec; both are kept by later attempts.

        Raises:
            Superseded: the job is not this attempt's to work on.
            TrainingFailed: too little to train on, or no such base.
            TrainingCancelled: the job is told to stop.
            TrainingPaused: the job is told to wait.
        """
        async with self._database.transaction() as session:
            job = await _hold(session, job_id)
            if job.attempts != attempt or job.state in {*FINAL_STATES, "paused"}:
                raise Superseded
            raise_if_interrupted(_asked(job))
            # whoever deletes conversations is done by now, or sees this job and is refused
            await tenants.hold_transcripts(session, job.tenant_id)
            await set_state(session, job, "validating", stage="reading what to learn from")
            tenant = await session.get_one(Tenant, job.tenant_id)
        path = self.folder(job_id) / "spec.json"
        if path.exists():
            return
        if job.training_file_id is None:
            await self._uploads_read(job)
        try:
            base = load_base(self._settings.bases / job.base)
            dataset = await self._dataset(job)
        except (BadInput, BaseModelError) as exc:
            is_files = job.training_file_id is not None and isinstance(exc, BadInput)
            code = "invalid_training_file" if is_files else "bad_input"
            raise TrainingFailed(code, str(exc)) from exc
        async with self._database.transaction() as session:
            job = await _hold(session, job_id)
            job.dataset_id = dataset.id
            job.progress = {**job.progress, "examples": dataset.counts.get("train", 0)}
            tenant = await session.get_one(Tenant, job.tenant_id)
            live = await _adapter(session, tenant, tenant.live_adapter_id)
            start = await _adapter(session, tenant, job.start_adapter_id)
        if job.start_adapter_id and (start is None or start.state == "deleted"):
            raise TrainingFailed("model_not_found", "the model to begin with was deleted meanwhile")
        if start is not None and start.base_sha256 != base.serving_sha256:
            raise TrainingFailed(
                "base_changed", "the model to begin with was trained on another build of the base"
            )
        spec = TrainingSpec(
            label=tenant.slug,
            base=str(self._settings.bases / job.base),
            dataset=str(self._settings.datasets / dataset.sha256),
            recipe=msgspec.convert(job.recipe, Recipe),
            seed=job.seed,
            live_adapter=self._path_of(live, base),
            method=method_of(job),
            start_adapter=self._path_of(start, base),
            imported=str(self.folder(job_id) / FOREIGN) if foreign_of(job) else None,
        )
        write_atomically(path, msgspec.json.format(msgspec.json.encode(spec), indent=2))

    def _path_of(self, adapter: Adapter | None, base: BaseModel) -> str | None:
        """An adapter's folder; None where it is of another base."""
        if adapter is None or adapter.base_sha256 != base.serving_sha256:
            return None
        return str(self._settings.adapters / adapter.engine_name)

    async def _dataset(self, job: Job) -> DatasetVersion:
        """What the job learns from, frozen once: also a resumed job learns from that.

        Raises:
            TrainingFailed: a file was deleted since the job was made.
            BadInput: there is too little to train on.
        """
        async with self._database.reading() as session:
            if job.dataset_id is not None:
                return await session.get_one(DatasetVersion, job.dataset_id)
            training = await _sha256_of(session, job, "training_file")
            validation = await _sha256_of(session, job, "validation_file")
        if training is None:
            return await creation.create_version(
                self._database, job.tenant_id, settings=self._settings
            )
        try:
            frozen = await creation.create_from_files(
                self._database,
                job.tenant_id,
                settings=self._settings,
                blobs=self._blobs,
                method=method_of(job),
                training=training,
                validation=validation,
            )
        except NotFound as exc:
            raise TrainingFailed("invalid_training_file", exc.message) from exc
        async with self._database.transaction() as session:
            job = await _hold(session, job.id)
            for warning in frozen.warnings:
                await add_event(session, job, kind="warning", body={"message": warning})
        return frozen.dataset

    async def _uploads_read(self, job: Job) -> None:
        """Wait for the uploads that were there before the job: they are what it was asked for.

        Raises:
            TrainingCancelled: the job was cancelled meanwhile.
            TrainingPaused: the job is told to wait.
        """
        unread = select(func.count(Import.id)).where(
            Import.tenant_id == job.tenant_id,
            Import.state.in_(("queued", "running")),
            Import.created_at <= job.created_at,
        )
        while True:
            raise_if_interrupted(await self._asked(job.id))
            async with self._database.reading() as session:
                if not await session.scalar(unread):
                    return
            await asyncio.sleep(UPLOAD_POLL_SECONDS)

    async def _asked(self, job_id: str) -> Interruption | None:
        async with self._database.reading() as session:
            return _asked(await session.get_one(Job, job_id))

    async def train(self, job_id: str) -> None:
        """Train and evaluate in a child process; see ``trainer.run_trainer`` for what it raises.

        Each event adds the time since the last one to ``Job.gpu_seconds``: what a kill of this
        process loses is the time since the last event.
        """
        folder = self.folder(job_id)
        counted = time.monotonic()

        def uncounted() -> float:
            nonlocal counted
            last, counted = counted, time.monotonic()
            return counted - last

        async def on_event(event: Event) -> None:
            async with self._database.transaction() as session:
                job = await _hold(session, job_id)
                job.gpu_seconds += uncounted()
                await _record(session, job, event)

        async def asked() -> Interruption | None:
            return await self._asked(job_id)

        await self._catch_up(job_id)
        raise_if_interrupted(await asked())
        self._training += 1
        self._saved.clear()
        try:
            await run_trainer(
                folder / "spec.json",
                folder,
                on_event=on_event,
                asked=asked,
                stopping=self.stopping,
                on_saved=self._one_saved,
            )
        finally:
            self._one_saved()
        await self._catch_up(job_id)

    async def _catch_up(self, job_id: str) -> None:
        """Put into the history what trainers said when their worker was dead: it is in their file."""
        said = await asyncio.to_thread(_steps_said, self.folder(job_id) / "events.jsonl")
        if not said:
            return
        async with self._database.transaction() as session:
            job = await _hold(session, job_id)
            known = await session.scalars(
                select(JobEvent.body).where(
                    JobEvent.tenant_id == job.tenant_id,
                    JobEvent.job_id == job_id,
                    JobEvent.kind.in_({_kind_of(event) for event in said}),
                )
            )
            heard = {body.get("at") for body in known}
            for event in said:
                if event.at not in heard:
                    await add_event(session, job, kind=_kind_of(event), body=event_body(event))

    def _one_saved(self) -> None:
        self._training -= 1
        if self._training == 0:
            self._saved.set()

    async def reconcile(self) -> None:
        """After ``stopping``: wait until every trainer has saved and ended."""
        if self._training:
            await self._saved.wait()

    async def publish(self, job_id: str) -> str:
        """Check the weights and put the folder where engines find it; the engine's name of it.

        Raises:
            TrainingFailed: the weights must not reach an engine.
            TrainingCancelled: the job is told to stop.
            TrainingPaused: the job is told to wait.
        """
        async with self._database.transaction() as session:
            job = await _hold(session, job_id)
            raise_if_interrupted(_asked(job))
            await set_state(session, job, "evaluating", stage="checking the weights")
            tenant = await session.get_one(Tenant, job.tenant_id)
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
            TrainingCancelled: the job is told to stop.
            TrainingPaused: the job is told to wait.
        """
        folder = self.folder(job_id)
        async with self._database.transaction() as session:
            job = await _hold(session, job_id)
            raise_if_interrupted(_asked(job))
            await set_state(session, job, "evaluating", stage="comparing trainer and engine")
            tenant = await session.get_one(Tenant, job.tenant_id)
        samples = msgspec.json.decode(
            (folder / "parity.json").read_bytes(), type=list[ParitySample]
        )
        try:
            engine = await parity.score_when_ready(
                self._settings,
                tenant=tenant.slug,
                adapter_name=name,
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

    async def apply_gates(self, job_id: str, name: str) -> str:
        """Apply the gates, write the report, register the adapter; why it is unsafe, or ``""``.

        An adapter that is unsafe is registered too, marked, so that it can be looked at.

        Raises:
            TrainingCancelled: the job is told to stop.
            TrainingPaused: the job is told to wait.
        """
        folder = self.folder(job_id)
        async with self._database.transaction() as session:
            job = await _hold(session, job_id)
            raise_if_interrupted(_asked(job))
            tenant = await session.get_one(Tenant, job.tenant_id)
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
                state=adapters.state_of(report.verdict),
            )
            job.adapter_id = adapter.id
            job.outcome = msgspec.to_builtins(
                Outcome(
                    gates=report.verdict.result or "cannot_tell", summary=report.verdict.summary
                )
            )
            report = msgspec.structs.replace(report, version=adapter.version)
            await add_event(
                session,
                job,
                kind="verdict",
                body={
                    "passed": report.verdict.passed,
                    "result": report.verdict.result,
                    "summary": report.verdict.summary,
                    "adapter": f"{tenant.slug}@{adapter.version}",
                },
            )
        write_atomically(folder / "report.json", msgspec.json.encode(report))
        write_atomically(folder / "report.html", render_html(report).encode())
        return report.verdict.unsafe

    async def keep_results(self, job_id: str) -> None:
        """Store the curve of losses as a file of the tenant's, once."""
        async with self._database.reading() as session:
            job = await session.get_one(Job, job_id)
            if job.result_file_id is not None:
                return
            data = results.to_csv(await results.curve(session, job))

        async def chunks() -> AsyncGenerator[bytes]:
            yield data

        async with (
            stored(self._database, self._blobs, chunks(), max_bytes=len(data)) as (sha256, size),
            self._database.transaction() as session,
        ):
            job = await _hold(session, job_id)
            if job.result_file_id is None:
                file = await files.create(
                    session,
                    job.tenant_id,
                    blobs=self._blobs,
                    sha256=sha256,
                    size_bytes=size,
                    filename=f"{public_id(job_id)}-metrics.csv",
                    purpose="fine-tune-results",
                )
                job.result_file_id = file.id

    async def await_approval(self, job_id: str) -> bool:
        """Enter ``awaiting_approval`` when the job asks for it; True if there is nothing to await.

        Nobody is asked about an adapter that the gates found worse.

        Raises:
            TrainingCancelled: the job is told to stop.
            TrainingPaused: the job is told to wait.
        """
        async with self._database.transaction() as session:
            job = await _hold(session, job_id)
            raise_if_interrupted(_asked(job))
            adapter = await session.get_one(Adapter, job.adapter_id)
            asked = job.require_approval and adapter.state != "failed_gates"
            if not asked or job.decision is not None:
                return True
            await set_state(session, job, "awaiting_approval")
            return False

    async def promote(self, job_id: str) -> None:
        """Make the adapter its tenant's live one, if gates and people let it, and end the job well.

        The job's row is held from the look at what was asked of it to the commit, so that a
        cancellation is either seen here or told that the job has succeeded.

        Raises:
            TrainingCancelled: the job was cancelled before it got here.
            TrainingPaused: the job is told to wait.
        """
        async with self._database.transaction() as session:
            job = await _hold(session, job_id)
            if job.state in FINAL_STATES:
                return
            raise_if_interrupted(_asked(job))
            tenant = await session.get_one(Tenant, job.tenant_id)
            adapter = await session.get_one(Adapter, job.adapter_id)
            reason = _not_promoted(job, adapter)
            if reason is None:
                try:
                    await adapters.promote(
                        session, tenant, version=adapter.version, actor=f"job {job_id}"
                    )
                except (Conflict, NotFound) as exc:
                    reason = exc.message
            job.outcome = {
                "gates": _GATES.get(adapter.state, "better"),
                "summary": "",
                **(job.outcome or {}),
                "promoted": reason is None,
                "reason": reason,
            }
            if reason is not None:
                name = f"{tenant.slug}@{adapter.version}"
                message = f"{name} was not promoted, and answers to its own name: {reason}"
                await add_event(session, job, kind="warning", body={"message": message})
            await set_state(
                session, job, "succeeded", stage="" if reason is None else "not promoted"
            )

    async def pause(self, job_id: str, attempt: int) -> None:
        """Write that the job waits; its workflow ends with this.

        Where it was resumed meanwhile, it goes to the end of the queue instead.
        """
        async with self._database.transaction() as session:
            job = await _hold(session, job_id)
            if job.attempts != attempt or job.state in FINAL_STATES:
                return
            if job.cancel_requested:
                await set_state(session, job, "cancelled")
            elif job.pause_requested:
                await set_state(session, job, "paused")
            else:
                await requeue(session, job)

    async def end(self, job_id: str, state: str, error: dict[str, Any] | None) -> None:
        """End a job as failed or cancelled: cancelled, where that was asked for, whatever else."""
        async with self._database.transaction() as session:
            job = await _hold(session, job_id)
            if job.cancel_requested or state == "cancelled":
                await set_state(session, job, "cancelled")
            else:
                await set_state(session, job, "failed", error=error)

    async def cleanup_finished(self, since: datetime | None = None) -> None:
        """Remove the files of jobs that failed or were cancelled, but ``KEPT_OF_ENDED``, and of killed work.

        ``since``: only of those that ended from then on.

        Nobody works on such a job, and none begins again. A version that is unsafe has its own copy
        of the weights.
        """
        async with self._database.reading() as session:
            ended = select(Job.id).where(Job.state.in_(("failed", "cancelled")))
            if since is not None:
                ended = ended.where(Job.finished_at >= since)
            folders = [self.folder(job_id) for job_id in await session.scalars(ended)]
        await asyncio.to_thread(_tidy, folders)
        await asyncio.to_thread(clear, self._settings)

    async def run_import(self, import_id: str) -> None:
        """Read one uploaded file into conversations; what nobody foresaw ends it as failed."""
        try:
            await transcripts.run_import(self._database, import_id, settings=self._settings)
        except Exception as exc:
            log.exception("import failed", id=import_id)
            failed = ServerError(f"{type(exc).__name__}: {exc}", code="internal")
            await transcripts.end_import(self._database, self._blobs, import_id, exc=failed)


async def _hold(session: AsyncSession, job_id: str) -> Job:
    """The job, held until the transaction ends."""
    job = await session.get_one(Job, job_id)
    return await get_for_update(session, job.tenant_id, job_id)


def _not_promoted(job: Job, adapter: Adapter) -> str | None:
    """Why a job must not make its adapter live; None where it may."""
    summary = (job.outcome or {}).get("summary", "")
    if adapter.state == "failed_gates":
        return summary or "it failed its gates"
    if job.decision == "rejected":
        return "a person rejected it"
    if job.require_approval and job.decision is None:
        return "nobody approved it in time"
    if adapter.state == "candidate" and job.decision != "approved":
        return f"{summary or 'its gates cannot tell'}. A person may promote it"
    return None


def _asked(job: Job) -> Interruption | None:
    if job.cancel_requested:
        return "cancel"
    return "pause" if job.pause_requested else None


async def _adapter(session: AsyncSession, tenant: Tenant, adapter_id: str | None) -> Adapter | None:
    if adapter_id is None:
        return None
    return await session.scalar(
        select(Adapter).where(Adapter.tenant_id == tenant.id, Adapter.id == adapter_id)
    )


async def _sha256_of(session: AsyncSession, job: Job, which: str) -> str | None:
    """Where the bytes of a job's file are; None where it has no such file.

    Raises:
        TrainingFailed: it was deleted since the job was made.
    """
    file_id: str | None = getattr(job, f"{which}_id")
    if file_id is None:
        return None
    found = select(File.sha256).where(File.tenant_id == job.tenant_id, File.id == file_id)
    sha256: str | None = await session.scalar(found)
    if sha256 is None:
        raise TrainingFailed(f"invalid_{which}", f"file-{file_id} was deleted meanwhile")
    return sha256


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
    await add_event(session, job, kind=_kind_of(event), body=body)


def _kind_of(event: Event) -> str:
    return type(event).__name__.removesuffix("Event").lower()


def _steps_said(path: Path) -> list[StepEvent | ValidationEvent]:
    """The events about steps that a run's trainers, one after the other, have written down."""
    if not path.exists():
        return []
    with path.open("rb") as lines:
        return [
            event for event in map(parse, lines) if isinstance(event, StepEvent | ValidationEvent)
        ]


def _tidy(folders: Iterable[Path]) -> None:
    for folder in folders:
        if not folder.is_dir():
            continue
        for entry in folder.iterdir():
            if entry.name in KEPT_OF_ENDED:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)  # what is left goes the next time
            else:
                entry.unlink(missing_ok=True)


def failure(exc: Exception) -> dict[str, Any]:
    """An error as the job's row holds it."""
    match exc:
        case TrainingFailed():
            return {"code": exc.code, "message": exc.message}
        case ServerError():
            return {"code": exc.code or "error", "message": exc.message}
        case _:
            return {"code": "internal", "message": f"{type(exc).__name__}: {exc}"}
