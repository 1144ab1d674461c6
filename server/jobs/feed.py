"""Follows runs for pages that are open: what was added to a run's history, as soon as it is seen.

The history is in the database, and any worker writes it. So a page that is open costs a look now and
then: on SQLite a number in shared memory until something was committed, and then one query for all pages of
a run; on PostgreSQL a query of an index. ``MAX_FOLLOWED`` bounds them.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator

import msgspec
from sqlalchemy import func

from server.db.models import Job, JobEvent, JobState
from server.db.scope import of_tenant
from server.db.session import Database
from server.db.versioned_cache import VersionedCache
from server.errors import Unavailable
from server.jobs.schemas import FINAL_STATES, JobEventView
from server.jobs.service import list_events

LOOK_SECONDS = 1.0
MAX_FOLLOWED = 200
"""Pages of one process that follow a run at the same time."""
BATCH = 500


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What came: ``events`` in their order, none of them twice. ``ended``: no more will come."""

    events: list[JobEventView]
    ended: bool


class _Seen(msgspec.Struct, frozen=True):
    """How far a run's history goes, and its state."""

    seq: int
    state: JobState | None


class JobFeed:
    """What open pages of one process follow. Use on one event loop; ``close`` ends them all.

    Example:
        async for batch in feed.follow(tenant.id, job.id, after=12):
            if batch is not None:
                print(batch.events)
    """

    def __init__(self, database: Database, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._database = database
        self._look_seconds = look_seconds
        self._seen: VersionedCache[tuple[str, str], _Seen] = VersionedCache(database)
        self._following = 0
        self._closing = asyncio.Event()

    async def follow(
        self, tenant_id: str, job_id: str, *, after: int
    ) -> AsyncGenerator[Batch | None]:
        """Each batch of events after number ``after``; None after a look that found nothing.

        Ends with the run's end, with the tenant's, and when the feed closes.

        Raises:
            Unavailable: ``MAX_FOLLOWED`` pages are followed already.
        """
        with self._counted():
            while not self._closing.is_set():
                seen = await self._seen.get(
                    (tenant_id, job_id), lambda: self._look(tenant_id, job_id)
                )
                events: list[JobEventView] = []
                if seen.seq > after:
                    async with self._database.reading() as session:
                        events = await list_events(
                            session, tenant_id, job_id, after=after, limit=BATCH
                        )
                    after = events[-1].seq
                ended = seen.state in (None, *FINAL_STATES) and after >= seen.seq
                yield Batch(events=events, ended=ended) if events or ended else None
                if ended:
                    return
                if len(events) < BATCH:
                    await self._pause()

    def check_room(self) -> None:
        """Refuse one more page, before its answer has begun.

        Raises:
            Unavailable: ``MAX_FOLLOWED`` pages are followed already.
        """
        if self._following >= MAX_FOLLOWED:
            raise Unavailable(
                f"{MAX_FOLLOWED} pages follow runs here already: close some, or reload later."
            )

    def close(self) -> None:
        """End all that is followed, at once: the process is to end."""
        self._closing.set()
        self._seen.close()

    async def _look(self, tenant_id: str, job_id: str) -> _Seen:
        mine = of_tenant(tenant_id)
        async with self._database.reading() as session:
            # the state first: what is added between the two is seen by the next look
            state = await session.scalar(mine.select(Job.state).where(Job.id == job_id))
            seq = await session.scalar(
                mine.select(func.max(JobEvent.seq)).where(JobEvent.job_id == job_id)
            )
        return _Seen(seq or 0, state)

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), self._look_seconds)

    @contextlib.contextmanager
    def _counted(self) -> Generator[None]:
        self.check_room()
        self._following += 1
        try:
            yield
        finally:
            self._following -= 1
