"""Removes what has expired, and bytes that no row refers to.

Files, uploads, transcripts that were read, records of requests, sessions, one-time links,
conversations with visitors and entries of the audit log expire.
"""

import asyncio
import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError

from server import idempotency
from server.accounts import links, sessions, tries
from server.audit import service as audit
from server.conversations import retention
from server.db.session import Database
from server.errors import ServerError
from server.files import originals, service, uploads
from server.storage.blobs import BlobStore
from server.storage.references import try_delete_unreferenced
from server.transcripts import service as transcripts

log = structlog.get_logger(__name__)

ORPHAN_AGE = datetime.timedelta(
    hours=1
)  # longer than any request takes from storing bytes to committing their row


class Cleaner:
    """Sweeps every ``every_seconds``. Any number of servers may do so at the same time."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        *,
        every_seconds: float = 60.0,
        orphans_every: int = 60,
        audit_keep_days: int = 365,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._every_seconds = every_seconds
        self._orphans_every = orphans_every
        self._audit_keep_days = audit_keep_days

    async def run(self) -> None:
        """Sweep until cancelled; every ``orphans_every``-th time also the whole blob store."""
        turn = 0
        while True:
            await asyncio.sleep(self._every_seconds)
            turn += 1
            try:
                await self.clean_up()
                if turn % self._orphans_every == 0:
                    await self.sweep_orphans()
            except (ServerError, SQLAlchemyError, OSError) as exc:  # the next turn does it
                log.warning("sweeping failed", error=str(exc))

    async def clean_up(self) -> None:
        """Remove expired rows, then the bytes that no other row refers to."""
        async with self._database.transaction() as session:
            hashes = await service.delete_expired(session) | await uploads.expire_pending(session)
            await transcripts.expire_drafts(session)
            hashes |= await originals.delete_read(session)
            await idempotency.delete_expired(session)
            await sessions.delete_expired(session)
            await links.delete_expired(session)
            await tries.delete_expired(session)
            await retention.delete_expired(session)
            await audit.delete_expired(session, keep_days=self._audit_keep_days)
        await try_delete_unreferenced(self._database, self._blobs, *hashes)

    async def sweep_orphans(self, age: datetime.timedelta = ORPHAN_AGE) -> None:
        """Remove bytes that no row refers to, which a server left that was killed between two steps.

        Only those stored longer ago than ``age`` are removed.
        """
        await self._blobs.clear_incoming(age)
        async for sha256 in self._blobs.list_old(age):
            await try_delete_unreferenced(self._database, self._blobs, sha256)
