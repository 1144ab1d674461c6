"""Uploads, imports and datasets."""

import asyncio
import json
from collections.abc import AsyncIterator

import msgspec
import pytest
from alembic import command
from sqlalchemy import func, select, text

from server.datasets import creation
from server.db.migrate import alembic_config
from server.db.models import ConversationRow, Import, SourceFile
from server.transcripts import importing

LINES = [
    {"messages": [{"role": "user", "content": f"Where is {thing}, order {i}?"},
                  {"role": "assistant", "content": f"Order {i} left today, ask a@b.com."}]}
    for i, thing in enumerate(["my hat", "the lamp", "our sofa"])
]  # fmt: skip
FILE = "".join(json.dumps(line) + "\n" for line in LINES).encode()
ADDRESS = "/admin/tenants/acme/transcripts"
only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def acme(make_tenant):
    return await make_tenant("acme", custom_patterns={"ORDER": r"(?:order )\d+"})


async def count(database, table) -> int:
    async with database.reading() as session:
        found: int = await session.scalar(select(func.count()).select_from(table))
        return found


@only_sqlite
async def test_what_a_tenant_calls_public_is_not_redacted(
    client, make_tenant, operator, database, settings
):
    await make_tenant("acme", allowlist=("help@acme.example",))
    text = "Write to help@acme.example, not to jo@post.example."
    turns = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": text}]
    file = json.dumps({"messages": turns}).encode()
    queued = await client.post(f"{ADDRESS}?filename=a.jsonl", content=file, headers=operator)
    await importing.run_import(database, queued.json()["id"], settings=settings)
    async with database.reading() as session:
        body = await session.scalar(select(ConversationRow.body))
    assert body["turns"][1]["text"] == "Write to help@acme.example, not to [EMAIL_1]."


@only_sqlite
async def test_a_raw_body_and_a_form_are_taken_alike(client, acme, operator, blobs):
    raw = await client.post(
        f"{ADDRESS}?filename=a.jsonl&importer=openai", content=FILE, headers=operator
    )
    assert raw.status_code == 202
    assert raw.json()["state"] == "queued"
    assert raw.json()["filename"] == "a.jsonl"
    assert raw.json()["size_bytes"] == len(FILE)
    assert b"".join([part async for part in blobs.iterate(raw.json()["sha256"])]) == FILE
    form = await client.post(
        ADDRESS,
        files={"file": ("a.jsonl", FILE)},
        data={"importer": "openai"},
        headers=operator,
    )
    assert form.status_code == 202
    assert form.json() == raw.json()


async def test_the_second_upload_of_the_same_bytes_changes_nothing(
    client, acme, operator, database
):
    first = await client.post(ADDRESS, content=FILE, headers=operator)
    second = await client.post(f"{ADDRESS}?filename=other", content=FILE, headers=operator)
    assert second.json() == first.json()
    assert await count(database, SourceFile) == await count(database, Import) == 1
    listed = await client.get("/admin/tenants/acme/imports", headers=operator)
    assert listed.json() == [first.json()]


async def test_the_same_bytes_at_the_same_time_are_one_import(client, acme, operator, database):
    answers = await asyncio.gather(
        *(client.post(ADDRESS, content=FILE, headers=operator) for _ in range(6))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await count(database, SourceFile) == 1


@only_sqlite
async def test_the_same_bytes_read_in_another_way_are_another_import_of_the_same_file(
    client, acme, operator, database
):
    table = b"q,a\nhello,hi\n"
    await client.post(ADDRESS, content=table, headers=operator)
    other = await client.post(
        f"{ADDRESS}?map=question=q&map=answer=a&split=test", content=table, headers=operator
    )
    assert other.json()["options"]["mapping"] == {"question": "q", "answer": "a"}
    assert other.json()["options"]["split"] == "test"
    assert await count(database, SourceFile) == 1
    assert await count(database, Import) == 2


@only_sqlite
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("importer=excel", "importer"),
        ("map=text", "map"),
        ("map=size%3DX", "map"),
        ("split=half", "split"),
        ("dates=year-first", "dates"),
        ("order=sideways", "order"),
        ("map=private:x=perhaps", "map"),
    ],
)
async def test_options_that_make_no_sense_are_refused(client, acme, operator, query, param):
    answer = await client.post(f"{ADDRESS}?{query}", content=FILE, headers=operator)
    assert answer.status_code == 400
    assert answer.json()["param"] == param


@only_sqlite
@pytest.mark.parametrize("as_form", [False, True])
@pytest.mark.parametrize("announced", [False, True])
async def test_an_upload_above_the_limit_is_refused_in_our_own_words(
    client, acme, operator, *, settings, blobs, database, as_form, announced
):
    too_much = b"x" * (settings.max_upload_bytes + (100_000 if announced else 1))

    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(too_much), 65536):
            yield too_much[start : start + 65536]

    if as_form:
        answer = await client.post(ADDRESS, files={"file": ("a", too_much)}, headers=operator)
    else:
        content = too_much if announced else stream()
        answer = await client.post(ADDRESS, content=content, headers=operator)
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"
    assert "1,000,000 bytes" in answer.json()["detail"]
    assert [meta for batch in blobs._store.list() for meta in batch] == []
    assert await count(database, SourceFile) == 0


@only_sqlite
@pytest.mark.parametrize(
    "files",
    [
        [("field", (None, b"no file"))],
        [("file", ("a", b"1")), ("file", ("b", b"2"))],
    ],
)
async def test_a_form_holds_exactly_one_file(client, acme, operator, files, database):
    answer = await client.post(ADDRESS, files=files, headers=operator)
    assert answer.status_code == 400
    assert answer.json()["param"] == "file"
    assert await count(database, SourceFile) == 0


@only_sqlite
async def test_a_form_that_breaks_off_is_refused(client, acme, operator):
    answer = await client.post(
        ADDRESS,
        content=b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
        headers={**operator, "content-type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code == 400


async def test_an_import_stores_redacted_conversations_and_a_report(
    client, acme, operator, database, settings
):
    bad = FILE + b"not json\n" + FILE.splitlines()[0] + b"\n"
    made = await client.post(f"{ADDRESS}?filename=a.jsonl", content=bad, headers=operator)
    await importing.run_import(database, made.json()["id"], settings=settings)
    done = (
        await client.get(f"/admin/tenants/acme/imports/{made.json()['id']}", headers=operator)
    ).json()
    assert done["state"] == "done"
    assert done["error"] is None
    assert done["importer"] == "openai"
    report = done["report"]
    assert (report["read"], report["stored"], report["repeated"]) == (4, 3, 1)
    assert report["rejected"] == 1
    assert report["examples"][0]["line"] == 4
    assert report["redacted"]["EMAIL"] == 4
    async with database.reading() as session:
        rows = (await session.scalars(select(ConversationRow))).all()
    text = msgspec.json.encode([row.body for row in rows]).decode()
    assert "a@b.com" not in text
    assert "[EMAIL_1]" in text
    assert "[ORDER_1]" in text


async def test_conversations_that_a_tenant_has_already_are_counted_not_stored_again(
    client, acme, make_tenant, *, operator, database, settings
):
    more = (
        FILE
        + json.dumps(
            {
                "messages": [
                    {"role": "user", "content": "Bye"},
                    {"role": "assistant", "content": "Ciao"},
                ]
            }
        ).encode()
    )
    await make_tenant("other")
    for slug, content, stored in [("acme", FILE, 3), ("acme", more, 1), ("other", FILE, 3)]:
        made = await client.post(
            f"/admin/tenants/{slug}/transcripts", content=content, headers=operator
        )
        await importing.run_import(database, made.json()["id"], settings=settings)
        async with database.reading() as session:
            report = (await session.get_one(Import, made.json()["id"])).report
        assert report["stored"] == stored
        assert report["stored"] + report["known"] == report["read"]


async def test_running_an_import_again_changes_nothing(client, acme, operator, database, settings):
    made = await client.post(ADDRESS, content=FILE, headers=operator)
    import_id = made.json()["id"]
    await importing.run_import(database, import_id, settings=settings)
    await importing.run_import(database, import_id, settings=settings)
    assert await count(database, ConversationRow) == 3
    # a worker that was killed in the middle left it running
    async with database.transaction() as session:
        (await session.get_one(Import, import_id)).state = "running"
    await importing.run_import(database, import_id, settings=settings)
    assert await count(database, ConversationRow) == 3


async def test_a_worker_killed_while_storing_goes_on_and_counts_right(
    client, acme, operator, *, database, settings, monkeypatch
):
    monkeypatch.setattr(importing, "ROWS_AT_ONCE", 1)
    made = await client.post(ADDRESS, content=FILE, headers=operator)
    insert, calls = importing._insert, []

    async def dies(session, row, fresh) -> None:
        calls.append(fresh)
        if len(calls) == 3:
            raise KeyboardInterrupt
        await insert(session, row, fresh)

    monkeypatch.setattr(importing, "_insert", dies)
    with pytest.raises(KeyboardInterrupt):
        await importing.run_import(database, made.json()["id"], settings=settings)
    assert await count(database, ConversationRow) == 2, "others could write in between"
    monkeypatch.setattr(importing, "_insert", insert)
    await importing.run_import(database, made.json()["id"], settings=settings)
    async with database.reading() as session:
        report = (await session.get_one(Import, made.json()["id"])).report
    assert (report["stored"], report["known"]) == (3, 0)


@only_sqlite
async def test_a_file_that_nobody_can_read_fails_with_the_reason_and_may_be_sent_again(
    client, acme, operator, database, settings
):
    made = await client.post(ADDRESS, content=b"\x00\x01\x02", headers=operator)
    await importing.run_import(database, made.json()["id"], settings=settings)
    listed = (await client.get("/admin/tenants/acme/imports", headers=operator)).json()
    assert listed[0]["state"] == "failed"
    assert listed[0]["error"]["code"] == "UnknownFormat"
    again = await client.post(ADDRESS, content=b"\x00\x01\x02", headers=operator)
    assert again.json()["id"] != made.json()["id"]
    assert again.json()["state"] == "queued"


@only_sqlite
async def test_a_table_is_read_once_what_it_does_not_tell_is_said(
    client, acme, operator, database, settings
):
    table = (
        b"ticket,from,message,date,requester name,kreis\n"
        b"1,agent,We look,02/01/2031,Jane Doe,alle\n"
        b"1,agent,Lost again,02/01/2031,Jane Doe,Kollegen\n"
        b"1,customer,Jane here: where is it?,01/02/2031,Jane Doe,alle\n"
    )
    query = "filename=a.csv&map=private=kreis,private:Kollegen=yes"
    queued = await client.post(f"{ADDRESS}?{query}", content=table, headers=operator)
    await importing.run_import(database, queued.json()["id"], settings=settings)
    read = f"/admin/tenants/acme/imports/{queued.json()['id']}"
    failed = (await client.get(read, headers=operator)).json()
    assert (failed["state"], "--dates day-first" in failed["error"]["message"]) == ("failed", True)

    queued = await client.post(
        f"{ADDRESS}?{query}&dates=month-first", content=table, headers=operator
    )
    await importing.run_import(database, queued.json()["id"], settings=settings)
    read = f"/admin/tenants/acme/imports/{queued.json()['id']}"
    report = (await client.get(read, headers=operator)).json()["report"]
    assert report["roles"] == {"agent": 1, "customer": 1, "note": 1}
    assert report["speakers"] == report["roles"], "its old name"
    assert report["trimmed"] == report["partially_rejected"] == 0
    assert report["notes"]["dates"] == "month-first, as told"
    async with database.reading() as session:
        body = await session.scalar(select(ConversationRow.body))
    assert [turn["role"] for turn in body["turns"]] == ["customer", "note", "agent"]
    assert body["turns"][0]["text"] == "[NAME_1] here: where is it?"
    assert "Jane" not in json.dumps(body)


@only_sqlite
async def test_an_import_whose_upload_is_gone_fails_and_says_so(
    client, acme, operator, *, database, settings, blobs
):
    made = await client.post(ADDRESS, content=FILE, headers=operator)
    await blobs.delete(made.json()["sha256"])
    await importing.run_import(database, made.json()["id"], settings=settings)
    async with database.reading() as session:
        row = await session.get_one(Import, made.json()["id"])
    assert row.state == "failed"
    assert row.error["code"] == "blob_not_found"


TABLE = (
    b"ticket,from,message\n1,Kunde,Where is it?\n1,Desk,It left today.\n1,Bot 7,Bye.\n"
    b"2,Kunde,Is it blue?\n2,Desk,It is green.\n2,Nobody,x\n"
)


async def test_an_import_by_an_older_version_is_read_and_known_after_an_update(
    client, acme, operator, *, database, settings
):
    query = "filename=a.csv&map=role=from,role:Kunde=customer,role:Desk=agent,role:Bot 7=bot"
    made = await client.post(f"{ADDRESS}?{query}", content=TABLE, headers=operator)
    address = f"/admin/tenants/acme/imports/{made.json()['id']}"
    await importing.run_import(database, made.json()["id"], settings=settings)
    before = (await client.get(address, headers=operator)).json()
    assert before["report"]["roles"] == {"customer": 2, "agent": 2, "bot": 1}
    async with database.reading() as session:
        bodies = (await session.scalars(select(ConversationRow.body))).all()

    async with database.engine.begin() as connection:
        await connection.run_sync(lambda sync: command.downgrade(alembic_config(sync), "0004"))
        old = (await connection.execute(text("SELECT body, digest FROM conversation"))).all()
        options, report = (
            await connection.execute(text("SELECT options, report FROM import"))
        ).one()
    assert '"trimmed"' in str(report).replace("'", '"')
    assert "speaker" in str(old[0].body)
    assert "role" not in str(old[0].body)
    for stored in (options, report):
        assert "speakers" in str(stored)
        assert "roles" not in str(stored)
    await database.migrate()

    assert (await client.get(address, headers=operator)).json() == before
    async with database.reading() as session:
        rows = (await session.scalars(select(ConversationRow))).all()
    assert [row.body for row in rows] == bodies
    assert {row.digest for row in rows} == {row.digest for row in old}
    again = await client.post(f"{ADDRESS}?{query}", content=TABLE, headers=operator)
    assert again.json()["id"] == made.json()["id"], "the same file with the same options"
    more = await client.post(f"{ADDRESS}?{query}", content=TABLE + b"\n", headers=operator)
    await importing.run_import(database, more.json()["id"], settings=settings)
    address = f"/admin/tenants/acme/imports/{more.json()['id']}"
    report = (await client.get(address, headers=operator)).json()["report"]
    assert (report["stored"], report["known"]) == (0, 2)


@only_sqlite
async def test_the_old_names_of_an_imports_fields_are_taken_and_answered(client, acme, operator):
    old = "filename=a.csv&map=speaker=from&map=speaker:Kunde=customer,speaker:Desk=agent"
    made = await client.post(f"{ADDRESS}?{old}", content=TABLE, headers=operator)
    same = await client.post(
        f"{ADDRESS}?{old.replace('speaker', 'role')}", content=TABLE, headers=operator
    )
    assert same.json() == made.json()
    options = made.json()["options"]
    assert options["roles"] == options["speakers"] == {"Kunde": "customer", "Desk": "agent"}
    assert options["mapping"] == {"role": "from", "speaker": "from"}
    both = f"{ADDRESS}?map=role=from,speaker=message"
    refused = await client.post(both, content=TABLE, headers=operator)
    assert (refused.status_code, refused.json()["param"]) == (400, "map")
    assert "'role' and 'speaker', its old name" in refused.json()["detail"]


async def test_another_tenants_imports_and_datasets_are_not_there(
    client, acme, make_tenant, make_key, operator
):
    await make_tenant("other")
    made = await client.post(ADDRESS, content=FILE, headers=operator)
    key = await make_key("other", "train")
    address = f"/admin/tenants/other/imports/{made.json()['id']}"
    assert (await client.get(address, headers=key)).status_code == 404
    assert (await client.get("/admin/tenants/other/imports", headers=key)).json() == []


async def test_the_same_conversations_twice_are_one_dataset_version(
    client, acme, operator, database, settings
):
    words = [f"{letter}{letter}o{index}" for index, letter in enumerate("bcdfghjklmnpqrst")]
    lines = [
        {"messages": [{"role": "user", "content": f"What does {a} mean beside {b}, {b} and {c}?"},
                      {"role": "assistant", "content": f"{c} stands for {a}; {b} follows {c}."}]}
        for a, b, c in zip(words, words[3:] + words[:3], words[7:] + words[:7], strict=True)
    ]  # fmt: skip
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    made = await client.post(ADDRESS, content=content, headers=operator)
    await importing.run_import(database, made.json()["id"], settings=settings)
    first = await creation.create_version(database, acme.id, settings=settings)
    second = await creation.create_version(database, acme.id, settings=settings)
    assert first.id == second.id
    assert (settings.datasets / first.sha256 / "train.jsonl").stat().st_size > 0
    listed = (await client.get("/admin/tenants/acme/datasets", headers=operator)).json()
    assert [row["sha256"] for row in listed] == [first.sha256]
    read = await client.get(f"/admin/tenants/acme/datasets/{first.sha256}", headers=operator)
    assert read.json() == listed[0]


@only_sqlite
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"conversation,role,text\n", "no conversation"),
        (b'{"messages": [{"role": "wizard", "content": "x"}]}\n', "1 bad_role"),
    ],
)
async def test_a_file_of_which_nothing_could_be_used_fails_with_the_reasons(
    client, acme, operator, *, database, settings, data, says
):
    queued = await client.post(ADDRESS, content=data, headers=operator)
    assert queued.status_code == 202
    await importing.run_import(database, queued.json()["id"], settings=settings)
    address = f"/admin/tenants/acme/imports/{queued.json()['id']}"
    seen = (await client.get(address, headers=operator)).json()
    assert seen["state"] == "failed"
    assert seen["error"]["code"] == "nothing_usable"
    assert says in seen["error"]["message"]
    assert seen["report"]["read"] == 0
    assert await count(database, ConversationRow) == 0
    again = await client.post(ADDRESS, content=data, headers=operator)
    assert again.json()["id"] != queued.json()["id"], "it may be tried again"
