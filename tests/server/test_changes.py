"""Whether what was read may be kept: only until somebody commits, whoever that is."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.db.changes import Changes
from server.db.session import Database
from server.tenants import service as tenants
from server.tenants.schemas import TenantPatch


async def test_a_stamp_changes_with_every_commit_and_only_then(
    database: Database, make_tenant: Callable[..., Any]
) -> None:
    changes = Changes(database)
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
    changes = Changes(Database(sqlite_url_of(sqlite_url)))
    before = changes.stamp()
    other = sqlite3.connect(sqlite_url)
    with other:
        other.execute("CREATE TABLE something (x)")
    other.close()
    assert changes.stamp() != before
    changes.close()


async def test_stamps_of_different_connections_differ(sqlite_url: str) -> None:
    changes = Changes(Database(sqlite_url_of(sqlite_url)))
    before = changes.stamp()
    changes.close()
    assert changes.stamp() != before
    changes.close()


def test_without_a_file_nobody_knows(tmp_path: Path) -> None:
    assert Changes(Database(sqlite_url_of(str(tmp_path / "none.sqlite")))).stamp() is None
    assert Changes(Database("sqlite+aiosqlite:///:memory:")).stamp() is None
    assert not list(tmp_path.iterdir())


def sqlite_url_of(path: str) -> str:
    return f"sqlite+aiosqlite:///{path}"
