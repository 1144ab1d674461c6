"""Pages that follow a run get each event once, from where they were; on both databases."""

import asyncio
import contextlib

import pytest

from server.errors import Unavailable
from server.jobs import feed as feeds
from server.jobs.feed import JobFeed
from tests.server.jobs.fake_runs import make_run, move, step


async def follow(feed: JobFeed, job, seen: list[int], *, after: int = 0) -> str:
    async with contextlib.aclosing(feed.follow(job.tenant_id, job.id, after=after)) as batches:
        async for batch in batches:
            if batch is not None:
                seen += [event.seq for event in batch.events]
                if batch.ended:
                    return "ended"
    return "closed"


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what comes is in a list
            await asyncio.sleep(0.01)


async def test_what_is_added_comes_once_and_in_order_until_the_end(database, make_tenant) -> None:
    job = await make_run(database, await make_tenant())
    feed = JobFeed(database, look_seconds=0.01)
    first: list[int] = []
    second: list[int] = []
    tasks = [
        asyncio.create_task(follow(feed, job, first)),
        asyncio.create_task(follow(feed, job, second, after=2)),
    ]
    await until(lambda: first == [1, 2, 3])
    for number in range(1, 6):
        await step(database, job, number)
    await move(database, job, "failed", error={"code": "killed", "message": "m"})
    assert await asyncio.gather(*tasks) == ["ended", "ended"]
    assert first == list(range(1, 10))
    assert second == list(range(3, 10))
    feed.close()


async def test_more_than_a_batch_comes_whole(database, make_tenant, monkeypatch) -> None:
    monkeypatch.setattr(feeds, "BATCH", 4)
    job = await make_run(database, await make_tenant())
    for number in range(1, 11):
        await step(database, job, number)
    await move(database, job, "cancelled")
    seen: list[int] = []
    feed = JobFeed(database, look_seconds=0.01)
    assert await follow(feed, job, seen) == "ended"
    assert seen == list(range(1, 15))
    feed.close()


async def test_a_run_that_ended_before_ends_at_once(database, make_tenant) -> None:
    job = await make_run(database, await make_tenant(), state="failed")
    seen: list[int] = []
    feed = JobFeed(database)
    assert await follow(feed, job, seen, after=99) == "ended"
    assert seen == []
    feed.close()


async def test_another_tenants_run_gives_nothing(database, make_tenant) -> None:
    job = await make_run(database, await make_tenant())
    other = await make_tenant("other")
    feed = JobFeed(database)
    batches = [batch async for batch in feed.follow(other.id, job.id, after=0)]
    assert [(batch.events, batch.ended) for batch in batches if batch] == [([], True)]
    feed.close()


async def test_closing_ends_what_is_followed_though_nothing_comes(database, make_tenant) -> None:
    job = await make_run(database, await make_tenant())
    feed = JobFeed(database, look_seconds=3600)
    seen: list[int] = []
    task = asyncio.create_task(follow(feed, job, seen))
    await until(lambda: len(seen) == 3)
    feed.close()
    assert await asyncio.wait_for(task, 20) == "closed"


async def test_too_many_pages_are_refused_and_a_closed_one_makes_room(
    database, make_tenant, monkeypatch
) -> None:
    monkeypatch.setattr(feeds, "MAX_FOLLOWED", 1)
    job = await make_run(database, await make_tenant())
    feed = JobFeed(database, look_seconds=0.01)
    first = feed.follow(job.tenant_id, job.id, after=0)
    assert await anext(first) is not None
    with pytest.raises(Unavailable, match="follow runs here already"):
        await anext(feed.follow(job.tenant_id, job.id, after=0))
    await first.aclose()
    async with contextlib.aclosing(feed.follow(job.tenant_id, job.id, after=0)) as again:
        assert await anext(again) is not None
    feed.close()
