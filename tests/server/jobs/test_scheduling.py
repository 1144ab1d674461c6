"""Which import or job is next, on both databases; and a real worker beside long imports."""

import asyncio
import contextlib
import os
import time
from datetime import timedelta
from typing import Any

import psutil
import pytest
from sqlalchemy import select, update

from server.db.models import Adapter, Import, Job, SourceFile, Tenant, now
from server.db.session import Database
from server.jobs import scheduling
from server.jobs.scheduling import (
    MAX_RUNNING_IMPORTS,
    SMALL_IMPORT_BYTES,
    next_imports,
    next_jobs,
)
from server.settings import Settings
from tests.server.jobs.worker_process import SHORT, hostile, upload, wait_until, worker

LARGE = SMALL_IMPORT_BYTES + 1


@pytest.fixture
def queue(database, make_tenant):
    """Queue imports of a tenant, which is made if need be; their ids."""

    async def queue(slug: str, count: int = 1, *, size: int = 1, **fields: Any) -> list[str]:
        async with database.transaction() as session:
            tenant = await session.scalar(select(Tenant).where(Tenant.slug == slug))
        tenant = tenant or await make_tenant(slug)
        ids = []
        async with database.transaction() as session:
            for _ in range(count):
                source = SourceFile(
                    tenant_id=tenant.id, filename="a", sha256=os.urandom(32).hex(), size_bytes=size
                )
                session.add(source)
                await session.flush()
                row = Import(tenant_id=tenant.id, source_file_id=source.id, **fields)
                session.add(row)
                await session.flush()
                ids.append(row.id)
        return ids

    return queue


@pytest.fixture
def queue_jobs(database, make_tenant):
    async def queue_jobs(slug: str, count: int = 1, **fields: Any) -> list[str]:
        async with database.transaction() as session:
            tenant = await session.scalar(select(Tenant).where(Tenant.slug == slug))
        tenant = tenant or await make_tenant(slug)
        jobs = [
            Job(tenant_id=tenant.id, **{"base": "b", "recipe_name": "r", **fields})
            for _ in range(count)
        ]
        async with database.transaction() as session:
            for job in jobs:
                session.add(job)
                await session.flush()
        return [job.id for job in jobs]

    return queue_jobs


async def imports(database: Database, *started: str) -> list[str]:
    async with database.reading() as session:
        return await next_imports(session, started=started)


async def jobs(database: Database, *started: str, max_running: int = 1) -> list[str]:
    async with database.reading() as session:
        found = await next_jobs(session, started=started, max_running=max_running)
    return [job_id for job_id, _ in found]


async def test_each_tenant_has_one_import_under_way_its_oldest(database, queue):
    many = await queue("many", 20)
    (one,) = await queue("one")
    assert await imports(database) == [many[0], one]
    assert await imports(database, many[0]) == [one]
    assert await imports(database, many[0], one) == []


async def test_the_tenant_is_next_that_was_served_longest_ago(database, queue, monkeypatch):
    monkeypatch.setattr(scheduling, "MAX_RUNNING_IMPORTS", 1)
    monkeypatch.setattr(scheduling, "SLOTS_FOR_SMALL_IMPORTS", 0)
    first = await queue("first", 3)
    second = await queue("second", 2)
    third = await queue("third")
    order = []
    for minute in range(6):
        (chosen,) = await imports(database)
        order.append(chosen)
        async with database.transaction() as session:
            row = await session.get_one(Import, chosen)
            row.state, row.started_at = "done", now() + timedelta(minutes=minute)
    assert order == [first[0], second[0], third[0], first[1], second[1], first[2]]


async def test_long_imports_leave_slots_for_short_ones(database, queue):
    large = [(await queue(f"large-{n}", 2, size=LARGE))[0] for n in range(MAX_RUNNING_IMPORTS)]
    begun = await imports(database)
    assert begun == large[: MAX_RUNNING_IMPORTS - 2]
    small = await queue("small")
    assert await imports(database, *begun) == small
    async with database.transaction() as session:
        ended = {"state": "done", "started_at": now()}
        await session.execute(update(Import).where(Import.id == begun[0]).values(ended))
    assert (await imports(database, *begun, *small))[0] == large[MAX_RUNNING_IMPORTS - 2]


async def test_jobs_take_turns_between_tenants(database, queue_jobs):
    many = await queue_jobs("many", 3)
    (one,) = await queue_jobs("one")
    order = []
    for minute in range(4):
        (chosen,) = await jobs(database)
        order.append(chosen)
        assert await jobs(database, chosen) == [], "there is one slot"
        async with database.transaction() as session:
            job = await session.get_one(Job, chosen)
            job.state, job.started_at = "succeeded", now() + timedelta(minutes=minute)
    assert order == [many[0], one, many[1], many[2]]


async def test_a_tenant_may_use_free_slots_for_jobs_but_not_before_others(database, queue_jobs):
    many = await queue_jobs("many", 3)
    assert await jobs(database, max_running=2) == [many[0]]
    assert await jobs(database, many[0], max_running=2) == [many[1]]
    (one,) = await queue_jobs("one")
    assert await jobs(database, many[0], max_running=2) == [one]


@pytest.mark.parametrize("state", ["awaiting_approval", "paused", "failed"])
async def test_a_job_that_waits_for_a_person_or_has_ended_holds_no_slot(
    database, queue_jobs, state
):
    (waits,) = await queue_jobs("slow", state=state)
    (other,) = await queue_jobs("other")
    assert await jobs(database, waits) == [other]


async def test_a_job_whose_uploads_are_being_read_waits_without_a_slot(database, queue, queue_jobs):
    (upload,) = await queue("slow", state="running")
    (job,) = await queue_jobs("slow")
    (own_file,) = await queue_jobs("slow", training_file_id="f" * 32)
    (other,) = await queue_jobs("other")
    assert await jobs(database) == [own_file]
    assert await jobs(database, own_file, max_running=2) == [other]
    async with database.transaction() as session:
        await session.execute(update(Import).where(Import.id == upload).values(state="done"))
    assert await jobs(database, own_file, other, max_running=3) == [job]


def _home_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.environ().get("TENANTUNE_HOME", "")
    return ""


async def made_adapter(database: Database, job_id: str) -> None:
    """Give a job the adapter that awaits a decision."""
    async with database.transaction() as session:
        job = await session.get_one(Job, job_id)
        adapter = Adapter(
            tenant_id=job.tenant_id,
            version=1,
            engine_name="other.0123456789ab",
            base_name="b",
            base_sha256="0" * 64,
            job_id=job_id,
            state="ready",
        )
        session.add(adapter)
        await session.flush()
        job.adapter_id = adapter.id


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_short_import_does_not_wait_for_a_neighbours_long_ones_and_decisions_are_done(
    tmp_path, make_tenant, queue_jobs, database
):
    """A real worker; the neighbour has sent two files that take minutes."""
    settings = Settings(home=tmp_path, database_url=str(database.url.database))
    for slug in ("busy", "other"):
        await make_tenant(slug)
    (rejected,) = await queue_jobs(
        "other", state="awaiting_approval", decision="rejected", require_approval=True
    )
    await made_adapter(database, rejected)
    long = [await upload(database, settings, "busy", hostile(n)) for n in (3000, 3001)]
    with worker(tmp_path):
        await wait_until(database, Import, long[0], {"running"})
        began = time.monotonic()
        short = await upload(database, settings, "other", SHORT)
        row = await wait_until(database, Import, short, {"done", "failed"})
        assert row.state == "done", row.error
        assert time.monotonic() - began < 20
        async with database.reading() as session:
            states = [(await session.get_one(Import, each)).state for each in long]
        assert states == ["running", "queued"]
        job = await wait_until(database, Job, rejected, {"succeeded"})
        assert job.outcome["promoted"] is False
        assert "rejected" in job.outcome["reason"]
    # a worker that ends takes its readers along, and leaves the work to the next
    async with database.reading() as session:
        assert (await session.get_one(Import, long[0])).state == "running"
    ours = str(tmp_path)
    until = time.monotonic() + 10
    while any(ours in _home_of(p) for p in psutil.process_iter()):
        assert time.monotonic() < until, "a reader is left"
        await asyncio.sleep(0.1)
