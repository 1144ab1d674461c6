"""Keys that are replaced, end or are revoked: at once, on every copy of the server."""

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError, OperationalError

from server.app import create_app
from server.auth import keys, listing
from server.auth.keyring import Keyring
from server.auth.schemas import KeyRequest, RotateRequest
from server.db.models import ApiKey, now
from server.db.session import Database
from server.errors import Conflict, Invalid, NotFound, Unauthenticated
from server.settings import Limits
from server.tenants import service as tenants
from tests.server.conftest import running

KEYS = "/admin/tenants/acme/keys"
sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest_asyncio.fixture
async def other_copy(settings) -> AsyncIterator[AsyncClient]:
    """A second server over the same database, with connections of its own."""
    app = create_app(settings, database=Database(settings.database))
    transport = ASGITransport(app=cast("Any", app))
    async with running(app), AsyncClient(transport=transport, base_url="http://other") as made:
        yield made


@pytest_asyncio.fixture
async def copies(client, other_copy, make_tenant) -> list[AsyncClient]:
    await make_tenant("acme")
    return [client, other_copy]


@pytest_asyncio.fixture
async def keyring(database) -> AsyncIterator[Keyring]:
    made = Keyring(database)
    yield made
    made.close()


async def statuses(copies: list[AsyncClient], raw: str) -> list[int]:
    header = {"authorization": f"Bearer {raw}"}
    return [(await each.get("/v1/models", headers=header)).status_code for each in copies]


async def create(client: AsyncClient, operator: dict[str, str], **body: Any) -> tuple[str, str]:
    made = await client.post(KEYS, json=body, headers=operator)
    assert made.status_code == 201
    return made.json()["key"], made.json()["details"]["id"]


async def test_a_key_revoked_on_one_copy_is_refused_by_the_other_at_once(copies, operator):
    for here, there in (copies, reversed(copies)):
        raw, key_id = await create(here, operator)
        for _ in range(2):  # both know it well
            assert await statuses(copies, raw) == [200, 200]
        assert (await here.delete(f"{KEYS}/{key_id}", headers=operator)).status_code == 204
        assert await statuses([there, here], raw) == [401, 401]


async def test_the_keys_of_a_deleted_tenant_are_refused_everywhere_at_once(copies, operator):
    raw, _ = await create(copies[0], operator)
    assert await statuses(copies, raw) == [200, 200]
    gone = await copies[0].delete("/admin/tenants/acme", headers=operator)
    assert gone.status_code == 204
    assert await statuses(copies, raw) == [401, 401]


async def test_a_rotated_key_works_beside_its_successor_until_the_overlap_is_over(
    copies, operator, database
):
    old, old_id = await create(copies[0], operator, label="CI", scopes=["chat", "train"])
    asked = {"overlap_seconds": 1000}
    made = await copies[1].post(f"{KEYS}/{old_id}/rotate", json=asked, headers=operator)
    assert made.status_code == 201
    new, details = made.json()["key"], made.json()["details"]
    assert (details["label"], details["scopes"]) == ("CI", ["chat", "train"])
    assert (details["replaces_id"], details["expires_at"]) == (old_id, None)
    assert await statuses(copies, old) == await statuses(copies, new) == [200, 200]
    async with database.transaction() as session:
        row = await session.get_one(ApiKey, old_id)
        assert 900 < (row.expires_at - now()).total_seconds() <= 1000
        row.expires_at = now()
    assert await statuses(copies, old) == [401, 401]
    assert await statuses(copies, new) == [200, 200]


async def test_rotating_without_overlap_ends_the_old_key_at_once(copies, operator):
    old, old_id = await create(copies[0], operator)
    assert await statuses(copies, old) == [200, 200]
    asked = {"overlap_seconds": 0}
    made = await copies[0].post(f"{KEYS}/{old_id}/rotate", json=asked, headers=operator)
    assert await statuses(copies, old) == [401, 401]
    assert await statuses(copies, made.json()["key"]) == [200, 200]


async def test_all_dead_keys_get_the_same_answer(client, operator, make_tenant, database):
    await make_tenant("acme")
    raws = [keys.generate(operator=False), "nonsense"]
    for change in ({"revoked_at": now()}, {"expires_at": now()}):
        raw, key_id = await create(client, operator)
        raws.append(raw)
        async with database.transaction() as session:
            await session.execute(update(ApiKey).where(ApiKey.id == key_id).values(**change))
    answers = set()
    for raw in raws:
        answer = await client.get("/v1/models", headers={"authorization": f"Bearer {raw}"})
        headers = {k: v for k, v in answer.headers.items() if k != "x-request-id"}
        answers.add((answer.status_code, answer.text, str(headers)))
    assert len(answers) == 1


@sqlite_only
async def test_a_key_is_rotated_once_and_only_while_it_works(database, make_tenant):
    await make_tenant("acme")
    limits = Limits(requests_per_minute=5)
    async with database.transaction() as session:
        tenant = await tenants.get(session, "acme")
        _, first = await keys.create(session, KeyRequest(), tenant=tenant)
        first.limits = limits
        _, second = await keys.rotate(session, first.id, RotateRequest(), tenant=tenant)
        assert second.limits == limits
        with pytest.raises(Conflict) as twice:
            await keys.rotate(session, first.id, RotateRequest(), tenant=tenant)
        assert second.id in twice.value.message
        await keys.revoke(session, second.id, tenant=tenant)
        with pytest.raises(Conflict):
            await keys.rotate(session, second.id, RotateRequest(), tenant=tenant)


async def test_a_revoked_key_is_taken_back_for_a_while_and_by_its_tenant_alone(
    database, make_tenant, monkeypatch
):
    acme, zoo = await make_tenant("acme"), await make_tenant("zoo")
    async with database.transaction() as session:
        raw, row = await keys.create(session, KeyRequest(), tenant=acme, actor="person:1")
        await keys.revoke(session, row.id, tenant=acme)
        with pytest.raises(NotFound):
            await keys.restore(session, row.id, tenant=zoo)
        await keys.restore(session, row.id, tenant=acme)
        assert (await keys.authenticate(session, raw)).slug == "acme"
        _, newer = await keys.rotate(session, row.id, RotateRequest(), tenant=acme)
        found = await listing.list_keys(session, acme)
        assert [(each.state.word, each.actor) for each in found] == [
            ("Works", None),
            ("Being replaced", "person:1"),
        ]
        assert (found[0].replaces, found[1].replaced_by) == (row.prefix, newer.prefix)
        await keys.revoke(session, row.id, tenant=acme)
        monkeypatch.setattr(keys, "RESTORABLE", timedelta())
        with pytest.raises(Conflict, match="too long ago"):
            await keys.restore(session, row.id, tenant=acme)
        assert await listing.list_keys(session, acme, working=True) == [found[0]]
        assert await listing.list_keys(session, zoo) == []


@sqlite_only
async def test_a_successor_ends_when_the_old_key_was_to_end_unless_told_otherwise(database):
    soon, later = now() + timedelta(hours=1), now() + timedelta(days=90)
    async with database.transaction() as session:
        for given, expected in ((RotateRequest(), soon), (RotateRequest(expires_at=later), later)):
            _, old = await keys.create(session, KeyRequest(expires_at=soon), tenant=None)
            raw, new = await keys.rotate(session, old.id, given, tenant=None)
            assert raw.startswith("tt_admin_")
            assert (old.expires_at, new.expires_at) == (soon, expected)
        _, old = await keys.create(session, KeyRequest(), tenant=None)
        with pytest.raises(Invalid):
            await keys.rotate(session, old.id, RotateRequest(expires_at=now()), tenant=None)


async def test_a_database_that_does_not_answer_lets_nobody_in(
    database, keyring, make_tenant, make_key, monkeypatch
):
    await make_tenant("acme")
    raw = (await make_key("acme"))["authorization"].removeprefix("Bearer ")
    await keyring.authenticate(raw)

    def broken(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", None, OSError("gone"))

    await make_tenant("other")  # somebody commits, so that what is remembered is not used
    monkeypatch.setattr(database, "_reading", broken)
    for _ in range(2):
        with pytest.raises(DBAPIError):
            await keyring.authenticate(raw)
    monkeypatch.undo()
    await keyring.authenticate(raw)


async def test_a_database_that_is_gone_lets_nobody_in(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    keyring = Keyring(Database(f"sqlite+aiosqlite:///{tmp_path}/none/none.sqlite"))
    with pytest.raises(OperationalError):
        await keyring.authenticate(keys.generate(operator=True))
    keyring.close()
    # The driver ends its thread without waiting for it; it must not outlive this loop, to which it
    # reports its end.
    for thread in set(threading.enumerate()) - before:
        await asyncio.to_thread(thread.join, 10)


async def test_a_lookup_that_was_slow_is_not_remembered_for_later(
    database, keyring, make_tenant, make_key, monkeypatch
):
    """The key is revoked, and another request asks, while a first one still waits."""
    await make_tenant("acme")
    raw = (await make_key("acme"))["authorization"].removeprefix("Bearer ")
    good = keys.authenticate
    later: list[asyncio.Task[keys.Principal]] = []

    async def slow(session: Any, given: str) -> keys.Principal:
        found = await good(session, given)
        monkeypatch.setattr(keys, "authenticate", good)
        async with database.transaction() as writing:
            await writing.execute(update(ApiKey).values(revoked_at=now()))
        later.append(asyncio.ensure_future(keyring.authenticate(raw)))
        await asyncio.sleep(0)
        return found

    monkeypatch.setattr(keys, "authenticate", slow)
    await keyring.authenticate(raw)  # it came before the revocation
    with pytest.raises(Unauthenticated):
        await later[0]
    with pytest.raises(Unauthenticated):
        await keyring.authenticate(raw)


@sqlite_only
async def test_times_of_use_survive_a_database_that_is_away(
    database, keyring, make_tenant, make_key, monkeypatch
):
    await make_tenant("acme")
    raw = (await make_key("acme"))["authorization"].removeprefix("Bearer ")
    await keyring.authenticate(raw)

    def broken() -> None:
        raise OperationalError("UPDATE", None, OSError("gone"))

    monkeypatch.setattr(database, "transaction", broken)
    await keyring._try_flush()
    monkeypatch.undo()
    await keyring._try_flush()
    async with database.reading() as session:
        assert await session.scalar(select(ApiKey.last_used_at)) is not None


@sqlite_only
async def test_organization_and_project_are_accepted_and_never_trusted(
    client, make_tenant, make_key
):
    for slug in ("acme", "other"):
        await make_tenant(slug)
    key = await make_key("acme")
    plain = await client.get("/v1/models", headers=key)
    for name in ("other", "org-123", ""):
        given = {"OpenAI-Organization": name, "OpenAI-Project": name}
        answer = await client.get("/v1/models", headers=key | given)
        assert (answer.status_code, answer.json()) == (200, plain.json())
        assert (await client.get("/v1/models", headers=given)).status_code == 401
        foreign = await client.get("/admin/tenants/other", headers=key | given)
        assert foreign.status_code == 404
