"""Which workers run, what each works on, and what waits, on both databases."""

import asyncio
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update

from server.db.models import Job, Tenant, WorkerProcess, now
from server.db.session import Database
from server.jobs import heartbeat, workers
from server.jobs.heartbeat import FORGOTTEN, LOST_SECONDS, Heartbeat
from server.settings import Settings
from tests.server.jobs.worker_process import worker


def a_job(tenant: Tenant, state: Any = "queued", **fields: Any) -> Job:
    return Job(tenant_id=tenant.id, state=state, base="b", recipe_name="cpu-small", **fields)


async def seen(database: Database) -> tuple[list[workers.WorkerView], workers.Waiting]:
    async with database.reading() as session:
        found = await workers.list_workers(session)
        return found, await workers.list_waiting(session, found)


async def test_a_worker_says_what_it_works_on_and_goes_with_its_row(
    database, make_tenant, make_upload
):
    acme = await make_tenant("acme", name="Acme Ltd")
    upload = await make_upload("acme", state="running")
    async with database.transaction() as session:
        job = a_job(acme, "running", started_at=now())
        over = a_job(acme, "succeeded")
        session.add_all([job, over])
    beats = Heartbeat(database, name="one:/home", jobs_at_once=2)
    await beats.beat(jobs=[], imports=[])
    [[idle], _] = await seen(database)
    assert (idle.alive, idle.jobs_at_once, idle.work) == (True, 2, ())
    await beats.beat(jobs=[job.id, over.id], imports=[upload.id])
    [[busy], _] = await seen(database)
    assert (busy.name, busy.started_at) == ("one:/home", idle.started_at)
    assert [(work.kind, work.id, work.what, work.tenant) for work in busy.work] == [
        ("job", job.id, "Training", "Acme Ltd"),
        ("import", upload.id, "Being read", "Acme Ltd"),
    ]
    await beats.end()
    await beats.beat(jobs=[], imports=[])  # its loop may come round once more
    assert await seen(database) == ([], workers.Waiting(jobs=0, imports=0, oldest=()))


async def test_a_beat_without_news_is_written_now_and_then(database, monkeypatch):
    beats = Heartbeat(database, name="one", jobs_at_once=1)
    await beats.beat(jobs=["1"], imports=[])
    async with database.transaction() as session:
        await session.execute(update(WorkerProcess).values(host="untouched"))
    await beats.beat(jobs=["1"], imports=[])
    [[still], _] = await seen(database)
    assert still.host == "untouched"
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.0)
    await beats.beat(jobs=["1"], imports=[])
    [[again], _] = await seen(database)
    assert again.host != "untouched"
    assert again.seen_at > still.seen_at


async def test_a_killed_worker_is_lost_and_the_next_one_takes_its_place(database):
    await Heartbeat(database, name="one", jobs_at_once=1).beat(jobs=[], imports=[])
    await Heartbeat(database, name="two", jobs_at_once=1).beat(jobs=[], imports=[])
    async with database.transaction() as session:
        lost = now() - timedelta(seconds=LOST_SECONDS + 1)
        await session.execute(update(WorkerProcess).values(seen_at=lost))
    assert [each.alive for each in (await seen(database))[0]] == [False, False]
    await Heartbeat(database, name="one", jobs_at_once=1).beat(jobs=[], imports=[])
    found = {each.name: each.alive for each in (await seen(database))[0]}
    assert found == {"one": True, "two": False}
    async with database.transaction() as session:
        await session.execute(
            update(WorkerProcess)
            .where(WorkerProcess.name == "two")
            .values(seen_at=now() - FORGOTTEN - timedelta(minutes=1))
        )
    await Heartbeat(database, name="three", jobs_at_once=1).beat(jobs=[], imports=[])
    assert {each.name for each in (await seen(database))[0]} == {"one", "three"}


async def test_what_waits_says_what_for(database, make_tenant, make_upload):
    acme, zoo = await make_tenant("acme"), await make_tenant("zoo")
    upload = await make_upload("acme", created_at=now() - timedelta(hours=2))

    async def reasons() -> dict[str, str]:
        return {work.id: work.what for work in (await seen(database))[1].oldest}

    async with database.transaction() as session:
        first = a_job(acme, created_at=now() - timedelta(hours=1))
        of_file = a_job(acme, training_file_id="f")
        other = a_job(zoo)
        session.add_all([first, of_file, other])
    assert set((await reasons()).values()) == {"a worker: none runs"}
    beats = Heartbeat(database, name="one", jobs_at_once=1)
    await beats.beat(jobs=[], imports=[])
    assert await reasons() == {
        upload.id: "its tenant's turn: 8 uploads are read at a time",
        first.id: "uploads of its tenant, which are read first",
        of_file.id: "its tenant's turn, in a moment",
        other.id: "its tenant's turn, in a moment",
    }
    async with database.transaction() as session:
        session.add(a_job(zoo, "running"))
    assert (await reasons())[other.id] == "a place: the only one is taken"
    await beats.beat(jobs=[other.id], imports=[upload.id])
    [_, waiting] = await seen(database)
    assert (waiting.jobs, waiting.imports) == (2, 0)
    assert [work.id for work in waiting.oldest] == [first.id, of_file.id]


async def test_a_real_worker_is_there_while_it_runs(tmp_path):
    settings = Settings(home=tmp_path)
    database = Database(settings.database)

    async def rows() -> int:
        async with database.reading() as session:
            return await session.scalar(select(func.count(WorkerProcess.id))) or 0

    await database.migrate()
    with worker(tmp_path) as process:
        async with asyncio.timeout(60):
            while not await rows():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.1)
        [[found], _] = await seen(database)
        assert (found.pid, found.alive) == (process.pid, True)
    assert await rows() == 0
    await database.dispose()
