"""Counts what tenants use, by UTC day, key and model, without delaying an answer.

While a version is tried as a canary, the requests that it shares with what is live are counted a second
time, by who answered them.

A request is counted when it ends. Counts are added up in memory, and written together every second
and when the process stops. A process that is killed loses the counts of requests under way and of
the last second.
"""

import asyncio
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from server.db.models import CanaryCount, Record, UsageDay, now
from server.db.session import Database
from server.limits.limiter import RateLimiter
from server.usage.schemas import Usage

log = structlog.get_logger(__name__)

COUNTS = (
    "requests",
    "errors",
    "refused",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "gpu_seconds",
)


class _Day(NamedTuple):
    """A row of ``UsageDay``."""

    tenant_id: str
    day: date
    key_id: str
    model: str


class _Side(NamedTuple):
    """A row of ``CanaryCount``, which knows of no refusals: these come before a side is chosen."""

    tenant_id: str
    revision: int
    is_canary: bool


_Place = _Day | _Side
_TABLES: dict[type, type[Record]] = {_Day: UsageDay, _Side: CanaryCount}


@dataclass(slots=True)
class Counts:
    """What was used; ``errors`` counts requests that failed, ``refused`` those that a limit turned away.

    ``gpu_seconds`` is a request's share of the time that the engine was busy (``engine_time.py``).
    """

    requests: int = 0
    errors: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    gpu_seconds: float = 0.0

    def add(self, other: "Counts") -> None:
        """Add all of another's counts."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class UsageLedger:
    """The counts of one process. ``run`` writes them every ``flush_seconds``."""

    def __init__(
        self,
        database: Database,
        *,
        limiter: RateLimiter | None = None,
        flush_seconds: float = 1.0,
    ) -> None:
        self._database = database
        self._limiter = limiter or RateLimiter(database)
        self._flush_seconds = flush_seconds
        self._pending: dict[_Place, Counts] = {}
        self._flushing = asyncio.Lock()
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert

    def add(
        self,
        usage: Usage,
        *,
        tenant_id: str,
        key_id: str,
        model: str,
        failed: bool = False,
        gpu_seconds: float = 0.0,
        arm: tuple[int, bool] | None = None,
    ) -> None:
        """Count one request.

        Args:
            usage: the tokens of it.
            tenant_id: whose it was.
            key_id: the key that it came with.
            model: the name in reports.
            failed: it did not end well.
            gpu_seconds: its share of the time that the engine was busy.
            arm: of a canary: the step that set its share, and whether it answered this request itself.
        """
        counts = Counts(
            requests=1,
            errors=int(failed),
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            gpu_seconds=gpu_seconds,
        )
        self._keep(_Day(tenant_id, now().date(), key_id, model), counts)
        if arm is not None:
            self._keep(_Side(tenant_id, *arm), counts)

    def refuse(self, *, tenant_id: str, key_id: str, model: str) -> None:
        """Count one request that a limit turned away. It used nothing, and is no request."""
        self._keep(_Day(tenant_id, now().date(), key_id, model), Counts(refused=1))

    async def flush(self) -> None:
        """Write what has been counted, and share it with the limits of other copies.

        All that was counted before the call is written when it returns: a second call waits for the
        first. What could not be written stays, and is tried again the next time.
        """
        async with self._flushing:
            pending, self._pending = self._pending, {}
            taken = self._limiter.take()
            try:
                try:
                    await self._write(pending)
                except IntegrityError:  # a tenant was deleted meanwhile: save the others' counts
                    await self._write_one_by_one(pending)
                pending.clear()
                await self._limiter.sync(taken)
            except BaseException:
                for place, counts in pending.items():
                    self._keep(place, counts)
                self._limiter.put_back(taken)
                raise

    async def try_flush(self) -> None:
        """Write where that works; otherwise a report shows what is written already."""
        try:
            await self.flush()
        except (SQLAlchemyError, OSError) as exc:
            log.warning("usage was not written; trying again", error=str(exc))

    async def run(self) -> None:
        """Write every ``flush_seconds`` until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(self._flush_seconds)
                await self.try_flush()
        finally:
            await self.try_flush()

    def _keep(self, place: _Place, counts: Counts) -> None:
        self._pending.setdefault(place, Counts()).add(counts)

    async def _write_one_by_one(self, pending: dict[_Place, Counts]) -> None:
        for place in list(pending):
            try:
                await self._write({place: pending[place]})
            except IntegrityError:
                log.info("usage of a tenant that is gone was dropped", tenant_id=place.tenant_id)
            del pending[place]

    async def _write(self, pending: dict[_Place, Counts]) -> None:
        if not pending:
            return
        async with self._database.transaction() as session:
            # in one order, or two copies of the server could wait for each other
            for place in sorted(pending, key=lambda place: (type(place).__name__, place)):
                table = _TABLES[type(place)]
                counts = pending[place]
                values = {n: getattr(counts, n) for n in COUNTS if n in table.__table__.columns}
                insert = self._insert(table).values(**place._asdict(), **values)
                added = {name: getattr(table, name) + value for name, value in values.items()}
                await session.execute(
                    insert.on_conflict_do_update(
                        index_elements=list(place._fields), set_={**added, "updated_at": now()}
                    )
                )
