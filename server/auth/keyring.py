"""Authenticates the keys of requests, and notes when they were used."""

import asyncio
import hashlib
from datetime import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError

from server.auth import keys
from server.auth.keys import Principal
from server.db.models import now
from server.db.session import Database
from server.db.versioned_cache import VersionedCache

log = structlog.get_logger(__name__)


class Keyring:
    """Authenticates, and notes when keys were used.

    A key that was revoked, or has expired, or whose tenant is gone, is refused from that moment on
    every copy of the server: what is remembered is only used while nobody has committed anything
    to the database, and where that cannot be told (PostgreSQL) every request asks, one query by an
    index. A database that does not answer lets nobody in. Answers that are under way go on.

    Times of use are written together every ``flush_seconds``, not on the request's path.
    """

    def __init__(self, database: Database, *, flush_seconds: float = 60.0) -> None:
        self._database = database
        self._flush_seconds = flush_seconds
        self._known: VersionedCache[bytes, Principal] = VersionedCache(database)
        self._used: dict[str, datetime] = {}

    async def authenticate(self, raw: str) -> Principal:
        """Whose key this is.

        Raises:
            Unauthenticated: nobody's, or not any more.
        """

        async def read() -> Principal:
            async with self._database.reading() as session:
                return await keys.authenticate(session, raw)

        principal = await self._known.get(hashlib.sha256(raw.encode()).digest(), read)
        if _expired(principal):
            principal = await read()  # says so, in the words for all keys that are no good
        self._used[principal.key_id] = now()
        return principal

    def close(self) -> None:
        """Let go of what is held open."""
        self._known.close()

    async def flush(self) -> None:
        """Write the times of use. What could not be written stays and is tried again."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with self._database.transaction() as session:
                await keys.mark_used(session, used)
        except BaseException:
            self._used = used | self._used
            raise

    async def run(self) -> None:
        """Flush every now and then until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(self._flush_seconds)
                await self._try_flush()
        finally:
            await self._try_flush()

    async def _try_flush(self) -> None:
        try:
            await self.flush()
        except (SQLAlchemyError, OSError) as exc:
            log.warning("times of key use were not written; trying again", error=str(exc))


def _expired(principal: Principal) -> bool:
    return principal.expires_at is not None and principal.expires_at <= now()
