"""What all steps share: the settings, the database, the folders of jobs and the running trainers."""

import asyncio
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Job
from server.db.scope import across_tenants
from server.db.session import Database
from server.embeddings.service import build_embeddings
from server.jobs.trainer_process import Interruption
from server.settings import Settings
from server.storage.blobs import BlobStore

_JOBS = across_tenants("a workflow knows its job by the job's id alone")


class Superseded(Exception):
    """This workflow's attempt is over: the job was paused, resumed or ended without it."""


class RunningTrainers:
    """The jobs whose trainers run. A worker ends after the last one has saved."""

    def __init__(self) -> None:
        self._job_ids: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def started(self, job_id: str) -> None:
        """Its trainer is about to run."""
        self._job_ids.add(job_id)
        self._idle.clear()

    def ended(self, job_id: str) -> None:
        """Its trainer has saved and ended. Saying so again changes nothing."""
        self._job_ids.discard(job_id)
        if not self._job_ids:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until none runs."""
        await self._idle.wait()


class StepContext:
    """What the steps of one worker work with. Each step opens its own transactions.

    Args:
        settings: the installation's.
        database: where jobs are rows. The caller closes it.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.blobs = BlobStore.open(settings.blobs)
        self.embeddings = build_embeddings(settings, run="worker-embeddings", in_background=True)
        """Its ``run`` must be running when articles are embedded."""
        self.trainers = RunningTrainers()
        self.stopping = asyncio.Event()
        """Set when the worker is to end."""

    def folder(self, job_id: str) -> Path:
        """Where the job's files are."""
        return self.settings.jobs / job_id

    async def requested_interruption(self, job_id: str) -> Interruption | None:
        """What a person has requested of the job by now."""
        async with self.database.reading() as session:
            return requested_interruption(await find_job(session, job_id))


async def find_job(session: AsyncSession, job_id: str) -> Job:
    """The job, whichever tenant's it is."""
    return await _JOBS.get_one(session, Job, job_id)


async def lock_job(session: AsyncSession, job_id: str) -> Job:
    """The job as it is now, whichever tenant's it is, locked until the transaction ends."""
    return await _JOBS.get_one(session, Job, job_id, lock=True)


def requested_interruption(job: Job) -> Interruption | None:
    """What a person has requested of the job; a cancellation counts more than a pause."""
    if job.cancel_requested:
        return "cancel"
    return "pause" if job.pause_requested else None
