"""Authenticates the keys of requests and records when they were used."""

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
    """Authenticates keys, and records when they were used.

    A key that was revoked, has expired or whose tenant was deleted is refused from that moment by
    every copy of the server. A principal is kept only until the next commit to the database; where
    commits cannot be noticed (PostgreSQL) each request makes one query, by an index. Without a
    database no key is accepted. Answers that are under way continue.

    Times of use are written together every ``flush_seconds``, not while a request waits.
    """

    def __init__(self, database: Database, *, flush_seconds: float = 60.0) -> None:
        self._database = database
        self._flush_seconds = flush_seconds
        self._known: VersionedCache[bytes, Principal] = VersionedCache(database)
        self._used: dict[str, datetime] = {}

    async def authenticate(self, raw: str) -> Principal:
        """The caller with this raw key.

        Raises:
            Unauthenticated: the key is unknown, revoked or expired.
        """

        async def read() -> Principal:
            async with self._database.reading() as session:
                return await keys.authenticate(session, raw)

        principal = await self._known.get(hashlib.sha256(raw.encode()).digest(), read)
        if _expired(principal):
            principal = await read()  # raises, in the same words as for an unknown key
        self._used[principal.key_id] = now()
        return principal

    def close(self) -> None:
        """Close the cache's connection."""
        self._known.close()

    async def flush(self) -> None:
        """Write the times of use. Those that could not be written are kept for the next time."""
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
        """Flush every ``flush_seconds`` until cancelled, and once more at the end."""
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
