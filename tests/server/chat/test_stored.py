"""Kept completions on both databases."""

import asyncio

import pytest
from sqlalchemy import func, select

from server.chat import stored
from server.db.models import StoredCompletion, Tenant, now
from server.db.session import Database
from server.errors import NotFound
from server.tenants import service as tenants


async def keep(database: Database, tenant: Tenant, number: int, **metadata: str) -> str:
    completion_id = f"{stored.PREFIX}{number:032x}"
    async with database.transaction() as session:
        await stored.keep(
            session,
            tenant.id,
            completion_id=completion_id,
            model="m",
            messages=[],
            answer={"id": completion_id},
            metadata=metadata or None,
        )
    return completion_id


@pytest.mark.parametrize(
    ("key", "value"),
    [("a", "b"), ('"', "'"), ("$.a[0]", "%"), ("ключ", "\x00"), ("", "")],
)
async def test_completions_are_found_by_any_key_and_value(
    database: Database, make_tenant, key: str, value: str
) -> None:
    tenant = await make_tenant()
    marked = await keep(database, tenant, 1, **{key: value})
    await keep(database, tenant, 2, **{key: "another"})
    await keep(database, tenant, 3)
    async with database.reading() as session:
        rows = await stored.find(
            session,
            tenant.id,
            limit=9,
            after=None,
            newest_first=False,
            model=None,
            metadata={key: value},
        )
    assert [f"{stored.PREFIX}{row.id}" for row in rows] == [marked]


async def test_a_completion_is_its_tenants_alone(database: Database, make_tenant) -> None:
    ours, theirs = await make_tenant("acme"), await make_tenant("other")
    kept = await keep(database, theirs, 1)
    async with database.reading() as session:
        assert (await stored.get(session, theirs.id, kept)).model == "m"
        for wrong in (kept, kept.removeprefix(stored.PREFIX), "", "chatcmpl-\x00"):
            with pytest.raises(NotFound):
                await stored.get(session, ours.id, wrong)


async def test_what_was_kept_for_a_month_is_removed(database: Database, make_tenant) -> None:
    tenant = await make_tenant()
    old, new = await keep(database, tenant, 1), await keep(database, tenant, 2)
    async with database.transaction() as session:
        row = await stored.get(session, tenant.id, old)
        row.created_at = now() - stored.KEPT_FOR * 1.01
    async with database.transaction() as session:
        await stored.delete_expired(session)
    async with database.reading() as session:
        assert await stored.get(session, tenant.id, new)
        with pytest.raises(NotFound):
            await stored.get(session, tenant.id, old)


async def test_nothing_is_kept_of_a_tenant_that_goes_meanwhile(
    database: Database, make_tenant
) -> None:
    tenant = await make_tenant()
    deleting, may_end = asyncio.Event(), asyncio.Event()

    async def delete() -> None:
        async with database.transaction() as session:
            await tenants.delete(session, tenant.slug)
            deleting.set()
            await may_end.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(delete())
        await deleting.wait()
        keeping = group.create_task(keep(database, tenant, 1))
        await asyncio.sleep(0.05)
        assert not keeping.done()
        may_end.set()
    await keep(database, tenant, 2)
    async with database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(StoredCompletion)) == 0
