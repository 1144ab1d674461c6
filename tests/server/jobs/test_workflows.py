"""Workflows as DBOS stores them, with a real worker that is killed."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from server.db.models import ConversationRow, Import, Job
from server.jobs.workflows import WORKFLOW_VERSION
from server.settings import Settings
from tests.server.jobs.worker_process import SHORT, hostile, upload, wait_until, worker

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def stored(home: Path, query: str) -> list[Any]:
    """Rows of DBOS's database."""
    with closing(sqlite3.connect(home / "dbos.sqlite")) as connection, connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def settings_of_worker(tmp_path, database) -> Settings:
    return Settings(home=tmp_path, database_url=str(database.url.database))


async def kill_within_an_import(database, settings: Settings, data: bytes) -> str:
    """Start a worker and kill it while it reads; the import's id."""
    import_id = await upload(database, settings, "acme", data)
    with worker(settings.home) as process:
        await wait_until(database, Import, import_id, {"running"})
        process.kill()
    async with database.reading() as session:
        assert (await session.get_one(Import, import_id)).state == "running"
    return import_id


@pytest.mark.parametrize("version", [WORKFLOW_VERSION, "3"])
async def test_the_work_of_a_killed_worker_is_done_by_the_next_once(
    tmp_path, make_tenant, database, settings_of_worker, *, version
):
    """In the same workflow where that is of this version, else in one that is begun anew."""
    await make_tenant("acme")
    import_id = await kill_within_an_import(database, settings_of_worker, SHORT + hostile(100))
    # version 3 stored neither the class nor the instance of a workflow
    older = ", class_name = NULL, config_name = NULL" if version == "3" else ""
    stored(tmp_path, f"UPDATE workflow_status SET application_version = '{version}'{older}")
    with worker(tmp_path):
        row = await wait_until(database, Import, import_id, {"done", "failed"})
    assert row.state == "done", row.error
    async with database.reading() as session:
        assert await session.scalar(select(func.count(ConversationRow.id))) == 2
    query = "SELECT workflow_uuid, name, class_name, config_name, application_version"
    assert stored(tmp_path, f"{query} FROM workflow_status") == [
        (import_id, "import_workflow", "Workflows", "worker", WORKFLOW_VERSION)
    ]
    (attempts,) = stored(tmp_path, "SELECT recovery_attempts FROM workflow_status")
    assert attempts == ((2,) if version == WORKFLOW_VERSION else (1,))


async def test_steps_are_stored_under_their_own_names_and_a_failure_ends_the_job(
    tmp_path, make_tenant, database, settings_of_worker
):
    tenant = await make_tenant("acme")
    async with database.transaction() as session:
        job = Job(tenant_id=tenant.id, base="not-made", recipe_name="r")
        session.add(job)
    with worker(tmp_path):
        row = await wait_until(database, Job, job.id, {"failed", "succeeded"})
    assert row.error["code"] == "bad_input"
    steps = "SELECT function_name FROM operation_outputs ORDER BY function_id"
    assert stored(tmp_path, steps) == [("prepare",), ("end",)]
    names = "SELECT workflow_uuid, name FROM workflow_status"
    assert stored(tmp_path, names) == [(job.id, "job_workflow")]
