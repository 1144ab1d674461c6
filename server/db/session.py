"""One door to the database: SQLite or PostgreSQL, the same code.

A transaction belongs to the request or to the job; services take its session and never commit.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from server.db.migrate import upgrade
from server.errors import Invalid

log = structlog.get_logger(__name__)

BUSY_TIMEOUT_MS = 10_000
SCRUB_TIMEOUT_MS = 500  # writers wait meanwhile
# any 64-bit number will do, as long as nobody else in the same PostgreSQL database uses it
MIGRATION_LOCK = 0x7E4A_4715


class Database:
    """A connection pool.

    ``transaction`` writes, ``reading`` only reads. On SQLite a writer takes the write lock at its
    first statement (``BEGIN IMMEDIATE``), so that it never fails in the middle because another was
    faster; readers see the last committed state and wait for nobody.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {
            "json_serializer": lambda value: msgspec.json.encode(value).decode(),
            "json_deserializer": msgspec.json.decode,
        }
        if not self.is_sqlite:
            options |= {"pool_pre_ping": True, "pool_size": 10, "max_overflow": 20}
        self.engine: AsyncEngine = create_async_engine(self.url, **options)
        _refuse_unstorable(self.engine)
        if self.is_sqlite:
            _prepare_sqlite(self.engine)
        self._writing = async_sessionmaker(self.engine, expire_on_commit=False)
        self._reading = async_sessionmaker(
            self.engine.execution_options(sqlite_begin="BEGIN"), expire_on_commit=False
        )
        # waiting here is fair and instant; SQLite's own wait is polling
        self._writer = asyncio.Lock() if self.is_sqlite else contextlib.nullcontext()

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncSession]:
        """A session whose work is committed at the end, or undone when an exception passes."""
        async with self._writer, self._writing.begin() as session:
            yield session

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncSession]:
        """A session that sees one committed state and is never committed itself."""
        async with self._reading() as session:
            yield session

    async def migrate(self) -> None:
        """Bring the schema up to date; processes that start together take turns.

        Raises:
            SchemaError: the database was made by a newer version of this program.
        """
        if self.is_sqlite:
            if self.url.database and self.url.database != ":memory:":
                Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
            await self._use_wal()
        async with self.engine.connect() as connection:
            if self.is_sqlite:
                # where a table is made anew, dropping the old one must not take others' rows along
                await _foreign_keys(connection, on=False)
            async with connection.begin():
                if not self.is_sqlite:
                    lock = text("SELECT pg_advisory_xact_lock(:key)")
                    await connection.execute(lock, {"key": MIGRATION_LOCK})
                await connection.run_sync(upgrade)
            if self.is_sqlite:
                await _foreign_keys(connection, on=True)

    async def scrub(self) -> None:
        """Let nothing of what was deleted stay in SQLite's log, where nobody is reading just now."""
        if not self.is_sqlite:
            return
        async with self.engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None  # noqa: S101 - freshly checked out
            try:
                await raw.execute(f"PRAGMA busy_timeout={SCRUB_TIMEOUT_MS}")
                await raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.OperationalError as exc:  # the next checkpoint does it
                log.info("the log was not emptied", reason=str(exc))
            finally:
                await raw.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")

    async def dispose(self) -> None:
        """Close every connection."""
        await self.engine.dispose()

    async def _use_wal(self) -> None:
        """Switch the file to a write-ahead log, once; SQLite does not wait for others here."""
        async with self.engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None  # noqa: S101 - freshly checked out
            for attempt in range(50):
                try:
                    await raw.execute("PRAGMA journal_mode=WAL")
                except sqlite3.OperationalError:
                    if attempt == 49:  # noqa: PLR2004 - the last of the range
                        raise
                    await asyncio.sleep(0.1)
                else:
                    return


def _refuse_unstorable(engine: AsyncEngine) -> None:
    """A number too large for its column or a text with a NUL is the caller's fault, not ours."""

    @event.listens_for(engine.sync_engine, "handle_error")
    def handle(context: ExceptionContext) -> Exception | None:
        error = context.original_exception
        state = str(getattr(error, "sqlstate", ""))
        # SQLite's driver says OverflowError, PostgreSQL a state of its class "data exception"
        if not (isinstance(error, OverflowError) or state.startswith("22")):
            return None
        return Invalid(
            "A value cannot be stored: a number is too large, or a text holds a NUL character."
        )


async def _foreign_keys(connection: AsyncConnection, *, on: bool) -> None:
    """Outside any transaction: within one, SQLite does not listen."""
    raw = (await connection.get_raw_connection()).driver_connection
    assert raw is not None  # noqa: S101 - freshly checked out
    await raw.execute(f"PRAGMA foreign_keys={'ON' if on else 'OFF'}")


def _prepare_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's
        connection.isolation_level = None  # begin() below decides, not the driver
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA secure_delete=ON")  # what is deleted leaves no text in free pages
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        how = connection.get_execution_options().get("sqlite_begin", "BEGIN IMMEDIATE")
        connection.exec_driver_sql(how)
