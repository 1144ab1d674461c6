"""Removes the files of jobs that ended without a model, and what killed work left behind."""

import asyncio
import shutil
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from server.db.models import Job
from server.db.scope import across_tenants
from server.db.session import Database
from server.scratch import clear
from server.settings import Settings
from training.finetuning.trackers import TRACKERS

# what tells the operator why the job ended, and the lock of a trainer that still saves
KEPT_FILES = {"spec.json", "events.jsonl", "trainer.log", "report.json", "report.html", ".lock"}
KEPT_FILES |= {TRACKERS}


async def cleanup_finished(
    database: Database, settings: Settings, *, since: datetime | None = None
) -> None:
    """Remove the files of jobs that failed or were cancelled, but ``KEPT_FILES``, and of killed work.

    ``since``: only of jobs that ended from then on; of all when None. No workflow works on such a job
    any more. An unsafe version has its own copy of the weights.
    """
    async with database.reading() as session:
        jobs = across_tenants("cleaning up is for all folders of jobs").select(Job.id)
        ended = jobs.where(Job.state.in_(("failed", "cancelled")))
        if since is not None:
            ended = ended.where(Job.finished_at >= since)
        folders = [settings.jobs / job_id for job_id in await session.scalars(ended)]
    await asyncio.to_thread(_remove_files, folders)
    await asyncio.to_thread(clear, settings)


def _remove_files(folders: Iterable[Path]) -> None:
    for folder in folders:
        if not folder.is_dir():
            continue
        for entry in folder.iterdir():
            if entry.name in KEPT_FILES:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)  # what is left goes the next time
            else:
                entry.unlink(missing_ok=True)
