"""Whether what was read may be kept: only until somebody commits, whoever that is."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.db.session import Database
from server.db.versioned_cache import DataVersion, VersionedCache
from server.tenants import service as tenants
from server.tenants.schemas import TenantPatch


async def test_a_stamp_changes_with_every_commit_and_only_then(
    database: Database, make_tenant: Callable[..., Any]
) -> None:
    changes = DataVersion(database)
    if not database.is_sqlite:
        assert changes.stamp() is None
        return
    before = changes.stamp()
    assert before is not None
    assert changes.stamp() == before
    await make_tenant()
    after = changes.stamp()
    assert after != before
    async with database.transaction() as session:
        await tenants.update(session, "acme", TenantPatch(name="Acme"))
        await session.flush()
        assert changes.stamp() == after
    assert changes.stamp() != after
    changes.close()


async def test_a_stamp_changes_when_another_process_commits(sqlite_url: str) -> None:
    changes = DataVersion(Database(sqlite_url_of(sqlite_url)))
    before = changes.stamp()
    other = sqlite3.connect(sqlite_url)
    with other:
        other.execute("CREATE TABLE something (x)")
    other.close()
    assert changes.stamp() != before
    changes.close()


async def test_stamps_of_different_connections_differ(sqlite_url: str) -> None:
    changes = DataVersion(Database(sqlite_url_of(sqlite_url)))
    before = changes.stamp()
    changes.close()
    assert changes.stamp() != before
    changes.close()


class Reading:
    """Counts how often it reads, and reads as slowly as it is told."""

    def __init__(self) -> None:
        self.times = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self) -> int:
        self.times += 1
        await self.go_on.wait()
        return self.times


async def test_those_who_ask_together_read_once_until_somebody_writes(
    database: Database, make_tenant: Callable[..., Any]
) -> None:
    remembered: VersionedCache[str, int] = VersionedCache(database)
    reading = Reading()
    await asyncio.gather(*(remembered.get("a", reading) for _ in range(10)))
    assert reading.times == (1 if database.is_sqlite else 10)
    before = reading.times
    await make_tenant()
    await remembered.get("a", reading)
    assert reading.times == before + 1
    remembered.close()


async def test_who_gives_up_reading_leaves_it_to_the_next(sqlite_url: str) -> None:
    remembered: VersionedCache[str, int] = VersionedCache(Database(sqlite_url_of(sqlite_url)))
    reading = Reading()
    reading.go_on.clear()
    first = asyncio.ensure_future(remembered.get("a", reading))
    second = asyncio.ensure_future(remembered.get("a", reading))
    while not reading.times:  # noqa: ASYNC110 - it is about whose turn it is
        await asyncio.sleep(0)
    first.cancel()
    reading.go_on.set()
    assert await second == 2
    assert first.cancelled()
    remembered.close()


async def test_a_failure_is_not_remembered(sqlite_url: str) -> None:
    remembered: VersionedCache[str, int] = VersionedCache(Database(sqlite_url_of(sqlite_url)))

    async def fail() -> int:
        raise KeyError

    with pytest.raises(KeyError):
        await remembered.get("a", fail)
    assert await remembered.get("a", Reading()) == 1
    remembered.close()


def test_without_a_file_nobody_knows(tmp_path: Path) -> None:
    assert DataVersion(Database(sqlite_url_of(str(tmp_path / "none.sqlite")))).stamp() is None
    assert DataVersion(Database("sqlite+aiosqlite:///:memory:")).stamp() is None
    assert not list(tmp_path.iterdir())


def sqlite_url_of(path: str) -> str:
    return f"sqlite+aiosqlite:///{path}"
