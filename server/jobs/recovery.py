"""Recovers what earlier workers have started and DBOS does not recover: it is started again."""

import structlog
from dbos import DBOS

from server.db.models import FINISHED_JOB_STATES, Import, Job, KnowledgeUpload
from server.db.scope import across_tenants
from server.db.session import Database
from server.jobs.states import set_state
from server.jobs.steps.context import lock_job
from server.jobs.workflows import WORKFLOW_VERSION, decision_id, workflow_id

log = structlog.get_logger(__name__)


async def requeue_orphaned(
    database: Database, *, executor_id: str
) -> tuple[set[str], set[tuple[str, int]], set[str]]:
    """Queue again what no workflow will ever finish: call once, after ``DBOS.launch``.

    That is what another version of this worker began on this machine, whose workflows DBOS leaves
    alone, and what DBOS has given up or lost. Rows are the truth, and every step may run again.

    Returns:
        What DBOS goes on with: ids of imports, (id, attempt) of jobs, ids of uploads of articles.
    """
    everyone = across_tenants("a worker recovers the work of all tenants")
    async with database.reading() as session:
        attempts = everyone.select(Job.id, Job.attempts)
        jobs = await session.execute(
            attempts.where(Job.state.not_in([*FINISHED_JOB_STATES, "paused", "awaiting_approval"]))
        )
        waiting = await session.execute(attempts.where(Job.state == "awaiting_approval"))
        imports = await session.scalars(
            everyone.select(Import.id).where(Import.state.in_(("queued", "running")))
        )
        uploads = await session.scalars(
            everyone.select(KnowledgeUpload.id).where(
                KnowledgeUpload.state.in_(("queued", "running"))
            )
        )
        open_jobs, open_imports, open_decisions = list(jobs), list(imports), list(waiting)
        open_uploads = list(uploads)
    running_imports: set[str] = set()
    running_jobs: set[tuple[str, int]] = set()
    running_uploads: set[str] = set()
    for job_id, attempt in open_jobs:
        if await _is_orphaned(workflow_id(job_id, attempt), executor_id):
            async with database.transaction() as session:
                job = await lock_job(session, job_id)
                if job.attempts == attempt and job.state != "paused":
                    await set_state(session, job, "queued")
        else:
            running_jobs.add((job_id, attempt))
    for import_id in open_imports:
        if await _is_orphaned(import_id, executor_id):
            async with database.transaction() as session:
                (await everyone.get_one(session, Import, import_id)).state = "queued"
        else:
            running_imports.add(import_id)
    for upload_id in open_uploads:
        if await _is_orphaned(upload_id, executor_id):
            async with database.transaction() as session:
                (await everyone.get_one(session, KnowledgeUpload, upload_id)).state = "queued"
        else:
            running_uploads.add(upload_id)
    for job_id, attempt in open_decisions:  # a dead one would be in the way of the next decision
        await _is_orphaned(decision_id(job_id, attempt), executor_id)
    return running_imports, running_jobs, running_uploads


async def _is_orphaned(workflow: str, executor_id: str) -> bool:
    """Whether no worker will run this workflow to its end; such a one is removed from DBOS."""
    status = await DBOS.get_workflow_status_async(workflow)
    if status is None:
        return True
    alive = status.status in {"PENDING", "ENQUEUED", "DELAYED"}
    if alive and (
        status.app_version in {None, WORKFLOW_VERSION}
        or (status.status == "PENDING" and status.executor_id != executor_id)
    ):
        return False
    log.warning("begun anew", workflow=workflow, status=status.status, by=status.app_version)
    await DBOS.delete_workflow_async(workflow)
    return True
