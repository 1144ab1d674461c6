"""Promote: wait for a person where the job asks for one, then make the adapter live, or not."""

from server.adapters import service as adapters
from server.db.models import Adapter, Job, Tenant
from server.db.scope import of_tenant
from server.errors import Conflict, NotFound
from server.jobs.schemas import FINAL_STATES
from server.jobs.states import add_event, set_state
from server.jobs.steps.context import StepContext, lock_job, requested_interruption
from server.jobs.trainer_process import raise_if_interrupted

_GATE_RESULTS: dict[str, str] = {"candidate": "cannot_tell", "failed_gates": "worse"}
"""Of adapters that were registered before jobs had an outcome, by state; "better" for the others."""


async def await_approval(context: StepContext, job_id: str) -> bool:
    """Enter ``awaiting_approval`` when the job asks for it, or the gates cannot tell; True if neither.

    An adapter that the gates found worse awaits none. Nor does one of which they cannot tell where the
    job came as OpenAI's clients make it, with a file: they poll until it has ended. It ends well then,
    and a person may promote the adapter later.

    Raises:
        TrainingCancelled: the job's cancellation was requested.
        TrainingPaused: the job's pause was requested.
    """
    async with context.database.transaction() as session:
        job = await lock_job(session, job_id)
        raise_if_interrupted(requested_interruption(job))
        adapter = await of_tenant(job.tenant_id).get_one(session, Adapter, job.adapter_id)
        undecided = adapter.state == "candidate" and job.training_file_id is None
        needs_approval = adapter.state != "failed_gates" and (job.require_approval or undecided)
        if not needs_approval or job.decision is not None:
            return True
        await set_state(session, job, "awaiting_approval")
        return False


async def promote(context: StepContext, job_id: str) -> None:
    """Make the adapter the tenant's live one, if gates and people allow it, and end the job well.

    The job's row is locked from the check for a cancellation to the commit. So a cancellation is
    either seen here, or it is refused because the job has succeeded.

    Raises:
        TrainingCancelled: the job was cancelled before.
        TrainingPaused: the job's pause was requested.
    """
    async with context.database.transaction() as session:
        job = await lock_job(session, job_id)
        if job.state in FINAL_STATES:
            return
        raise_if_interrupted(requested_interruption(job))
        tenant = await session.get_one(Tenant, job.tenant_id)
        adapter = await of_tenant(job.tenant_id).get_one(session, Adapter, job.adapter_id)
        reason = _reason_against(job, adapter)
        if reason is None:
            try:
                await adapters.promote(
                    session, tenant, version=adapter.version, actor=f"job {job_id}"
                )
            except (Conflict, NotFound) as exc:
                reason = exc.message
        job.outcome = {
            "gates": _GATE_RESULTS.get(adapter.state, "better"),
            "summary": "",
            **(job.outcome or {}),
            "promoted": reason is None,
            "reason": reason,
        }
        if reason is not None:
            name = f"{tenant.slug}@{adapter.version}"
            message = f"{name} was not promoted, and answers to its own name: {reason}"
            await add_event(session, job, kind="warning", body={"message": message})
        await set_state(session, job, "succeeded", stage="" if reason is None else "not promoted")


def _reason_against(job: Job, adapter: Adapter) -> str | None:
    """Why a job must not make its adapter live; None where it may."""
    summary = (job.outcome or {}).get("summary", "")
    if adapter.state == "failed_gates":
        return summary or "it failed its gates"
    if job.decision == "rejected":
        return "a person rejected it"
    if job.decision is None and (job.require_approval or job.state == "awaiting_approval"):
        return "nobody approved it in time"
    if adapter.state == "candidate" and job.decision != "approved":
        return f"{summary or 'its gates cannot tell'}. A person may promote it"
    return None
