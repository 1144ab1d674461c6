"""Tells cheaply whether anybody wrote to the database, so that what was read may be kept."""

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
    has none that is cheaper than asking again. Use on one thread; ``close`` when done.
    """

    def __init__(self, database: Database) -> None:
        path = database.url.database
        self._path = path if database.is_sqlite and path != ":memory:" else None
        self._connection: sqlite3.Connection | None = None
        self._life = 0  # stamps of different connections do not compare

    def stamp(self) -> tuple[int, int] | None:
        """Equal to an earlier one when nothing was committed since; None where nobody knows.

        Take it before reading: what is read may then be newer than its stamp, never older.
        """
        if not self._path:
            return None
        try:
            if self._connection is None:
                # never creates the file, and does not wait: asking the database is always right
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
    """Answers from the database, kept for as long as nobody has written to it.

    Where that cannot be told (PostgreSQL) each asker reads. Those who ask the same at the same time
    read once: otherwise every write would be followed by as many queries as there are requests.
    """

    def __init__(self, database: Database) -> None:
        self._changes = DataVersion(database)
        self._known: dict[K, V] = {}
        self._known_at: tuple[int, int] | None = None
        self._reading: dict[K, asyncio.Lock] = {}

    async def get(self, key: K, read: Callable[[], Awaitable[V]]) -> V:
        """What ``read`` gives for ``key``; what it raises is not remembered."""
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
                    # put with what is older than the reading: a write in between is noticed
                    known[key] = await read()
                return known[key]
        finally:
            if not lock.locked():
                self._reading.pop(key, None)

    def close(self) -> None:
        """Let go of what is held open."""
        self._changes.close()

    def _now(self) -> dict[K, V] | None:
        """What is still true; None where nobody knows."""
        stamp = self._changes.stamp()
        if stamp is None:
            return None
        if stamp != self._known_at or len(self._known) >= MAX_ENTRIES:
            self._known, self._known_at = {}, stamp
        return self._known
