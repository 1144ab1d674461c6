"""The worker: takes queued imports and jobs from the database and sees them through.

``python -m server.worker``. Rows are the truth: what is queued there is given to DBOS under the
row's own id when it is its tenant's turn (``server/jobs/fair_turns.py``), any number of times, and runs
once. DBOS remembers which steps are done, so a
worker killed at any point goes on at that step when it, or ``tenantune up``, starts again.

A workflow that pauses its job ends; resuming raises ``Job.attempts``, which is a part of the
workflow's id, so that the next one is another workflow. One that comes to its turn after its job
was paused, resumed or ended without it changes nothing.
"""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Coroutine
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Any, TypeVar

import structlog
from dbos import DBOS, DBOSConfig, SetWorkflowID
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import FINISHED_JOB_STATES, Import, Job, now
from server.db.session import Database
from server.home import keep_private, take
from server.jobs.fair_turns import IMPORTS_AT_ONCE, WORKED_ON, next_imports, next_jobs
from server.jobs.states import get_for_update, set_state
from server.jobs.steps import JobSteps, Superseded, failure
from server.jobs.trainer_process import TrainingCancelled, TrainingPaused
from server.locks import try_lock
from server.logs import configure_logging
from server.settings import Settings
from server.shutdown import GracefulShutdown

log = structlog.get_logger(__name__)
T = TypeVar("T")

POLL_SECONDS = 0.5
TIDY_EVERY = timedelta(minutes=1)
APPROVAL = timedelta(days=90)
STOP_SECONDS = 7.0  # trainers take 6 at most, see trainer.STOP_SECONDS
# DBOS recovers only workflows of its own version; ours changes when the steps below do.
WORKFLOW_VERSION = "3"


class Worker:
    """Runs the steps on one event loop; DBOS calls them from its threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # a job is not lost because another process writes for long; nobody waits for an answer here
        self.database = Database(settings.database, patience_seconds=60.0)
        self.steps = JobSteps(settings, self.database)
        self.loop = asyncio.get_running_loop()
        # ids of what has a place: given to a workflow here, and not over
        self._imports: set[str] = set()
        self._jobs: set[tuple[str, int]] = set()  # with the attempt

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """From a workflow's thread: run on the loop and wait."""
        waiting: Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return waiting.result()

    async def run(self) -> None:
        """Dispatch until told to stop; tidy up at first and every ``TIDY_EVERY``."""
        tidied: datetime | None = None
        while not self.steps.stopping.is_set():
            try:
                await self._dispatch()
                if tidied is None or now() - tidied >= TIDY_EVERY:
                    begun = now()
                    await self.steps.cleanup_finished(tidied and tidied - TIDY_EVERY)
                    tidied = begun
            except Exception:
                log.exception("dispatch failed; trying again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.steps.stopping.wait(), POLL_SECONDS)

    async def _dispatch(self) -> None:
        over = now() - APPROVAL
        async with self.database.reading() as session:
            await self._free_places(session)
            imports = await next_imports(session, given=self._imports)
            jobs = await next_jobs(
                session,
                given=[job_id for job_id, _ in self._jobs],
                at_once=self.settings.worker_jobs,
            )
            waiting = await session.execute(
                select(Job.id, Job.attempts).where(
                    Job.state == "awaiting_approval",
                    or_(Job.decision.is_not(None), Job.cancel_requested, Job.updated_at < over),
                )
            )
            decided = list(waiting)
        for import_id in imports:
            await self._enqueue("imports", import_workflow, import_id, import_id)
            self._imports.add(import_id)
        for job_id, attempt in jobs:
            workflow = workflow_id(job_id, attempt)
            await self._enqueue("jobs", job_workflow, workflow, job_id, attempt)
            self._jobs.add((job_id, attempt))
        for job_id, attempt in decided:
            workflow = decision_id(job_id, attempt)
            await self._enqueue("decisions", decision_workflow, workflow, job_id)

    async def _free_places(self, session: AsyncSession) -> None:
        """Take their places from those that ended, or were put back into the queue."""
        reading = select(Import.id).where(
            Import.id.in_(self._imports), Import.state.in_(("queued", "running"))
        )
        self._imports &= set(await session.scalars(reading))
        working = select(Job.id, Job.attempts).where(
            Job.id.in_([job_id for job_id, _ in self._jobs]), Job.state.in_(WORKED_ON)
        )
        self._jobs &= {(row.id, row.attempts) for row in await session.execute(working)}

    def over(self, work: str | tuple[str, int]) -> None:
        """From a workflow's thread: it has ended, however it did, and needs no place.

        Only one that broke off leaves its row as it was; the others are seen to have ended.
        """

        def free() -> None:
            if isinstance(work, str):
                self._imports.discard(work)
            else:
                self._jobs.discard(work)

        self.loop.call_soon_threadsafe(free)

    async def _enqueue(self, queue: str, workflow: Any, name: str, *args: Any) -> None:  # noqa: ANN401
        with SetWorkflowID(name):
            await DBOS.enqueue_workflow_async(queue, workflow, *args)

    async def requeue_orphaned(self) -> None:
        """Queue again what no workflow will ever finish: call once, before the first dispatch.

        That is what was begun by another version of this worker on this machine, whose workflows
        DBOS leaves alone, or what DBOS has given up or lost. Rows are the truth, and every step may
        be run again.
        """
        async with self.database.reading() as session:
            jobs = await session.execute(
                select(Job.id, Job.attempts).where(
                    Job.state.not_in([*FINISHED_JOB_STATES, "paused", "awaiting_approval"])
                )
            )
            waiting = await session.execute(
                select(Job.id, Job.attempts).where(Job.state == "awaiting_approval")
            )
            imports = await session.scalars(
                select(Import.id).where(Import.state.in_(("queued", "running")))
            )
            open_jobs, open_imports, open_decisions = list(jobs), list(imports), list(waiting)
        for job_id, attempt in open_jobs:
            if await self._forgotten(workflow_id(job_id, attempt)):
                async with self.database.transaction() as session:
                    row = await session.get_one(Job, job_id)
                    job = await get_for_update(session, row.tenant_id, job_id)
                    if job.attempts == attempt and job.state != "paused":
                        await set_state(session, job, "queued")
            else:
                self._jobs.add((job_id, attempt))
        for import_id in open_imports:
            if await self._forgotten(import_id):
                async with self.database.transaction() as session:
                    (await session.get_one(Import, import_id)).state = "queued"
            else:
                self._imports.add(import_id)
        for job_id, attempt in open_decisions:  # none waits any more, and dead ones are in the way
            await self._forgotten(decision_id(job_id, attempt))

    async def _forgotten(self, workflow: str) -> bool:
        """Whether nobody will run this workflow to its end; one that is in the way is removed."""
        status = await DBOS.get_workflow_status_async(workflow)
        if status is None:
            return True
        alive = status.status in {"PENDING", "ENQUEUED", "DELAYED"}
        if alive and (
            status.app_version in {None, WORKFLOW_VERSION}
            or (status.status == "PENDING" and status.executor_id != executor_id(self.settings))
        ):
            return False
        log.warning("begun anew", workflow=workflow, status=status.status, by=status.app_version)
        await DBOS.delete_workflow_async(workflow)
        return True


def workflow_id(job_id: str, attempt: int) -> str:
    """The id of the workflow that works on a job's attempt."""
    return f"{job_id}-{attempt}" if attempt else job_id


def decision_id(job_id: str, attempt: int) -> str:
    """The id of the workflow that does what a person has decided about it."""
    return f"{workflow_id(job_id, attempt)}-decision"


_worker: Worker | None = None


def worker() -> Worker:
    """The worker of this process. DBOS finds workflows by name, so they cannot carry it."""
    if _worker is None:
        raise RuntimeError("no worker runs in this process")
    return _worker


@DBOS.step()
def prepare(job_id: str, attempt: int) -> None:
    """Freeze the dataset."""
    worker().call(worker().steps.prepare(job_id, attempt))


@DBOS.step()
def train(job_id: str) -> None:
    """Train and evaluate in a child process."""
    worker().call(worker().steps.train(job_id))


@DBOS.step()
def publish(job_id: str) -> str:
    """Check the weights and publish the folder."""
    return worker().call(worker().steps.publish(job_id))


@DBOS.step()
def compare_with_engine(job_id: str, name: str) -> None:
    """Parity."""
    worker().call(worker().steps.compare_with_engine(job_id, name))


@DBOS.step()
def apply_gates(job_id: str, name: str) -> str:
    """Gates, report, registration."""
    return worker().call(worker().steps.apply_gates(job_id, name))


@DBOS.step()
def keep_results(job_id: str) -> None:
    """The result file."""
    worker().call(worker().steps.keep_results(job_id))


@DBOS.step()
def await_approval(job_id: str) -> bool:
    """Enter the waiting state when the job asks for a person."""
    return worker().call(worker().steps.await_approval(job_id))


@DBOS.step()
def promote(job_id: str) -> None:
    """Make the adapter live, if it may be, and end well."""
    worker().call(worker().steps.promote(job_id))


@DBOS.step()
def pause(job_id: str, attempt: int) -> None:
    """Write that the job waits."""
    worker().call(worker().steps.pause(job_id, attempt))


@DBOS.step()
def end(job_id: str, state: str, error: dict[str, Any] | None) -> None:
    """End as failed or cancelled."""
    worker().call(worker().steps.end(job_id, state, error))


@DBOS.step()
def run_import(import_id: str) -> None:
    """Read a file into conversations."""
    worker().call(worker().steps.run_import(import_id))


@DBOS.workflow()
def import_workflow(import_id: str) -> None:
    """One import."""
    try:
        run_import(import_id)
    finally:
        worker().over(import_id)


@DBOS.workflow()
def job_workflow(job_id: str, attempt: int) -> str:
    """One attempt at a job, from its dataset to its promotion, or not; what became of it."""
    try:
        prepare(job_id, attempt)
        train(job_id)
        name = publish(job_id)
        compare_with_engine(job_id, name)
        unsafe = apply_gates(job_id, name)
        keep_results(job_id)
        if unsafe:
            end(job_id, "failed", {"code": "unsafe_adapter", "message": unsafe})
            return "failed"
        # awaiting a person may last for weeks: it holds no place meanwhile (``decision_workflow``)
        decided = await_approval(job_id)
        if decided:
            promote(job_id)
    except Superseded:
        return "superseded"
    except TrainingPaused:
        pause(job_id, attempt)
        return "paused"
    except TrainingCancelled:
        end(job_id, "cancelled", None)
        return "cancelled"
    except Exception as exc:
        log.exception("job failed", job=job_id)
        end(job_id, "failed", failure(exc))
        return "failed"
    finally:
        worker().over((job_id, attempt))
    return "succeeded" if decided else "awaiting_approval"


@DBOS.workflow()
def decision_workflow(job_id: str) -> str:
    """What a person has decided about a job's adapter, or nobody in time; what became of it."""
    try:
        promote(job_id)
    except TrainingCancelled:
        end(job_id, "cancelled", None)
        return "cancelled"
    except Exception as exc:
        log.exception("job failed", job=job_id)
        end(job_id, "failed", failure(exc))
        return "failed"
    return "succeeded"


def executor_id(settings: Settings) -> str:
    """Who we are to DBOS: a worker recovers its own workflows alone."""
    return f"{socket.gethostname()}:{settings.home}"


def dbos_config(settings: Settings) -> DBOSConfig:
    """Workflow state: beside the rows on PostgreSQL, in a file of its own with SQLite."""
    database = Database(settings.database)
    if database.is_sqlite:
        url = f"sqlite:///{settings.home / 'dbos.sqlite'}"
    else:
        url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return DBOSConfig(
        name="tenantune",
        system_database_url=url,
        application_version=WORKFLOW_VERSION,
        executor_id=executor_id(settings),
        log_level="WARNING",
    )


async def main() -> None:
    """Run until SIGTERM; then save what is running and leave. What was unfinished goes on later."""
    global _worker  # noqa: PLW0603 - see worker()
    settings = Settings.from_env()
    configure_logging(settings)
    keep_private()
    take(settings, thorough=True)
    if try_lock(settings.run / "worker.lock") is None:
        sys.exit(f"a worker already runs on {settings.home}")
    _worker = Worker(settings)
    loop, stopping = asyncio.get_running_loop(), _worker.steps.stopping

    def stop() -> None:
        loop.call_soon_threadsafe(stopping.set)

    with_parent = "--with-parent" in sys.argv
    with GracefulShutdown(stop, seconds=STOP_SECONDS, with_parent=with_parent):
        async with asyncio.TaskGroup() as group:
            group.create_task(_work(_worker))  # an error of it ends the group
            await stopping.wait()
            await _worker.steps.reconcile()
            # A step that is still open must not be recorded as done or failed: it is run again.
            sys.stdout.flush()
            os._exit(0)


async def _work(this: Worker) -> None:
    """Everything from the database's tables on; may be left at any point."""
    settings = this.settings
    await this.database.migrate()
    DBOS(config=dbos_config(settings))
    await asyncio.to_thread(DBOS.launch)
    await DBOS.register_queue_async("jobs", worker_concurrency=settings.worker_jobs)
    await DBOS.register_queue_async("imports", worker_concurrency=IMPORTS_AT_ONCE)
    await DBOS.register_queue_async("decisions")
    await this.requeue_orphaned()
    log.info("worker ready", home=str(settings.home), jobs_at_once=settings.worker_jobs)
    await this.run()


if __name__ == "__main__":
    asyncio.run(main())
