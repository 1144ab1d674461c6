"""How a job changes from state to state. The row is the truth; it is locked while it changes.

queued -> validating -> running -> evaluating (-> awaiting_approval) -> succeeded | failed | cancelled

A pause is requested (``pause_requested``) and then happens: the worker lets the trainer save, ends
the workflow and writes ``paused``. Resuming puts the job into the queue again as a new attempt,
whose workflow finds the checkpoint. A cancelled job never yields a model: a promotion locks the row
and looks, so that either the cancellation or the promotion is first, and the other is refused.
"""

from typing import Any, Literal

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from server.adapters import canary
from server.adapters import service as adapters
from server.adapters.changes import running_canary
from server.audit import service as audit
from server.audit.actions import Action
from server.audit.schemas import Subject
from server.db.models import Adapter, Decision, Job, JobEvent, JobState, Tenant, now
from server.db.scope import of_tenant
from server.errors import Conflict, NotFound
from server.jobs.schemas import FINAL_STATES, public_id
from server.webhooks import service as webhooks
from server.webhooks.schemas import EventType

PAUSABLE: frozenset[JobState] = frozenset({"queued", "validating", "running", "evaluating"})

ENDS: dict[JobState, EventType] = {
    "succeeded": "fine_tuning.job.succeeded",
    "failed": "fine_tuning.job.failed",
    "cancelled": "fine_tuning.job.cancelled",
}
Request = Literal["cancel", "pause", "resume", "approved", "rejected"]
_REQUESTS: dict[Request, Action] = {
    "cancel": "job.cancelled",
    "pause": "job.paused",
    "resume": "job.resumed",
    "approved": "job.approved",
    "rejected": "job.rejected",
}


async def get_for_update(session: AsyncSession, tenant_id: str, job_id: str) -> Job:
    """A job of this tenant as it is now, locked until the transaction ends.

    Raises:
        NotFound: no such job, or another tenant's.
    """
    job = await of_tenant(tenant_id).get(session, Job, job_id, lock=True)
    if job is None:
        raise NotFound(f"no job {job_id}")
    return job


async def add_event(session: AsyncSession, job: Job, *, kind: str, body: dict[str, Any]) -> None:
    """Append to a job's history. Locks the row, so that numbers are given out once."""
    mine = of_tenant(job.tenant_id)
    await session.execute(mine.select(Job.id).where(Job.id == job.id).with_for_update())
    last = await session.scalar(
        mine.select(func.max(JobEvent.seq)).where(JobEvent.job_id == job.id)
    )
    session.add(
        JobEvent(tenant_id=job.tenant_id, job_id=job.id, seq=(last or 0) + 1, kind=kind, body=body)
    )
    await session.flush()


async def set_state(
    session: AsyncSession,
    job: Job,
    state: JobState,
    *,
    stage: str = "",
    error: dict[str, Any] | None = None,
) -> bool:
    """Change a job's state, with an event. A job that has ended stays as it ended: False then.

    An end is sent to the tenant's webhooks; a cancelled job's adapter is deleted.
    """
    await session.flush()  # reading it again would undo what the caller has changed
    await session.refresh(job, with_for_update=True)
    if job.state in FINAL_STATES:
        return False
    job.stage = stage or state
    if job.state == state and error is None:
        return True
    job.state = state
    job.error = error
    if job.started_at is None and state not in {"queued", "paused", "cancelled"}:
        job.started_at = now()
    body: dict[str, Any] = {"state": state}
    if error:
        body["error"] = error
    await add_event(session, job, kind="state", body=body)
    if state in ENDS:
        job.finished_at = now()
        if state == "cancelled":
            await _discard_adapter(session, job)
        await webhooks.emit(
            session,
            job.tenant_id,
            type=ENDS[state],
            data={"id": public_id(job.id)},
        )
    return True


async def cancel(
    session: AsyncSession, tenant_id: str, job_id: str, *, actor: str | None = None
) -> Job:
    """Stop a job: at once where no workflow works on it, else as soon as its worker sees it.

    From the commit on it cannot succeed any more. A second request changes nothing.

    Raises:
        NotFound: no such job, or another tenant's.
        Conflict: the job has already ended, or a person has made its adapter live.
    """
    job = await get_for_update(session, tenant_id, job_id)
    if job.state in FINAL_STATES:
        raise Conflict(
            f"job {job_id} has already {_past(job.state)}; it cannot be cancelled",
            code="job_already_ended",
        )
    if job.adapter_id is not None:
        tenant = await session.get_one(Tenant, tenant_id)
        if tenant.live_adapter_id == job.adapter_id:
            raise Conflict(
                f"the adapter of job {job_id} is live: roll back first, then cancel",
                code="adapter_is_live",
            )
        running = await running_canary(session, tenant)
        if running is not None and running.adapter_id == job.adapter_id:
            raise Conflict(
                f"the adapter of job {job_id} is the canary: take it back first, then cancel",
                code="adapter_is_canary",
            )
    if not job.cancel_requested:
        await _add_request(session, job, "cancel", actor)
    job.cancel_requested = True
    if job.state in {"queued", "paused"}:
        await set_state(session, job, "cancelled")
    return job


async def pause(
    session: AsyncSession, tenant_id: str, job_id: str, *, actor: str | None = None
) -> Job:
    """Pause a job: at once where it is still queued, else once its trainer has saved.

    A second request changes nothing.

    Raises:
        NotFound: no such job, or another tenant's.
        Conflict: the job has ended, is being cancelled, or awaits approval.
    """
    job = await get_for_update(session, tenant_id, job_id)
    if job.state == "paused":
        return job
    if job.state not in PAUSABLE or job.cancel_requested:
        reason = (
            "is being cancelled"
            if job.cancel_requested and job.state not in FINAL_STATES
            else f"has {_past(job.state)}"
        )
        raise Conflict(f"job {job_id} {reason}; it cannot be paused", code="job_not_pausable")
    if not job.pause_requested:
        await _add_request(session, job, "pause", actor)
    job.pause_requested = True
    if job.state == "queued":
        await set_state(session, job, "paused")
    return job


async def resume(
    session: AsyncSession, tenant_id: str, job_id: str, *, actor: str | None = None
) -> Job:
    """Put a paused job at the end of the queue; it goes on from its checkpoint.

    A job that is still saving for its pause goes on without it.

    Raises:
        NotFound: no such job, or another tenant's.
        Conflict: the job is not paused.
    """
    job = await get_for_update(session, tenant_id, job_id)
    if job.state != "paused" and not (job.pause_requested and job.state in PAUSABLE):
        raise Conflict(
            f"job {job_id} is {job.state}, not paused; there is nothing to resume",
            code="job_not_paused",
        )
    await _add_request(session, job, "resume", actor)
    job.pause_requested = False
    if job.state == "paused":
        await requeue(session, job)
    return job


async def requeue(session: AsyncSession, job: Job) -> None:
    """Put a job that no workflow works on into the queue, as a new attempt."""
    job.attempts += 1
    await set_state(session, job, "queued")


async def decide(
    session: AsyncSession,
    tenant_id: str,
    job_id: str,
    *,
    decision: Decision,
    actor: str | None = None,
) -> Job:
    """Approve or reject the adapter of a job that awaits it; the first answer stands.

    Raises:
        NotFound: no such job, or another tenant's.
        Conflict: the job does not await approval, or it was decided already.
    """
    job = await get_for_update(session, tenant_id, job_id)
    if job.state != "awaiting_approval" or job.decision is not None:
        raise Conflict(f"job {job_id} does not await a decision")
    await _add_request(session, job, decision, actor)
    job.decision = decision
    if decision == "rejected" and job.adapter_id is not None:
        tenant = await session.get_one(Tenant, tenant_id)
        await canary.end_of(session, tenant, job.adapter_id, actor=actor or f"job {job_id}")
    return job


async def _add_request(session: AsyncSession, job: Job, what: Request, actor: str | None) -> None:
    """Say in the history who asked for a change: cancel, pause, resume, approved or rejected."""
    await add_event(session, job, kind="request", body={"what": what, "actor": actor})
    audit.record(
        session, _REQUESTS[what], tenant_id=job.tenant_id, subject=subject(job), actor=actor
    )


def subject(job: Job) -> Subject:
    """A job as the audit log names it."""
    return Subject("job", job.id, public_id(job.id))


async def _discard_adapter(session: AsyncSession, job: Job) -> None:
    """Delete the adapter of a cancelled job."""
    if job.adapter_id is None:
        return
    tenant = await session.get_one(Tenant, job.tenant_id)
    adapter = await of_tenant(job.tenant_id).get_one(session, Adapter, job.adapter_id)
    if adapter.state == "deleted":
        return
    if tenant.live_adapter_id == adapter.id:  # a person was quicker than the worker
        await adapters.roll_back(session, tenant, actor=f"job {job.id} cancelled")
    await canary.end_of(session, tenant, adapter.id, actor=f"job {job.id} cancelled")
    await adapters.delete(session, tenant, version=adapter.version)


def _past(state: str) -> str:
    return {"cancelled": "been cancelled", "awaiting_approval": "finished training"}.get(
        state, state
    )
