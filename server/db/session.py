"""The database: SQLite or PostgreSQL, with the same code.

A transaction belongs to the request or to the job; services take its session and never commit.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import TimeoutError as PoolTimeout
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

PATIENCE_SECONDS = 10.0  # that a writer waits
SCRUB_TIMEOUT_MS = 500  # writers wait meanwhile
# any 64-bit number that nothing else in the same PostgreSQL database uses
MIGRATION_LOCK = 0x7E4A_4715
WORTH_SETTING_MS = 100  # it takes three statements instead of one
WAIT_MS = "sqlite_wait_ms"  # a connection's option: for how long its BEGIN may wait


class Database:
    """A connection pool: ``transaction`` writes, ``reading`` only reads.

    On SQLite a writer takes the write lock when it begins (``BEGIN IMMEDIATE``), so that it does not
    fail halfway because another was faster. Readers see the last committed state and do not wait.

    Args:
        url: SQLAlchemy's, with an asynchronous driver.
        patience_seconds: how long a writer on SQLite waits for its turn in this process, a connection
            and the lock, all together.

    Example:
        async with database.transaction() as session:
            session.add(Tenant(slug="acme", name="Acme"))
    """

    def __init__(self, url: str, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {
            "json_serializer": lambda value: msgspec.json.encode(value).decode(),
            "json_deserializer": msgspec.json.decode,
        }
        self._patience = patience_seconds
        if not self.is_sqlite:
            options |= {"pool_pre_ping": True, "pool_size": 10, "max_overflow": 20}
        self.engine: AsyncEngine = create_async_engine(self.url, **options)
        _refuse_unstorable(self.engine)
        if self.is_sqlite:
            _prepare_sqlite(self.engine, patience_seconds=patience_seconds)
        self._writing = async_sessionmaker(self.engine, expire_on_commit=False)
        self._reading = async_sessionmaker(
            self.engine.execution_options(sqlite_begin="BEGIN"), expire_on_commit=False
        )
        # waiting here is fair and instant; SQLite's own wait is polling
        self._writer = asyncio.Lock()

    @property
    def folder(self) -> Path | None:
        """Where its file is; None where it is on another server, or in memory."""
        path = self.url.database
        if not self.is_sqlite or not path or path == ":memory:":
            return None
        return Path(path).absolute().parent

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncSession]:
        """A session that is committed at the end, and rolled back by an exception.

        Raises:
            SQLAlchemyError: the writer's turn did not come in time, or the database failed.
        """
        if not self.is_sqlite:
            async with self._writing.begin() as session:
                yield session
            return
        deadline = asyncio.get_running_loop().time() + self._patience
        async with self._turn(deadline), self._writing.begin() as session:
            left = deadline - asyncio.get_running_loop().time()
            options = {WAIT_MS: max(1, round(left * 1000))}
            _ = await session.connection(execution_options=options)  # begins
            yield session

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncSession]:
        """A session that sees one committed state; nothing that it changes is kept."""
        async with self._reading() as session:
            yield session

    async def migrate(self) -> None:
        """Bring the schema up to date. Processes that start together do it one after the other.

        Raises:
            SchemaError: the database was made by a newer version of this program.
        """
        if self.is_sqlite:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
            await self._use_wal()
        async with self.engine.connect() as connection:
            if self.is_sqlite:
                # a migration may replace a table: dropping the old one must not delete rows that refer to it
                await _foreign_keys(connection, on=False)
            async with connection.begin():
                if not self.is_sqlite:
                    lock = text("SELECT pg_advisory_xact_lock(:key)")
                    await connection.execute(lock, {"key": MIGRATION_LOCK})
                await connection.run_sync(upgrade)
            if self.is_sqlite:
                await _foreign_keys(connection, on=True)

    async def scrub(self) -> None:
        """Empty SQLite's log, which may hold deleted text; does nothing while another connection reads."""
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
                await raw.execute(f"PRAGMA busy_timeout={round(self._patience * 1000)}")

    async def dispose(self) -> None:
        """Close every connection."""
        await self.engine.dispose()

    @asynccontextmanager
    async def _turn(self, deadline: float) -> AsyncGenerator[None]:
        """Wait to be the only writer of this process."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._writer.acquire()
        except TimeoutError as exc:
            raise PoolTimeout(f"no turn to write came in {self._patience:g} s") from exc
        try:
            yield
        finally:
            self._writer.release()

    async def _use_wal(self) -> None:
        """Switch the file to a write-ahead log, which SQLite refuses while others use it: try again."""
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
    """Call it outside a transaction: within one, SQLite ignores it."""
    raw = (await connection.get_raw_connection()).driver_connection
    assert raw is not None  # noqa: S101 - freshly checked out
    await raw.execute(f"PRAGMA foreign_keys={'ON' if on else 'OFF'}")


def _prepare_sqlite(engine: AsyncEngine, *, patience_seconds: float) -> None:
    default = round(patience_seconds * 1000)

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's
        connection.isolation_level = None  # begin() below decides, not the driver
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={default}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA secure_delete=ON")  # what is deleted leaves no text in free pages
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        how = options.get("sqlite_begin", "BEGIN IMMEDIATE")
        wait: int = options.get(WAIT_MS, default)
        if wait > default - WORTH_SETTING_MS:
            connection.exec_driver_sql(how)
            return
        connection.exec_driver_sql(f"PRAGMA busy_timeout={wait}")
        try:
            connection.exec_driver_sql(how)
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={default}")

    @event.listens_for(engine.sync_engine, "do_execute_no_params")
    @event.listens_for(engine.sync_engine, "do_execute")
    def execute(cursor: Any, statement: str, *_more: object) -> bool:  # noqa: ANN401 - the driver's
        # A full disk, among other errors, ends the whole transaction at once. There is no savepoint to
        # roll back to then, and that error would hide the first one.
        undoes = statement.startswith("ROLLBACK TO SAVEPOINT")
        return undoes and not cursor._connection.in_transaction  # noqa: SLF001 - no other way
