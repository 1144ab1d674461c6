"""Removes what is over: expired files and uploads, transcripts that were read, old records of requests, bytes of nobody."""

import asyncio
import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError

from server import idempotency
from server.db.session import Database
from server.errors import ServerError
from server.files import originals, service, uploads
from server.storage.blobs import BlobStore
from server.storage.references import try_delete_unreferenced

log = structlog.get_logger(__name__)

ORPHAN_AGE = datetime.timedelta(hours=1)  # no request stays between storing bytes and its row


class Cleaner:
    """Sweeps every now and then. Any number of servers may do so at the same time."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        *,
        every_seconds: float = 60.0,
        orphans_every: int = 60,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._every_seconds = every_seconds
        self._orphans_every = orphans_every

    async def run(self) -> None:
        """Sweep until cancelled; every ``orphans_every``-th time the whole blob store."""
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
        """Remove rows whose time is over, then the bytes that were theirs alone."""
        async with self._database.transaction() as session:
            hashes = await service.delete_expired(session) | await uploads.expire_pending(session)
            hashes |= await originals.delete_read(session)
            await idempotency.delete_expired(session)
        await try_delete_unreferenced(self._database, self._blobs, *hashes)

    async def sweep_orphans(self, age: datetime.timedelta = ORPHAN_AGE) -> None:
        """Remove bytes that no row refers to: a server was killed between its steps."""
        await self._blobs.clear_incoming(age)
        async for sha256 in self._blobs.list_old(age):
            await try_delete_unreferenced(self._database, self._blobs, sha256)
