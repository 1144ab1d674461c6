"""Write-behind: rows about an answer, written once nobody waits for them any more.

An answer must not wait for a database that is locked or full. What belongs to it waits here instead,
in memory and in order, and is written as soon as that works: a process that is killed loses what it
could not write until then, one that is stopped writes it first.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.session import Database
from server.errors import Unavailable

log = structlog.get_logger(__name__)

Work = Callable[[AsyncSession], Awaitable[None]]
# Where nothing is in the way a row is there before its client can ask for it, of another copy of the
# server too: a write takes some milliseconds. Longer than this no answer waits for it.
GRACE_SECONDS = 0.25
RETRY_SECONDS = 1.0
DRAIN_SECONDS = 5.0
MAX_WAITING = 1_000  # each may hold a conversation
PATIENCE_SECONDS = 10.0  # of those who need a row that is not written yet
_PASSING = (OperationalError, InterfaceError, PoolTimeout, OSError)  # tried again


class WriteBehind:
    """The rows of one process that wait. ``run`` writes them; use on one event loop."""

    def __init__(self, database: Database, *, most: int = MAX_WAITING) -> None:
        self._database = database
        self._most = most
        self._waiting: deque[tuple[str, Work, asyncio.Future[None]]] = deque()
        self._pending: dict[str, asyncio.Future[None]] = {}
        self._some = asyncio.Event()
        self._moved_at = 0.0  # when the last one was written, or the first one came

    async def put(self, name: str, work: Work) -> None:
        """Have ``work`` done in a transaction of its own; ``name`` is what ``settled`` asks for.

        Returns when it is done, and anyway once nothing was for ``GRACE_SECONDS``. What it raises is
        logged.

        Raises:
            Unavailable: too much waits already.
        """
        if len(self._waiting) >= self._most:
            raise _behind()
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._moved_at = loop.time()
        done = loop.create_future()
        self._waiting.append((name, work, done))
        self._pending[name] = done
        self._some.set()
        left = self._moved_at + GRACE_SECONDS - loop.time()
        await asyncio.wait([done], timeout=max(left, 0))

    async def settled(self, *names: str) -> None:
        """Wait until none of these waits any more, before looking for their rows.

        Raises:
            Unavailable: they could not be written for now.
        """
        waiting = [self._pending[name] for name in names if name in self._pending]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=PATIENCE_SECONDS)
            if late:
                raise _behind()

    async def run(self) -> None:
        """Write until cancelled; then what is left, for at most ``DRAIN_SECONDS``."""
        try:
            while True:
                await self._some.wait()
                await self._write_all()
        finally:
            if self._waiting:
                await self._drain()

    async def _write_all(self) -> None:
        while self._waiting:
            name, work, done = self._waiting[0]
            try:
                async with self._database.transaction() as session:
                    await work(session)
            except _PASSING as exc:
                log.warning("a row could not be written; trying again", row=name, error=str(exc))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except (
                IntegrityError
            ) as exc:  # its tenant is gone, or it is there: stopped in mid-commit
                log.warning("a row was not written", row=name, error=str(exc))
            except Exception:
                log.exception("a row was not written", row=name)
            self._waiting.popleft()
            self._pending.pop(name, None)
            self._moved_at = asyncio.get_running_loop().time()
            done.set_result(None)
        self._some.clear()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._write_all()
        except TimeoutError:
            log.critical("rows were not written", rows=[name for name, _, _ in self._waiting])


def _behind() -> Unavailable:
    return Unavailable(
        "The database does not answer. Try again in a moment.",
        retry_after_seconds=2.0,
        code="database_unavailable",
    )
