"""Write-behind: rows about an answer, written without making the answer wait.

A database that is locked or full must not delay an answer. Its rows wait here instead, in memory and
in order, and are written as soon as that works. A process that is killed loses the rows that it has
not written; one that is stopped writes them first.
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
# How long an answer waits for its rows. A write usually takes some milliseconds, so that a client that
# has its answer also finds the rows, on another copy of the server too.
GRACE_SECONDS = 0.25
RETRY_SECONDS = 1.0
DRAIN_SECONDS = 5.0
MAX_WAITING = 1_000  # each may hold a conversation
PATIENCE_SECONDS = 10.0  # that a reader waits for a row that is not written yet
_PASSING = (OperationalError, InterfaceError, PoolTimeout, OSError)  # worth another try


class WriteBehind:
    """One process's queue of rows to write, at most ``max_waiting``. Use on one event loop."""

    def __init__(self, database: Database, *, max_waiting: int = MAX_WAITING) -> None:
        self._database = database
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[str, Work, asyncio.Future[None]]] = deque()
        self._pending: dict[str, asyncio.Future[None]] = {}
        self._some = asyncio.Event()
        self._moved_at = 0.0  # when the last one was written, or the first one came

    async def put(self, name: str, work: Work) -> None:
        """Queue ``work``, for a transaction of its own; ``settled`` waits for it by ``name``.

        Returns when it is done, or when nothing in the queue was for ``GRACE_SECONDS``. Its exceptions
        are logged.

        Raises:
            Unavailable: the queue is full.
        """
        done = self.add(name, work)
        left = self._moved_at + GRACE_SECONDS - asyncio.get_running_loop().time()
        await asyncio.wait([done], timeout=max(left, 0))

    def add(self, name: str, work: Work) -> asyncio.Future[None]:
        """As ``put``, without waiting; the future is done when the rows are written.

        Raises:
            Unavailable: the queue is full.
        """
        if len(self._waiting) >= self._max_waiting:
            raise _behind()
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._moved_at = loop.time()
        done = loop.create_future()
        self._waiting.append((name, work, done))
        self._pending[name] = done
        self._some.set()
        return done

    async def settled(self, *names: str) -> None:
        """Wait until these names are written; call it before reading their rows.

        Raises:
            Unavailable: they were not within ``PATIENCE_SECONDS``.
        """
        waiting = [self._pending[name] for name in names if name in self._pending]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=PATIENCE_SECONDS)
            if late:
                raise _behind()

    async def run(self) -> None:
        """Write until cancelled, then write the rest, for at most ``DRAIN_SECONDS``."""
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
            except IntegrityError as exc:
                # its tenant is gone, or a commit that seemed to fail had worked
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
