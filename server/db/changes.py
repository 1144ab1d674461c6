"""Tells cheaply whether anybody wrote to the database, so that what was read may be kept."""

import sqlite3
from pathlib import Path

from server.db.session import Database


class Changes:
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
