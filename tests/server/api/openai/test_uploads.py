"""``/v1/uploads``: files in parts."""

import asyncio
import datetime
import hashlib
import re
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError
from sqlalchemy import func, select, update

from server.cleanup import Cleaner
from server.db.models import File, Upload, UploadPart, now
from server.files import uploads
from tests.server.api.openai.published import conforms

CONTENT = bytes(range(256)) * 1000
only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def key(make_tenant, make_key) -> str:
    await make_tenant("acme")
    made = await make_key("acme", "train")
    raw: str = made["authorization"].removeprefix("Bearer ")
    return raw


@pytest.fixture
def openai(client, key) -> AsyncOpenAI:
    """The official client, over ASGI, without its repetitions."""
    return AsyncOpenAI(api_key=key, base_url="http://test/v1", http_client=client, max_retries=0)


def blobs_in(blobs) -> list[str]:
    return [meta["path"] for batch in blobs._store.list() for meta in batch]


async def count(database, table: Any) -> int:
    async with database.reading() as session:
        found: int = await session.scalar(select(func.count()).select_from(table))
        return found


async def begin(openai, size: int = len(CONTENT), **fields: Any) -> Any:
    return await openai.uploads.create(
        **{
            "bytes": size,
            "filename": "a.jsonl",
            "mime_type": "text/jsonl",
            "purpose": "fine-tune",
            **fields,
        }
    )


async def add(openai, upload: Any, *parts: bytes) -> list[str]:
    return [(await openai.uploads.parts.create(upload.id, data=part)).id for part in parts]


async def test_the_official_client_uploads_in_chunks(openai, tmp_path, blobs, database):
    path = tmp_path / "train.jsonl"
    path.write_bytes(CONTENT)
    done = await openai.uploads.upload_file_chunked(
        file=path,
        mime_type="text/jsonl",
        purpose="fine-tune",
        part_size=100_000,
        md5=hashlib.md5(CONTENT).hexdigest().upper(),
    )
    assert done.status == "completed"
    assert done.file.filename == "train.jsonl"
    assert done.file.bytes == len(CONTENT)
    assert (await openai.files.content(done.file.id)).content == CONTENT
    assert [file.id async for file in openai.files.list()] == [done.file.id]
    assert await count(database, UploadPart) == 0
    assert len(blobs_in(blobs)) == 1  # the parts went


@only_sqlite
async def test_answers_are_what_openai_publishes(client, openai):
    raw = openai.uploads.with_raw_response
    upload = (await raw.create(bytes=1, filename="a", mime_type="b", purpose="batch")).http_response
    conforms(upload.json(), "Upload")
    assert upload.json()["file"] is None
    upload_id = upload.json()["id"]
    part = await openai.uploads.parts.with_raw_response.create(upload_id, data=b"x")
    conforms(part.http_response.json(), "UploadPart")
    done = (await raw.complete(upload_id, part_ids=[part.http_response.json()["id"]])).http_response
    body = done.json()
    kept = body["file"]["expires_at"] - body["file"]["created_at"]
    assert kept == 30 * 24 * 3600  # batch
    del body["file"]["status_details"]  # null, which the published schema forgets
    conforms(body, "Upload")


async def test_parts_are_put_together_in_the_order_asked_for(openai):
    upload = await begin(openai, 6, expires_after={"anchor": "created_at", "seconds": 7200})
    added = await asyncio.gather(
        *(add(openai, upload, part) for part in (b"c", b"ab", b"a", b"bc"))
    )
    first, second, third, fourth = (part for (part,) in added)
    done = await openai.uploads.complete(upload.id, part_ids=[second, first, third, fourth])
    assert (await openai.files.content(done.file.id)).content == b"abcabc"
    assert done.file.expires_at == done.file.created_at + 7200


async def test_equal_parts_follow_one_another(openai, blobs):
    upload = await begin(openai, 4)
    parts = await add(openai, upload, b"xx", b"xx")
    assert len(set(parts)) == 2
    done = await openai.uploads.complete(upload.id, part_ids=parts)
    assert (await openai.files.content(done.file.id)).content == b"xxxx"
    assert len(blobs_in(blobs)) == 1


async def test_completing_twice_is_the_same_file_even_at_once(openai, database):
    upload = await begin(openai, 4)
    parts = await add(openai, upload, b"ab", b"cd")
    answers = await asyncio.gather(
        *(openai.uploads.complete(upload.id, part_ids=parts) for _ in range(6))
    )
    assert len({done.file.id for done in answers}) == 1
    assert await openai.uploads.complete(upload.id, part_ids=parts) == answers[0]
    assert await count(database, File) == 1
    assert (await openai.files.content(answers[0].file.id)).content == b"abcd"
    with pytest.raises(BadRequestError, match="is completed"):
        await openai.uploads.complete(upload.id, part_ids=parts[::-1])
    with pytest.raises(BadRequestError, match="is completed"):
        await openai.uploads.cancel(upload.id)
    with pytest.raises(BadRequestError, match="is completed"):
        await add(openai, upload, b"late")
    right = hashlib.md5(b"abcd").hexdigest()
    assert await openai.uploads.complete(upload.id, part_ids=parts, md5=right) == answers[0]
    with pytest.raises(BadRequestError, match=right) as caught:
        await openai.uploads.complete(upload.id, part_ids=parts, md5="0" * 32)
    assert caught.value.param == "md5"
    await openai.files.delete(answers[0].file.id)
    for md5 in (right, "0" * 32):  # nothing is left that could contradict
        again = await openai.uploads.complete(upload.id, part_ids=parts, md5=md5)
        assert again.file is None


@only_sqlite
async def test_what_does_not_fit_is_told_and_may_be_mended(openai, database, blobs):
    upload, foreign = await begin(openai, 4), await begin(openai, 4)
    parts = await add(openai, upload, b"ab", b"cd")
    theirs = await add(openai, foreign, b"ab")
    for part_ids, what in [
        (parts[:1], "hold 2 bytes; 4 were announced"),
        ([parts[0], parts[0]], "named twice"),
        ([parts[0], *theirs], f"no part '{theirs[0]}'"),
        (["part_none", *parts], "no part 'part_none'"),
        ([], "part_ids"),
    ]:
        with pytest.raises(BadRequestError, match=what) as caught:
            await openai.uploads.complete(upload.id, part_ids=part_ids)
        assert caught.value.param == "part_ids"
    for md5 in ("0" * 32, "no md5"):
        with pytest.raises(BadRequestError) as caught:
            await openai.uploads.complete(upload.id, part_ids=parts, md5=md5)
        assert caught.value.param == "md5"
    assert await count(database, File) == 0
    assert len(blobs_in(blobs)) == 2  # the parts; what was put together went
    await openai.uploads.complete(upload.id, part_ids=parts)


async def test_cancelling_throws_the_parts_away(openai, blobs, database):
    upload = await begin(openai, 4)
    parts = await add(openai, upload, b"abcd")
    gone = await openai.uploads.cancel(upload.id)
    assert gone.status == "cancelled"
    assert await openai.uploads.cancel(upload.id) == gone
    assert await count(database, UploadPart) == 0
    assert blobs_in(blobs) == []
    for late in (
        openai.uploads.complete(upload.id, part_ids=parts),
        openai.uploads.parts.create(upload.id, data=b"abcd"),
    ):
        with pytest.raises(BadRequestError, match="is cancelled"):
            await late


async def test_an_upload_that_is_too_old_is_closed_and_swept(openai, database, blobs):
    upload = await begin(openai, 4)
    parts = await add(openai, upload, b"abcd")
    await _age(database, datetime.timedelta(hours=1))
    with pytest.raises(BadRequestError, match="is expired"):
        await openai.uploads.complete(upload.id, part_ids=parts)
    sweeper = Cleaner(database, blobs)
    await sweeper.clean_up()
    assert await count(database, UploadPart) == 0
    assert blobs_in(blobs) == []
    with pytest.raises(BadRequestError, match="is expired"):
        await openai.uploads.complete(upload.id, part_ids=parts)
    await _age(database, datetime.timedelta(hours=24))
    await sweeper.clean_up()
    assert await count(database, Upload) == 0


@only_sqlite
async def test_cancelled_while_it_is_put_together_it_makes_no_file(
    openai, database, blobs, monkeypatch
):
    upload = await begin(openai, 4)
    parts = await add(openai, upload, b"ab", b"cd")
    iterate = blobs.iterate

    async def cancel_first(sha256: str):
        monkeypatch.setattr(blobs, "iterate", iterate)
        async for chunk in iterate(sha256):
            yield chunk
        await openai.uploads.cancel(upload.id)

    monkeypatch.setattr(blobs, "iterate", cancel_first)
    with pytest.raises(BadRequestError, match="is cancelled"):
        await openai.uploads.complete(upload.id, part_ids=parts)
    assert await count(database, File) == 0
    assert blobs_in(blobs) == []


async def test_a_part_that_comes_while_the_upload_is_closed_is_refused(openai, database, key):
    upload = await begin(openai, 4)
    async with asyncio.TaskGroup() as group, database.transaction() as session:
        row = await session.scalar(select(Upload).with_for_update())
        late = group.create_task(_refused(add(openai, upload, b"abcd")))
        await asyncio.sleep(0.1)  # lets it come to wait for us
        row.state = "cancelled"
    assert "is cancelled" in late.result()
    assert await count(database, UploadPart) == 0


@only_sqlite
async def test_parts_whose_bytes_were_lost_make_no_file(openai, database, blobs):
    upload = await begin(openai, 4)
    parts = await add(openai, upload, b"abcd")
    await blobs.delete(hashlib.sha256(b"abcd").hexdigest())
    with pytest.raises(NotFoundError):
        await openai.uploads.complete(upload.id, part_ids=parts)
    assert await count(database, File) == 0


@only_sqlite
async def test_bounds(openai, settings, monkeypatch):
    for fields, param in [
        ({"size": 0}, "bytes"),
        ({"size": settings.max_upload_bytes + 1}, "bytes"),
        ({"filename": ""}, "filename"),
        ({"mime_type": "x" * 300}, "mime_type"),
        ({"purpose": "fun"}, "purpose"),
        ({"extra_body": {"colour": 1}}, "colour"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, "expires_after.seconds"),
    ]:
        with pytest.raises(BadRequestError) as caught:
            await begin(openai, **fields)
        assert caught.value.param == param
    upload = await begin(openai, 4)
    with pytest.raises(BadRequestError, match="is empty"):
        await add(openai, upload, b"")
    await add(openai, upload, b"1234", b"1234")  # the answer to the first was lost
    with pytest.raises(BadRequestError, match="announced with 4 bytes"):
        await add(openai, upload, b"1")
    monkeypatch.setattr(uploads, "MAX_PART_BYTES", 10)
    with pytest.raises(APIStatusError, match="larger than 10 bytes") as refused:
        await add(openai, upload, b"x" * 11)
    assert refused.value.status_code == 413


@only_sqlite
async def test_another_tenants_upload_answers_like_one_that_never_existed(
    client, openai, make_tenant, make_key
):
    await make_tenant("other")
    raw = (await make_key("other", "train"))["authorization"].removeprefix("Bearer ")
    theirs = AsyncOpenAI(api_key=raw, base_url="http://test/v1", http_client=client, max_retries=0)
    upload = await begin(openai, 4)
    for upload_id in (upload.id, f"upload_{'0' * 32}", "x"):
        for call in (
            theirs.uploads.parts.create(upload_id, data=b"abcd"),
            theirs.uploads.complete(upload_id, part_ids=["part_1"]),
            theirs.uploads.cancel(upload_id),
        ):
            with pytest.raises(
                NotFoundError, match=re.escape(f"No such Upload object: {upload_id}")
            ):
                await call


async def _refused(call: Any) -> str:
    with pytest.raises(BadRequestError) as caught:
        await call
    return str(caught.value)


async def _age(database, by: datetime.timedelta) -> None:
    async with database.transaction() as session:
        await session.execute(update(Upload).values(expires_at=now() - by))
