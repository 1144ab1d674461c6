"""``/v1/files``: by the official client, and by what no official client does."""

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
import pytest_asyncio
from httpx2 import ASGITransport, AsyncClient
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from sqlalchemy import func, select, update

from server.app import create_app
from server.cleanup import Cleaner
from server.db.models import File, Record, SourceFile, now
from server.storage import references
from server.storage.blobs import BlobStore
from tests.server.api.openai.published import conforms
from tests.server.conftest import running

LINES = b'{"messages": []}\n' * 3
FRESH = {"x-stainless-retry-count": "0"}  # as the official clients say of a first try
only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest_asyncio.fixture
async def key(make_tenant, make_key) -> dict[str, str]:
    await make_tenant("acme")
    made: dict[str, str] = await make_key("acme", "train")
    return {**made, **FRESH}


@pytest_asyncio.fixture
async def other(make_tenant, make_key) -> dict[str, str]:
    await make_tenant("other")
    made: dict[str, str] = await make_key("other", "train")
    return {**made, **FRESH}


@pytest.fixture
def openai(client, key) -> Callable[..., AsyncOpenAI]:
    """The official client, over ASGI, without its repetitions."""

    def make(headers: dict[str, str] = key, **options: Any) -> AsyncOpenAI:
        raw = headers["authorization"].removeprefix("Bearer ")
        return AsyncOpenAI(
            api_key=raw,
            base_url="http://test/v1",
            http_client=client,
            **{"max_retries": 0, **options},
        )

    return make


async def send(client, headers, content: bytes = LINES, name: str = "a.jsonl", **fields) -> Any:
    data = {"purpose": "fine-tune", **fields}
    return await client.post(
        "/v1/files", files={"file": (name, content)}, data=data, headers=headers
    )


async def count(database, table: Any = File) -> int:
    async with database.reading() as session:
        found: int = await session.scalar(select(func.count()).select_from(table))
        return found


def blobs_in(blobs) -> list[str]:
    return [meta["path"] for batch in blobs._store.list() for meta in batch]


def without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's answers have nulls where its schemas forget that they may."""
    return {name: item for name, item in value.items() if item is not None}


async def test_the_official_client_uploads_looks_reads_and_deletes(openai, blobs, database):
    files = openai().files
    made = await files.create(file=("train.jsonl", LINES), purpose="fine-tune")
    assert (made.filename, made.bytes, made.purpose) == ("train.jsonl", len(LINES), "fine-tune")
    assert made.status == "processed"
    assert made.expires_at is None
    assert await files.retrieve(made.id) == made
    assert (await files.content(made.id)).content == LINES
    assert (await files.wait_for_processing(made.id)) == made
    gone = await files.delete(made.id)
    assert (gone.id, gone.deleted, gone.object) == (made.id, True, "file")
    with pytest.raises(NotFoundError, match=f"No such File object: {made.id}"):
        await files.retrieve(made.id)
    assert await count(database) == 0
    assert blobs_in(blobs) == []


@only_sqlite
async def test_answers_are_what_openai_publishes(client, key):
    made = (await send(client, key)).json()
    assert set(made) == {
        "id",
        "object",
        "bytes",
        "created_at",
        "expires_at",
        "filename",
        "purpose",
        "status",
        "status_details",
    }
    conforms(without_nulls(made), "OpenAIFile")
    listed = (await client.get("/v1/files", headers=key)).json()
    conforms({**listed, "data": [without_nulls(made)]}, "ListFilesResponse")
    assert listed["data"] == [made]
    gone = (await client.delete(f"/v1/files/{made['id']}", headers=key)).json()
    conforms(gone, "DeleteFileResponse")


@only_sqlite
@pytest.mark.parametrize(
    "purpose", ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
)
async def test_every_published_purpose_is_taken(openai, purpose):
    made = await openai().files.create(file=b"x", purpose=purpose)
    assert made.purpose == purpose
    kept = made.expires_at and made.expires_at - made.created_at
    assert kept == (30 * 24 * 3600 if purpose == "batch" else None)


@only_sqlite
async def test_fields_may_come_behind_the_file_and_say_when_it_expires(openai, client, key):
    made = await openai().files.create(
        file=b"x", purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == made.created_at + 3600
    parts = [
        ("file", ("../../etc\\name.jsonl", b"y")),
        ("expires_after[seconds]", (None, "3601")),
        ("expires_after[anchor]", (None, "created_at")),
        ("purpose", (None, "vision")),
    ]
    answer = await client.post("/v1/files", files=parts, headers=key)
    assert answer.status_code == 200, answer.text
    assert answer.json()["filename"] == "name.jsonl"
    assert answer.json()["expires_at"] == answer.json()["created_at"] + 3601


@only_sqlite
@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([("file", ("a", b"x"))], "purpose"),
        ([("purpose", (None, "fine-tune"))], "file"),
        ([("purpose", (None, "fine-tune")), ("file", ("a", b""))], "file"),
        ([("purpose", (None, "fun")), ("file", ("a", b"x"))], "purpose"),
        ([("purpose", (None, "batch")), ("purpose", (None, "batch")), ("file", ("a", b"x"))],
         "purpose"),
        ([("purpose", (None, "batch")), ("colour", (None, "red")), ("file", ("a", b"x"))],
         "colour"),
        ([("purpose", (None, "batch")), ("upload", ("a", b"x"))], "upload"),
        ([("purpose", (None, "batch")), ("file", ("a", b"x")), ("file", ("b", b"x"))], "file"),
        ([("purpose", (None, "batch")), ("file", ("a", b"x")),
          ("expires_after[anchor]", (None, "created_at")),
          ("expires_after[seconds]", (None, "3599"))], "expires_after.seconds"),
        ([("purpose", (None, "batch")), ("file", ("a", b"x")),
          ("expires_after[seconds]", (None, "3600"))], "expires_after.anchor"),
        ([("purpose", (None, "batch")), ("file", ("a", b"x")),
          ("expires_after", (None, "1")), ("expires_after[seconds]", (None, "3600"))],
         "expires_after[seconds]"),
    ],
)  # fmt: skip
async def test_a_form_that_makes_no_sense_names_the_part_and_leaves_nothing(
    client, key, database, *, blobs, parts, param
):
    answer = await client.post("/v1/files", files=parts, headers=key)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert set(error) == {"message", "type", "param", "code"}
    assert await count(database) == 0
    assert blobs_in(blobs) == []


@only_sqlite
async def test_a_filename_that_is_not_utf_8_is_refused_in_our_own_words(client, key):
    body = (
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="\xff.txt"\r\n\r\na\r\n--x--'
    )
    headers = {**key, "content-type": "multipart/form-data; boundary=x"}
    answer = await client.post("/v1/files", content=body, headers=headers)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "file"
    assert error["message"].endswith(
        "The form could not be read: the name of a part or of its file is not UTF-8."
    )


@only_sqlite
async def test_what_is_no_form_is_refused_before_it_is_read(client, key):
    answer = await client.post("/v1/files", json={"purpose": "fine-tune"}, headers=key)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "file"


@only_sqlite
@pytest.mark.parametrize("announced", [True, False])
async def test_a_file_above_the_limit_is_refused_and_leaves_nothing(
    client, key, database, *, blobs, settings, announced
):
    start = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    )
    whole = start + b"a" * (settings.max_upload_bytes + 1) + b"\r\n--x--\r\n"

    async def stream() -> AsyncIterator[bytes]:
        yield whole

    answer = await client.post(
        "/v1/files",
        content=whole + b" " * 100_000 if announced else stream(),
        headers={**key, "content-type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
    assert await count(database) == 0
    assert blobs_in(blobs) == []


@only_sqlite
async def test_lists_are_paged_both_ways_and_filtered(openai):
    files = openai().files
    made = []
    for index in range(5):
        purpose = "batch" if index == 2 else "fine-tune"
        made.append((await files.create(file=f"{index}".encode(), purpose=purpose)).id)
        await asyncio.sleep(0.002)  # ids sort by the millisecond
    assert [file.id async for file in files.list()] == made[::-1]
    assert [file.id async for file in files.list(limit=2)] == made[::-1]
    assert [file.id async for file in files.list(limit=2, order="asc")] == made
    assert [file.id async for file in files.list(purpose="batch")] == [made[2]]
    page = await files.list(limit=2)
    assert page.has_more
    await files.delete(made[3])  # the cursor itself may go
    assert [file.id async for file in files.list(limit=2, after=made[3])] == made[2::-1]
    assert not (await files.list(after=made[0])).data
    for wrong in ({"limit": 0}, {"limit": 10_001}, {"order": "up"}, {"after": "x"}):
        with pytest.raises(BadRequestError) as caught:
            await files.list(**wrong)
        assert caught.value.param == next(iter(wrong))


@only_sqlite
async def test_content_is_never_shown_as_a_page(client, key):
    made = (await send(client, key, b"<script>", 'ü"; x=y.html', purpose="user_data")).json()
    answer = await client.get(f"/v1/files/{made['id']}/content", headers=key)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-length"] == "8"
    told = answer.headers["content-disposition"]
    assert told == "attachment; filename*=UTF-8''%C3%BC%22%3B%20x%3Dy.html"


@only_sqlite
async def test_content_larger_than_a_chunk_comes_back_whole(client, key):
    content = bytes(range(256)) * 3900  # just below the limit of these tests, a megabyte
    made = (await send(client, key, content)).json()
    answer = await client.get(f"/v1/files/{made['id']}/content", headers=key)
    assert answer.content == content


@only_sqlite
async def test_a_store_that_is_no_folder_does_as_well(settings, database, key):
    blobs = BlobStore.open("memory://")
    app = create_app(settings, database=database, blobs=blobs)
    transport = ASGITransport(app=cast("Any", app))
    async with running(app), AsyncClient(transport=transport, base_url="http://test") as client:
        made = (await send(client, key)).json()["id"]
        answer = await client.get(f"/v1/files/{made}/content", headers=key)
        assert answer.content == LINES
        await client.delete(f"/v1/files/{made}", headers=key)
    assert blobs_in(blobs) == []


@only_sqlite
async def test_another_tenants_file_answers_like_one_that_never_existed(client, key, other):
    made = (await send(client, key)).json()["id"]
    never = f"file-{'0' * 32}"
    for method, path in [("GET", ""), ("GET", "/content"), ("DELETE", "")]:
        answers = [
            await client.request(method, f"/v1/files/{name}{path}", headers=other)
            for name in (made, never)
        ]
        assert {answer.status_code for answer in answers} == {404}
        texts = [
            answer.text.replace(name, "")
            for answer, name in zip(answers, (made, never), strict=True)
        ]
        assert texts[0] == texts[1]
    assert (await client.get("/v1/files", headers=other)).json()["data"] == []


@only_sqlite
async def test_keys_need_the_scope_and_a_tenant(client, key, make_key, operator):
    chat = await make_key("acme", "chat")
    assert (await client.get("/v1/files", headers=chat)).status_code == 403
    assert (await client.get("/v1/files", headers=operator)).status_code == 403
    assert (await client.get("/v1/files")).status_code == 401


async def test_equal_bytes_of_two_tenants_stay_until_both_are_gone(
    client, key, other, *, database, blobs
):
    first = (await send(client, key)).json()["id"]
    second = (await send(client, other)).json()["id"]
    assert len(blobs_in(blobs)) == 1
    await client.delete(f"/v1/files/{first}", headers=key)
    answer = await client.get(f"/v1/files/{second}/content", headers=other)
    assert answer.content == LINES
    await client.delete(f"/v1/files/{second}", headers=other)
    assert blobs_in(blobs) == []


async def test_a_deleted_file_leaves_the_transcripts_of_the_same_bytes(
    client, key, operator, *, database, blobs
):
    made = (await send(client, key)).json()["id"]
    await client.post("/admin/tenants/acme/transcripts", content=LINES, headers=operator)
    assert await count(database, SourceFile) == 1
    await client.delete(f"/v1/files/{made}", headers=key)
    assert len(blobs_in(blobs)) == 1


async def test_a_deleted_tenants_files_go_except_what_others_have(
    client, key, other, *, operator, blobs
):
    await send(client, key, b"own")
    await send(client, key, b"shared")
    kept = (await send(client, other, b"shared")).json()["id"]
    assert len(blobs_in(blobs)) == 2
    assert (await client.delete("/admin/tenants/acme", headers=operator)).status_code == 204
    assert len(blobs_in(blobs)) == 1
    answer = await client.get(f"/v1/files/{kept}/content", headers=other)
    assert answer.content == b"shared"


async def test_no_file_that_was_acknowledged_loses_its_bytes_to_a_deletion(
    client, key, other, *, database
):
    """Two tenants send and delete the same bytes over and over."""

    async def send_and_delete(headers: dict[str, str]) -> None:
        for _ in range(8):
            made = await send(client, headers)
            if made.status_code == 503:  # deleted at the same moment: told, not kept
                assert made.headers["retry-after"] == "1"
                continue
            address = f"/v1/files/{made.json()['id']}"
            content = await client.get(f"{address}/content", headers=headers)
            assert (content.status_code, content.content) == (200, LINES)
            await client.delete(address, headers=headers)

    await asyncio.gather(*(send_and_delete(headers) for headers in (key, other) for _ in range(3)))
    assert await count(database) == 0


@only_sqlite
async def test_a_tenant_that_goes_in_the_middle_of_its_upload_leaves_nothing(
    client, key, database, *, blobs, operator, monkeypatch
):
    put = blobs.put_stream

    async def put_and_remove(*args: Any, **kwargs: Any) -> Any:
        await client.delete("/admin/tenants/acme", headers=operator)
        return await put(*args, **kwargs)

    monkeypatch.setattr(blobs, "put_stream", put_and_remove)
    answer = await send(client, key)
    assert answer.status_code == 404
    assert await count(database) == 0
    assert blobs_in(blobs) == []


async def test_bytes_deleted_between_their_storing_and_their_row_are_asked_for_again(
    client, key, database, *, blobs, monkeypatch
):
    """The closest race there is: the last owner goes when the newcomer's bytes were found known."""
    first = (await send(client, key)).json()["id"]
    put = blobs.put_stream

    async def put_and_delete(*args: Any, **kwargs: Any) -> Any:
        stored = await put(*args, **kwargs)
        monkeypatch.setattr(blobs, "put_stream", put)
        await client.delete(f"/v1/files/{first}", headers=key)
        return stored

    monkeypatch.setattr(blobs, "put_stream", put_and_delete)
    answer = await send(client, key)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert await count(database) == 0
    assert (await send(client, key)).status_code == 200
    assert len(blobs_in(blobs)) == 1


async def test_a_row_that_comes_while_a_discard_waits_keeps_its_bytes(database, blobs, make_tenant):
    """The other order: the newcomer holds the bytes, the deletion comes second."""
    tenant = await make_tenant("acme")
    sha256, _ = await blobs.put_stream(_once(b"x"), max_bytes=9)
    async with asyncio.TaskGroup() as group, database.transaction() as session:
        await references.acquire_reference(session, blobs, sha256)
        discard = group.create_task(references.delete_if_unreferenced(database, blobs, sha256))
        await asyncio.sleep(0.05)  # lets it come to wait; it must not end before us
        assert not discard.done()
        session.add(
            File(tenant_id=tenant.id, sha256=sha256, size_bytes=1, filename="a", purpose="batch")
        )
    assert discard.result() is False
    assert await blobs.exists(sha256)


async def test_an_expired_file_is_gone_at_once_and_swept_later(
    client, key, other, *, database, blobs
):
    made = (await send(client, key, b"mine")).json()["id"]
    shared = (await send(client, key)).json()["id"]
    await send(client, other)
    async with database.transaction() as session:
        ids = [name.removeprefix("file-") for name in (made, shared)]
        past = now() - datetime.timedelta(seconds=1)
        await session.execute(update(File).where(File.id.in_(ids)).values(expires_at=past))
    assert (await client.get("/v1/files", headers=key)).json()["data"] == []
    for path in (f"/v1/files/{made}", f"/v1/files/{made}/content"):
        assert (await client.get(path, headers=key)).status_code == 404
    assert (await client.delete(f"/v1/files/{made}", headers=key)).status_code == 404
    assert len(blobs_in(blobs)) == 2
    await Cleaner(database, blobs).clean_up()
    assert await count(database) == 1
    assert len(blobs_in(blobs)) == 1  # the other tenant's


async def test_bytes_that_no_row_knows_are_swept_when_they_are_old(
    client, key, database, *, blobs, settings, tmp_path
):
    kept = (await send(client, key)).json()["id"]
    await blobs.put_stream(_once(b"of a server that was killed"), max_bytes=99)
    half = tmp_path / "blobs" / "incoming" / "0#1"
    half.write_bytes(b"half")
    sweeper = Cleaner(database, blobs)
    await sweeper.sweep_orphans()
    assert len(blobs_in(blobs)) == 2
    assert half.exists()
    await sweeper.sweep_orphans(datetime.timedelta(seconds=-1))
    assert len(blobs_in(blobs)) == 1
    assert not half.exists()
    answer = await client.get(f"/v1/files/{kept}/content", headers=key)
    assert answer.content == LINES


def test_every_table_whose_rows_have_bytes_is_asked_before_bytes_go():
    tables = {
        table
        for table in Record.__subclasses__()
        if {"sha256", "size_bytes"} <= set(table.__table__.columns.keys())
    }
    assert tables == set(references.REFERRERS)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
