"""End: pause a job, or end it as failed or cancelled."""

from typing import Any

from server.errors import ServerError
from server.jobs.schemas import FINAL_STATES
from server.jobs.states import requeue, set_state
from server.jobs.steps.context import StepContext, lock_job
from server.jobs.trainer_process import TrainingFailed


async def pause(context: StepContext, job_id: str, attempt: int) -> None:
    """Write that the job is paused; its workflow ends with this.

    A job that was resumed meanwhile goes to the end of the queue instead.
    """
    async with context.database.transaction() as session:
        job = await lock_job(session, job_id)
        if job.attempts != attempt or job.state in FINAL_STATES:
            return
        if job.cancel_requested:
            await set_state(session, job, "cancelled")
        elif job.pause_requested:
            await set_state(session, job, "paused")
        else:
            await requeue(session, job)


async def end(
    context: StepContext, job_id: str, state: str, error: dict[str, Any] | None = None
) -> None:
    """End a job: ``state`` is ``failed``, with an error from ``failure``, or ``cancelled``.

    A job whose cancellation was requested is cancelled, whatever else went wrong.
    """
    async with context.database.transaction() as session:
        job = await lock_job(session, job_id)
        if job.cancel_requested or state == "cancelled":
            await set_state(session, job, "cancelled")
        else:
            await set_state(session, job, "failed", error=error)


def failure(exc: Exception) -> dict[str, Any]:
    """An error as the job's row holds it."""
    match exc:
        case TrainingFailed():
            return {"code": exc.code, "message": exc.message}
        case ServerError():
            return {"code": exc.code or "error", "message": exc.message}
        case _:
            return {"code": "internal", "message": f"{type(exc).__name__}: {exc}"}
