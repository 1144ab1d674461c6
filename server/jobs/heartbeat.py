"""Tells the database, from a worker, that it lives and what it works on."""

import os
import socket
from collections.abc import Collection
from datetime import timedelta

import structlog

from server.db.models import WorkerProcess, now
from server.db.scope import of_installation
from server.db.session import Database

log = structlog.get_logger(__name__)

BEAT_SECONDS = 10.0
"""How often a worker that has nothing new to say is seen."""
LOST_SECONDS = 60.0
"""A worker that was not seen for so long has been killed, or its machine cannot reach the database."""
FORGOTTEN = timedelta(days=1)
"""Rows of workers that were not seen for so long are removed."""


class Heartbeat:
    """The row of one worker.

    Args:
        database: the worker's.
        name: the worker's, which no other has that lives.
        jobs_at_once: how many jobs it runs at a time.

    Example:
        heartbeat = Heartbeat(database, name=executor_id(settings), jobs_at_once=1)
        await heartbeat.beat(jobs=running_jobs, imports=running_imports)  # at each look for work
        await heartbeat.end()
    """

    def __init__(self, database: Database, *, name: str, jobs_at_once: int) -> None:
        self._database = database
        self._name = name
        self._jobs_at_once = jobs_at_once
        self._row: WorkerProcess | None = None
        self._ended = False

    async def beat(self, *, jobs: Collection[str], imports: Collection[str]) -> None:
        """Say what is worked on, by ids; written when that is new, or ``BEAT_SECONDS`` after the last time.

        The first beat takes the place of a worker of this name that was killed.
        """
        moment = now()
        work = sorted(jobs), sorted(imports)
        row = self._row
        if self._ended or (
            row is not None
            and (row.jobs, row.imports) == work
            and moment - row.seen_at < timedelta(seconds=BEAT_SECONDS)
        ):
            return
        made = WorkerProcess(
            name=self._name,
            host=socket.gethostname(),
            pid=os.getpid(),
            jobs_at_once=self._jobs_at_once,
            jobs=work[0],
            imports=work[1],
            seen_at=moment,
        )
        if row is not None:
            made.id, made.created_at = row.id, row.created_at
        async with self._database.transaction() as session:
            workers = of_installation()
            if row is None:
                gone = WorkerProcess.name == self._name
                gone |= WorkerProcess.seen_at < moment - FORGOTTEN
                await session.execute(workers.delete(WorkerProcess).where(gone))
            self._row = await session.merge(made)

    async def end(self) -> None:
        """Remove the row: this worker stops by itself."""
        self._ended = True
        if self._row is None:
            return
        mine = of_installation().delete(WorkerProcess).where(WorkerProcess.id == self._row.id)
        async with self._database.transaction() as session:
            await session.execute(mine)
