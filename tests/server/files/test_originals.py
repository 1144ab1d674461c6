"""Uploads of transcripts go when they have been read; what else refers to the bytes keeps them."""

import datetime
import json
from typing import Any

import pytest
from sqlalchemy import select, update

from server.cleanup import Cleaner
from server.db.models import ConversationRow, File, Import, SourceFile, now
from server.files import service as files
from server.transcripts import importing

ADDRESS = "/admin/tenants/acme/transcripts"
SECRET = "vera.private@post.example"
FILE = "".join(
    json.dumps(
        {
            "messages": [
                {"role": "user", "content": f"Order {n}? Write to {SECRET}"},
                {"role": "assistant", "content": f"Order {n} left."},
            ]
        }
    )
    + "\n"
    for n in range(3)
).encode()


@pytest.fixture
async def acme(make_tenant):
    return await make_tenant("acme")


@pytest.fixture
def send(client, operator):
    async def send(data: bytes = FILE, *, slug: str = "acme", query: str = "") -> dict[str, Any]:
        path = f"/admin/tenants/{slug}/transcripts?filename=a.jsonl{query}"
        answer = await client.post(path, content=data, headers=operator)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    return send


@pytest.fixture
def view(client, operator):
    async def view(made: dict[str, Any], slug: str = "acme") -> dict[str, Any]:
        path = f"/admin/tenants/{slug}/imports/{made['id']}"
        return dict((await client.get(path, headers=operator)).json())

    return view


async def test_the_file_goes_with_the_end_of_its_import(
    acme, send, view, *, blobs, database, settings
):
    made = await send()
    assert made["file_removed_at"] is None
    assert await blobs.exists(made["sha256"])
    await importing.run_import(database, made["id"], settings=settings)
    assert not await blobs.exists(made["sha256"])
    done = await view(made)
    assert (done["state"], done["sha256"]) == ("done", made["sha256"])
    assert done["file_removed_at"] is not None
    for path in settings.home.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    again = await send()
    assert again["id"] == made["id"]
    assert not await blobs.exists(made["sha256"]), "sent again and known already: not kept"


async def test_the_file_of_a_failed_import_goes_too_and_may_be_sent_again(
    acme, send, view, *, blobs, database, settings
):
    made = await send(b"\x00\x01\x02")
    await importing.run_import(database, made["id"], settings=settings)
    assert (await view(made))["state"] == "failed"
    assert not await blobs.exists(made["sha256"])
    again = await send(b"\x00\x01\x02")
    assert again["id"] != made["id"]
    assert again["file_removed_at"] is None
    assert await blobs.exists(made["sha256"])


async def test_it_stays_while_another_import_of_it_is_unfinished(
    acme, make_tenant, send, *, blobs, database, settings
):
    await make_tenant("other")
    first, second = await send(), await send(query="&split=test")
    foreign = await send(slug="other")
    for made, there in ((first, True), (foreign, True), (second, False)):
        await importing.run_import(database, made["id"], settings=settings)
        assert await blobs.exists(first["sha256"]) == there
    async with database.reading() as session:
        assert {row.state for row in await session.scalars(select(Import))} == {"done"}


async def test_it_stays_while_a_file_of_the_api_has_the_same_bytes(
    acme, send, *, blobs, database, settings
):
    made = await send()
    async with database.transaction() as session:
        row = await files.create(
            session,
            acme.id,
            blobs=blobs,
            sha256=made["sha256"],
            size_bytes=len(FILE),
            filename="a.jsonl",
            purpose="fine-tune",
        )
    await importing.run_import(database, made["id"], settings=settings)
    assert await blobs.exists(made["sha256"])
    async with database.transaction() as session:
        await session.execute(update(File).where(File.id == row.id).values(expires_at=now()))
    await Cleaner(database, blobs).clean_up()
    assert not await blobs.exists(made["sha256"])


async def test_a_tenant_may_have_them_kept_for_days(
    client, operator, acme, send, view, *, blobs, database, settings
):
    changed = await client.patch(
        "/admin/tenants/acme", json={"keep_upload_days": 2}, headers=operator
    )
    assert changed.json()["keep_upload_days"] == 2
    made = await send()
    await importing.run_import(database, made["id"], settings=settings)
    sweeper = Cleaner(database, blobs)
    await sweeper.clean_up()
    assert await blobs.exists(made["sha256"])
    assert (await view(made))["file_removed_at"] is None
    await _age(database, made, days=3)
    await sweeper.clean_up()
    assert not await blobs.exists(made["sha256"])
    assert (await view(made))["file_removed_at"] is not None
    async with database.reading() as session:
        assert len(list(await session.scalars(select(ConversationRow)))) == 3


async def test_what_an_older_version_kept_goes_with_the_next_sweep_and_what_waits_stays(
    acme, send, *, blobs, database, settings
):
    old, waits = await send(), await send(b'{"messages": []}\n')
    async with database.transaction() as session:
        done = {"state": "done", "finished_at": now()}
        await session.execute(update(Import).where(Import.id == old["id"]).values(done))
    await Cleaner(database, blobs).clean_up()
    assert not await blobs.exists(old["sha256"])
    assert await blobs.exists(waits["sha256"])


async def test_bytes_that_a_killed_worker_left_go_with_the_sweep_of_orphans(
    acme, send, *, blobs, database, settings, monkeypatch
):
    async def killed(*_args) -> None:
        raise KeyboardInterrupt

    made = await send()
    monkeypatch.setattr(importing, "try_delete_unreferenced", killed)
    with pytest.raises(KeyboardInterrupt):
        await importing.run_import(database, made["id"], settings=settings)
    assert await blobs.exists(made["sha256"])
    await Cleaner(database, blobs).sweep_orphans(datetime.timedelta(0))
    assert not await blobs.exists(made["sha256"])


async def _age(database, made: dict[str, Any], *, days: int) -> None:
    before = now() - datetime.timedelta(days=days)
    async with database.transaction() as session:
        await session.execute(
            update(Import).where(Import.id == made["id"]).values(finished_at=before)
        )


async def test_a_source_that_is_let_go_says_so_in_its_row(acme, send, *, database, settings):
    made = await send()
    await importing.run_import(database, made["id"], settings=settings)
    async with database.reading() as session:
        source = (await session.scalars(select(SourceFile))).one()
    assert source.removed_at is not None
