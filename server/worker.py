"""The worker: takes queued imports, uploads of articles and jobs from the database and sees them through.

``python -m server.worker``. Rows are the truth: what is queued there is given to DBOS under the
row's own id when it is its tenant's turn (``server/jobs/scheduling.py``), any number of times, and
runs once. The work itself is in ``server/jobs/workflows.py``. A worker that was killed at any point
goes on at the step it had reached when it, or ``tenantune up``, starts again.

A workflow that pauses its job ends. Resuming raises ``Job.attempts``, which is a part of the
workflow's id, so that the next one is another workflow. A workflow whose job was paused, resumed or
ended before its turn changes nothing.
"""

import asyncio
import contextlib
import os
import socket
import sys
from datetime import datetime, timedelta
from typing import Any

import structlog
from dbos import DBOS, DBOSConfig, SetWorkflowID
from sqlalchemy import or_
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Import, Job, KnowledgeUpload, now
from server.db.scope import across_tenants
from server.db.session import Database
from server.home import claim, keep_private
from server.jobs.cleanup import cleanup_finished
from server.jobs.head_training import remove_abandoned, train_queued_forever
from server.jobs.heartbeat import Heartbeat
from server.jobs.recovery import requeue_orphaned
from server.jobs.scheduling import (
    ACTIVE_STATES,
    MAX_RUNNING_IMPORTS,
    MAX_RUNNING_UPLOADS,
    next_imports,
    next_jobs,
    next_uploads,
)
from server.jobs.steps.context import StepContext
from server.jobs.workflows import WORKFLOW_VERSION, Workflows, decision_id, workflow_id
from server.logs import configure_logging
from server.settings import Settings
from server.shutdown import GracefulShutdown
from training.locks import try_lock

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.5
CLEANUP_INTERVAL = timedelta(minutes=1)
APPROVAL_TIMEOUT = timedelta(days=90)
STOP_SECONDS = 7.0  # trainers take 6 at most, see trainer_process.STOP_SECONDS
END_SECONDS = 0.5  # to say that it ends; else it counts as lost a minute later
EVERYONE = across_tenants("a worker serves the queued work of all tenants")


class Worker:
    """Polls the database for what is queued, and hands it to DBOS when there is a slot for it.

    Args:
        settings: the installation's; ``worker_jobs`` is how many jobs run at a time.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # a job is not lost because another process writes for long: no client waits for an answer
        self.database = Database(settings.database, patience_seconds=60.0)
        self.context = StepContext(settings, self.database)
        self.workflows = Workflows(self.context, on_end=self._free)
        self.heartbeat = Heartbeat(
            self.database, name=executor_id(settings), jobs_at_once=settings.worker_jobs
        )
        # what has a slot: handed to a workflow of this process, and not over
        self._imports: set[str] = set()
        self._jobs: set[tuple[str, int]] = set()  # (id, attempt)
        self._uploads: set[str] = set()  # of articles

    async def start(self) -> None:
        """Launch DBOS, which goes on with what was under way, and queue again what it leaves."""
        await self.database.migrate()
        DBOS(config=dbos_config(self.settings))
        DBOS.launch()  # on this thread, so that workflows run on this event loop
        await DBOS.register_queue_async("jobs", worker_concurrency=self.settings.worker_jobs)
        await DBOS.register_queue_async("imports", worker_concurrency=MAX_RUNNING_IMPORTS)
        await DBOS.register_queue_async("knowledge", worker_concurrency=MAX_RUNNING_UPLOADS)
        await DBOS.register_queue_async("decisions")
        self._imports, self._jobs, self._uploads = await requeue_orphaned(
            self.database, executor_id=executor_id(self.settings)
        )

    async def poll(self) -> None:
        """Dispatch until the worker stops; clean up at first and every ``CLEANUP_INTERVAL``."""
        cleaned: datetime | None = None
        while not self.context.stopping.is_set():
            try:
                await self._dispatch()
                await self.heartbeat.beat(
                    jobs=[job_id for job_id, _ in self._jobs], imports=self._imports
                )
                if cleaned is None or now() - cleaned >= CLEANUP_INTERVAL:
                    started = now()
                    since = cleaned and cleaned - CLEANUP_INTERVAL
                    await cleanup_finished(self.database, self.settings, since=since)
                    await remove_abandoned(self.context)
                    cleaned = started
            except Exception:
                log.exception("dispatch failed; trying again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.context.stopping.wait(), POLL_SECONDS)

    async def _dispatch(self) -> None:
        expired = now() - APPROVAL_TIMEOUT
        async with self.database.reading() as session:
            await self._free_ended(session)
            imports = await next_imports(session, started=self._imports)
            jobs = await next_jobs(
                session,
                started=[job_id for job_id, _ in self._jobs],
                max_running=self.settings.worker_jobs,
            )
            uploads = await next_uploads(session, started=self._uploads)
            waiting = EVERYONE.select(Job.id, Job.attempts).where(
                Job.state == "awaiting_approval",
                or_(Job.decision.is_not(None), Job.cancel_requested, Job.updated_at < expired),
            )
            decided = list(await session.execute(waiting))
        workflows = self.workflows
        for import_id in imports:
            await self._enqueue("imports", workflows.import_workflow, import_id, import_id)
            self._imports.add(import_id)
        for upload_id in uploads:
            await self._enqueue("knowledge", workflows.knowledge_workflow, upload_id, upload_id)
            self._uploads.add(upload_id)
        for job_id, attempt in jobs:
            workflow = workflow_id(job_id, attempt)
            await self._enqueue("jobs", workflows.job_workflow, workflow, job_id, attempt)
            self._jobs.add((job_id, attempt))
        for job_id, attempt in decided:
            workflow = decision_id(job_id, attempt)
            await self._enqueue("decisions", workflows.decision_workflow, workflow, job_id)

    async def _free_ended(self, session: AsyncSession) -> None:
        """Free the slots of what has ended, or was put back into the queue."""
        running = EVERYONE.select(Import.id).where(
            Import.id.in_(self._imports), Import.state.in_(("queued", "running"))
        )
        self._imports &= set(await session.scalars(running))
        reading = EVERYONE.select(KnowledgeUpload.id).where(
            KnowledgeUpload.id.in_(self._uploads), KnowledgeUpload.state.in_(("queued", "running"))
        )
        self._uploads &= set(await session.scalars(reading))
        active = EVERYONE.select(Job.id, Job.attempts).where(
            Job.id.in_([job_id for job_id, _ in self._jobs]), Job.state.in_(ACTIVE_STATES)
        )
        self._jobs &= {(row.id, row.attempts) for row in await session.execute(active)}

    def _free(self, workflow: str) -> None:
        """Free the slot of a workflow that has ended.

        Only one that broke off leaves its row as it was; ``_free_ended`` sees the others.
        """
        self._imports.discard(workflow)
        self._uploads.discard(workflow)
        self._jobs = {each for each in self._jobs if workflow_id(*each) != workflow}

    async def _enqueue(self, queue: str, workflow: Any, name: str, *args: Any) -> None:  # noqa: ANN401
        with SetWorkflowID(name):
            await DBOS.enqueue_workflow_async(queue, workflow, *args)


def executor_id(settings: Settings) -> str:
    """This worker's name in DBOS: a worker recovers only its own workflows."""
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
    settings = Settings.from_env()
    configure_logging(settings)
    keep_private()
    claim(settings, thorough=True)
    if try_lock(settings.run / "worker.lock") is None:
        sys.exit(f"a worker already runs on {settings.home}")
    worker = Worker(settings)
    loop, context = asyncio.get_running_loop(), worker.context

    def stop() -> None:
        loop.call_soon_threadsafe(context.stopping.set)

    with_parent = "--with-parent" in sys.argv
    with GracefulShutdown(stop, seconds=STOP_SECONDS, with_parent=with_parent):
        async with asyncio.TaskGroup() as group:
            group.create_task(_run(worker))  # an error of it ends the group
            await context.stopping.wait()
            await context.trainers.wait_idle()
            with contextlib.suppress(TimeoutError, SQLAlchemyError):
                async with asyncio.timeout(END_SECONDS):
                    await worker.heartbeat.end()
            # A step that is still open must not be recorded as done or failed: it is run again.
            sys.stdout.flush()
            os._exit(0)


async def _run(worker: Worker) -> None:
    """Start and poll; may be left at any point."""
    async with asyncio.TaskGroup() as group:
        encoder = group.create_task(worker.context.embeddings.run())
        await worker.start()
        settings = worker.settings
        log.info("worker ready", home=str(settings.home), jobs_at_once=settings.worker_jobs)
        heads = group.create_task(
            train_queued_forever(worker.context, executor=executor_id(settings))
        )
        await worker.poll()
        heads.cancel()
        encoder.cancel()


if __name__ == "__main__":
    asyncio.run(main())
