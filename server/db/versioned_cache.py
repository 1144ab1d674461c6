"""A cache of queries' results that notices cheaply when the database was written to."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

from server.db.session import Database

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
MAX_ENTRIES = 10_000


class DataVersion:
    """A stamp that differs after every commit, whichever process made it.

    SQLite keeps such a number for each connection (``PRAGMA data_version``), read from shared
    memory in microseconds, where a query through threads and pools takes milliseconds. PostgreSQL
    has none that is cheaper than the query itself. Use on one thread; ``close`` when done.
    """

    def __init__(self, database: Database) -> None:
        path = database.url.database
        self._path = path if database.is_sqlite and path != ":memory:" else None
        self._connection: sqlite3.Connection | None = None
        self._life = 0  # stamps of different connections do not compare

    def stamp(self) -> tuple[int, int] | None:
        """Equal to an earlier one when nothing was committed since; None where that is unknown.

        Take it before a query: the result may then be newer than its stamp, never older.
        """
        if not self._path:
            return None
        try:
            if self._connection is None:
                # never creates the file and never waits: without a stamp the database is asked
                self._connection = sqlite3.connect(
                    f"{Path(self._path).absolute().as_uri()}?mode=rw",
                    uri=True,
                    timeout=0,
                    isolation_level=None,
                )
                self._life += 1
            version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            self.close()
            return None
        return self._life, version

    def close(self) -> None:
        """Close the connection, if there is one; the next ``stamp`` opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class VersionedCache(Generic[K, V]):
    """Results of queries by key, kept until the next write to the database.

    Where writes cannot be noticed (PostgreSQL) every ``get`` makes the query. Calls for the same key
    at the same time make it once: otherwise each write would be followed by a query for every request
    under way.
    """

    def __init__(self, database: Database) -> None:
        self._changes = DataVersion(database)
        self._known: dict[K, V] = {}
        self._known_at: tuple[int, int] | None = None
        self._reading: dict[K, asyncio.Lock] = {}

    async def get(self, key: K, read: Callable[[], Awaitable[V]]) -> V:
        """The result for ``key``, from ``read`` where none is kept; an exception is not kept."""
        known = self._now()
        if known is None:
            return await read()
        if key in known:
            return known[key]
        lock = self._reading.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                known = self._now()
                if known is None:
                    return await read()
                if key not in known:
                    # kept under the stamp from before the query: a write in between is noticed
                    known[key] = await read()
                return known[key]
        finally:
            if not lock.locked():
                self._reading.pop(key, None)

    def close(self) -> None:
        """Close the connection that notices writes."""
        self._changes.close()

    def _now(self) -> dict[K, V] | None:
        """The results that are still true; None where that is unknown."""
        stamp = self._changes.stamp()
        if stamp is None:
            return None
        if stamp != self._known_at or len(self._known) >= MAX_ENTRIES:
            self._known, self._known_at = {}, stamp
        return self._known
