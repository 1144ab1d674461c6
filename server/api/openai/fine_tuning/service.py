"""The events of a job that OpenAI's clients see, in their order."""

from sqlalchemy.ext.asyncio import AsyncSession

from server.api.openai.fine_tuning.views import EVENT, SHOWN_EVENTS
from server.db.models import Job, JobEvent
from server.db.scope import of_tenant
from server.errors import Invalid


async def newest_events(
    session: AsyncSession, job: Job, *, limit: int, after: str | None = None
) -> list[JobEvent]:
    """At most ``limit`` events of a job, newest first, those older than ``after`` (a public id).

    Raises:
        Invalid: the job has no event ``after``.
    """
    query = (
        of_tenant(job.tenant_id)
        .select(JobEvent)
        .where(JobEvent.job_id == job.id, JobEvent.kind.in_(SHOWN_EVENTS))
        .order_by(JobEvent.seq.desc())
    )
    if after is not None:
        last = await session.scalar(query.where(JobEvent.id == after.removeprefix(EVENT)))
        if last is None:
            raise Invalid(f"Invalid value for 'after': no event '{after}'.", param="after")
        query = query.where(JobEvent.seq < last.seq)
    return list(await session.scalars(query.limit(limit)))
