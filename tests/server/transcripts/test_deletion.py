"""Deleting an import: what goes, what stays, and what is named."""

import json
from typing import Any

import pytest
from sqlalchemy import select, update

from server.datasets import creation
from server.db.models import (
    Adapter,
    ConversationRow,
    DatasetVersion,
    Import,
    ImportedAgain,
    Job,
    SourceFile,
)
from server.db.session import Database
from server.transcripts import importing

THINGS = (
    "hat",
    "lamp",
    "sofa",
    "kettle",
    "ladder",
    "mirror",
    "carpet",
    "drill",
    "teapot",
    "bicycle",
)
ODD = "The zeppelin of marmalade"


def lines(*texts: str) -> bytes:
    chats = (
        {
            "messages": [
                {"role": "user", "content": text},
                {"role": "assistant", "content": f"We have heard of it: {text[::-1]}"},
            ]
        }
        for text in texts
    )
    return b"".join(json.dumps(chat).encode() + b"\n" for chat in chats)


def many(word: str) -> list[str]:
    return [
        f"{word} {thing} {thing[::-1]} and {n} more {word * 2}?" for n, thing in enumerate(THINGS)
    ]


@pytest.fixture
async def acme(make_tenant):
    return await make_tenant("acme")


@pytest.fixture
def imported(client, operator, database, settings):
    """Send lines of a tenant and have them read; the import's id."""

    async def imported(*texts: str, slug: str = "acme") -> str:
        path = f"/admin/tenants/{slug}/transcripts?filename=a.jsonl"
        made = (await client.post(path, content=lines(*texts), headers=operator)).json()
        await importing.run_import(database, made["id"], settings=settings)
        return str(made["id"])

    return imported


@pytest.fixture
def delete(client, operator):
    async def delete(import_id: str, query: str = "", *, slug: str = "acme", status: int = 200):
        answer = await client.delete(
            f"/admin/tenants/{slug}/imports/{import_id}{query}", headers=operator
        )
        assert answer.status_code == status, answer.text
        return answer.json()

    return delete


@pytest.fixture
def texts(database):
    async def texts() -> set[str]:
        async with database.reading() as session:
            rows = await session.scalars(select(ConversationRow))
            return {row.body["turns"][0]["text"] for row in rows}

    return texts


async def rows(database: Database, kind: Any) -> list[Any]:
    async with database.reading() as session:
        return list(await session.scalars(select(kind).order_by(kind.id)))


async def test_its_conversations_go_and_those_of_others_stay(
    acme, make_tenant, imported, delete, *, texts, database
):
    await make_tenant("other")
    first = await imported("a", "b")
    await imported("c")
    await imported("a", slug="other")
    assert await delete(first) == {
        "id": first,
        "conversations_deleted": 2,
        "conversations_kept": 0,
        "datasets": [],
        "datasets_deleted": False,
        "adapters": [],
    }
    assert await texts() == {"a", "c"}
    assert len(await rows(database, ConversationRow)) == 2
    assert len(await rows(database, SourceFile)) == 2
    await delete(first, status=404)
    again = await imported("a", "b")
    assert again != first
    assert await texts() == {"a", "b", "c"}


async def test_a_conversation_stays_until_the_last_import_that_holds_it_goes(
    acme, imported, delete, texts, database
):
    first = await imported("a", "b", "x")
    second = await imported("b", "c", "x")
    third = await imported("x")
    gone = await delete(first)
    assert (gone["conversations_deleted"], gone["conversations_kept"]) == (1, 2)
    assert await texts() == {"b", "c", "x"}
    gone = await delete(second)
    assert (gone["conversations_deleted"], gone["conversations_kept"]) == (2, 1)
    assert await texts() == {"x"}
    gone = await delete(third)
    assert (gone["conversations_deleted"], gone["conversations_kept"]) == (1, 0)
    assert await texts() == set()
    for kind in (Import, ImportedAgain, SourceFile, ConversationRow):
        assert await rows(database, kind) == []


async def test_the_later_import_may_go_first(acme, imported, delete, texts):
    first = await imported("a")
    second = await imported("a", "b")
    gone = await delete(second)
    assert (gone["conversations_deleted"], gone["conversations_kept"]) == (1, 1)
    assert await texts() == {"a"}
    assert (await delete(first))["conversations_deleted"] == 1


async def test_two_imports_of_the_same_bytes_share_their_file(
    client, operator, acme, imported, delete, *, database, blobs, settings
):
    await client.patch("/admin/tenants/acme", json={"keep_upload_days": 9}, headers=operator)
    first = await imported("a")
    path = "/admin/tenants/acme/transcripts?filename=a.jsonl&split=test"
    second = (await client.post(path, content=lines("a"), headers=operator)).json()
    await importing.run_import(database, second["id"], settings=settings)
    await delete(first)
    assert await blobs.exists(second["sha256"])
    await delete(second["id"])
    assert not await blobs.exists(second["sha256"])


async def test_what_waits_is_deleted_with_its_file_and_what_is_being_read_is_not(
    client, operator, acme, delete, *, database, blobs, settings
):
    path = "/admin/tenants/acme/transcripts"
    made = (await client.post(path, content=lines("a"), headers=operator)).json()
    async with database.transaction() as session:
        await session.execute(update(Import).values(state="running"))
    refused = await delete(made["id"], status=409)
    assert refused["code"] == "import_running"
    async with database.transaction() as session:
        await session.execute(update(Import).values(state="queued"))
    await delete(made["id"])
    assert not await blobs.exists(made["sha256"])
    await importing.run_import(
        database, made["id"], settings=settings
    )  # a worker was given it before
    assert await rows(database, ConversationRow) == []


async def test_another_tenants_import_is_not_there(acme, make_tenant, make_key, imported, client):
    await make_tenant("other")
    made = await imported("a")
    key = await make_key("other", "train")
    for slug in ("acme", "other"):
        path = f"/admin/tenants/{slug}/imports/{made}"
        assert (await client.delete(path, headers=key)).status_code == 404


async def test_datasets_and_adapters_that_learnt_from_it_are_named(
    acme, imported, delete, *, database, settings
):
    first = await imported(*many("where"))
    dataset = await creation.create_version(database, acme.id, settings=settings)
    second = await imported(*many("when"))
    later = await creation.create_version(database, acme.id, settings=settings)
    async with database.transaction() as session:
        adapter = _adapter(acme, 1, dataset_id=dataset.id)
        session.add(adapter)
        await session.flush()
        job = Job(tenant_id=acme.id, base="b", recipe_name="r", state="succeeded")
        job.start_adapter_id = adapter.id
        session.add(job)
        await session.flush()
        session.add_all(
            [
                _adapter(acme, 2, job_id=job.id),
                _adapter(acme, 3, dataset_id=later.id),
                _adapter(acme, 4),
                _adapter(acme, 5, dataset_id=dataset.id, state="deleted"),
            ]
        )
    gone = await delete(second)
    assert (gone["datasets"], gone["adapters"]) == ([later.sha256], ["acme@3"])
    gone = await delete(first)
    assert gone["datasets"] == [dataset.sha256, later.sha256]
    assert gone["adapters"] == ["acme@1", "acme@2", "acme@3"]
    assert not gone["datasets_deleted"]
    assert (settings.datasets / dataset.sha256 / "train.jsonl").exists()
    assert len(await rows(database, DatasetVersion)) == 2


async def test_the_datasets_go_too_where_that_is_asked_for_unless_another_tenant_has_them(
    acme, make_tenant, imported, delete, *, database, settings
):
    other = await make_tenant("other")
    first = await imported(*many("where"))
    await imported(*many("where"), slug="other")
    shared = await creation.create_version(database, acme.id, settings=settings)
    assert (
        await creation.create_version(database, other.id, settings=settings)
    ).sha256 == shared.sha256
    await imported("one more")
    own = await creation.create_version(database, acme.id, settings=settings)
    async with database.transaction() as session:
        session.add(_adapter(acme, 1, dataset_id=own.id))
    gone = await delete(first, "?datasets=true")
    assert gone["datasets_deleted"]
    assert gone["adapters"] == ["acme@1"]
    assert [row.tenant_id for row in await rows(database, DatasetVersion)] == [other.id]
    assert {path.name for path in settings.datasets.iterdir()} == {shared.sha256}
    assert [row.dataset_id for row in await rows(database, Adapter)] == [None]


async def test_a_dataset_of_before_it_was_noted_is_named_where_it_may_hold_it(
    acme, imported, delete, *, database, settings
):
    first = await imported(*many("where"))
    old = await creation.create_version(database, acme.id, settings=settings)
    later = await imported("b")
    async with database.transaction() as session:
        await session.execute(update(DatasetVersion).values(import_ids=None))
    assert (await delete(later))["datasets"] == []
    assert (await delete(first))["datasets"] == [old.sha256]


@pytest.mark.parametrize(
    ("state", "file", "with_dataset", "status"),
    [
        ("queued", None, False, 200),
        ("queued", None, True, 409),  # it was resumed, and goes on with the dataset
        ("validating", None, False, 409),
        ("running", None, True, 409),
        ("paused", None, True, 409),
        ("running", "f" * 32, False, 200),
        ("awaiting_approval", None, True, 200),
        ("failed", None, True, 200),
    ],
)
async def test_a_job_that_learns_from_it_is_in_the_way(
    acme, imported, delete, *, database, settings, state, file, with_dataset, status
):
    made = await imported(*many("where"))
    dataset = await creation.create_version(database, acme.id, settings=settings)
    async with database.transaction() as session:
        job = Job(tenant_id=acme.id, base="b", recipe_name="r", state=state, training_file_id=file)
        job.dataset_id = dataset.id if with_dataset else None
        session.add(job)
    answer = await delete(made, status=status)
    if status == 409:
        assert answer["code"] == "job_in_progress"
        assert job.id in answer["detail"]
        assert len(await rows(database, ConversationRow)) == len(THINGS)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_no_file_of_the_installation_holds_it_any_more(
    acme, imported, delete, *, settings, database
):
    other = await imported("stays")
    made = await imported(*(f"{ODD} {n}" for n in range(50)))

    def found() -> list[str]:
        files = [path for path in settings.home.rglob("*") if path.is_file()]
        return [path.name for path in files if ODD.encode() in path.read_bytes()]

    assert found()
    await delete(made)
    assert found() == []
    assert other


def _adapter(tenant, version: int, **fields) -> Adapter:
    return Adapter(
        tenant_id=tenant.id,
        version=version,
        engine_name=f"acme.{version:012}",
        base_name="b",
        base_sha256="0" * 64,
        **{"state": "ready", **fields},
    )
