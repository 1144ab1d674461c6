"""Requests that clients repeat have their effect once."""

import asyncio
import datetime
from collections.abc import Callable
from typing import Any, cast

import pytest
from httpx2 import ASGITransport, AsyncClient, ReadError
from openai import AsyncOpenAI
from sqlalchemy import func, select

from server.api.openai import idempotency
from server.app import create_app
from server.cleanup import Cleaner
from server.db.models import File, IdempotentRequest, Upload, UploadPart, now
from server.db.session import Database
from tests.server.conftest import running

LINES = b'{"messages": []}\n' * 3
RETRY = "x-stainless-retry-count"
only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def key(make_tenant, make_key) -> dict[str, str]:
    await make_tenant("acme")
    made: dict[str, str] = await make_key("acme", "train")
    return made


@pytest.fixture
def send(client, key) -> Callable[..., Any]:
    """Send a file with some headers; returns the answer."""

    async def post(content: bytes = LINES, purpose: str = "fine-tune", **headers: str) -> Any:
        return await client.post(
            "/v1/files",
            files={"file": ("a.jsonl", content)},
            data={"purpose": purpose},
            headers={**key, **{name.replace("_", "-"): text for name, text in headers.items()}},
        )

    return post


async def count(database, table: Any = File) -> int:
    async with database.reading() as session:
        found: int = await session.scalar(select(func.count()).select_from(table))
        return found


async def age(database, by: datetime.timedelta) -> None:
    """Let time pass for every record."""
    async with database.transaction() as session:
        for row in await session.scalars(select(IdempotentRequest)):
            assert row.answer is not None
            row.answer = {**row.answer, "at": row.answer["at"] - by.total_seconds()}
            row.expires_at -= by


def same(first: Any, second: Any) -> bool:
    """Whether the second is the first answer again."""
    assert first.status_code == second.status_code == 200
    assert "idempotent-replayed" not in first.headers
    again: bool = second.content == first.content
    assert second.headers.get("idempotent-replayed", "false") == str(again).lower()
    return again


async def test_a_key_gives_the_stored_answer_byte_for_byte(send, database):
    first = await send(idempotency_key="k-1")
    assert same(first, await send(idempotency_key="k-1"))
    assert same(first, await send(idempotency_key="k-1", **{RETRY: "0"}))
    assert not same(first, await send(idempotency_key="k-2"))
    assert await count(database) == 2


async def test_a_key_with_another_request_is_refused_for_good(send, client, key, database):
    await send(idempotency_key="k")
    other = {"bytes": 1, "filename": "a", "mime_type": "b", "purpose": "batch"}
    for answer in (
        await send(b"other", idempotency_key="k"),
        await send(purpose="batch", idempotency_key="k"),
        await client.post("/v1/uploads", json=other, headers={**key, "idempotency-key": "k"}),
    ):
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "idempotency_key_reused"
        assert answer.headers["x-should-retry"] == "false"
    assert await count(database) == 1


@only_sqlite
@pytest.mark.parametrize("wrong", ["", "x" * 256, "a\tb"])
async def test_a_key_has_bounds(send, wrong):
    answer = await send(idempotency_key=wrong)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Idempotency-Key"


@only_sqlite
async def test_the_same_key_of_two_api_keys_is_two(client, send, make_key, key):
    other = await make_key("acme", "train")
    first = await send(idempotency_key="k")
    assert not same(first, await send(idempotency_key="k", authorization=other["authorization"]))


@only_sqlite
async def test_a_refused_request_may_be_mended_under_its_key(send, database):
    assert (await send(purpose="fun", idempotency_key="k")).status_code == 400
    assert (await send(idempotency_key="k")).status_code == 200
    assert await count(database) == 1


@only_sqlite
async def test_a_key_is_forgotten_after_a_day(send, database, blobs):
    first = await send(idempotency_key="k")
    await age(database, datetime.timedelta(hours=23, minutes=59))
    assert same(first, await send(idempotency_key="k"))
    await Cleaner(database, blobs).clean_up()
    assert await count(database, IdempotentRequest) == 1
    await age(database, datetime.timedelta(minutes=1))
    assert not same(first, await send(b"other", idempotency_key="k"))  # expired, not yet swept
    await age(database, datetime.timedelta(hours=24))
    await Cleaner(database, blobs).clean_up()
    assert await count(database, IdempotentRequest) == 0


async def test_a_repetition_of_an_official_client_is_recognised_for_ten_minutes(send, database):
    first = await send(**{RETRY: "0"})
    assert same(first, await send(**{RETRY: "1"}))
    assert same(first, await send(**{RETRY: "2"}))
    assert not same(first, await send(b"other", **{RETRY: "1"}))
    assert not same(first, await send(purpose="batch", **{RETRY: "1"}))
    await age(database, datetime.timedelta(minutes=10, seconds=1))
    assert not same(first, await send(**{RETRY: "1"}))


async def test_a_first_try_is_a_new_request_and_its_repetition_is_of_it(send, database):
    first = await send(**{RETRY: "0"})
    second = await send(**{RETRY: "0"})
    assert not same(first, second)
    assert same(second, await send(**{RETRY: "1"}))
    assert await count(database) == 2


async def test_who_does_not_count_repetitions_has_a_minute(send, database):
    first = await send()
    assert same(first, await send())
    await age(database, datetime.timedelta(seconds=61))
    assert not same(first, await send())


@only_sqlite
async def test_a_deleted_file_is_made_anew(client, send, key):
    first = await send()
    await client.delete(f"/v1/files/{first.json()['id']}", headers=key)
    second = await send()
    assert not same(first, second)
    assert same(second, await send())


async def test_ten_repetitions_at_once_are_one_file(send, database):
    answers = await asyncio.gather(*(send(**{RETRY: "1"}) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 9
    assert await count(database) == 1
    answers = await asyncio.gather(*(send(idempotency_key="k") for _ in range(10)))
    assert len({answer.content for answer in answers}) == 1
    assert await count(database) == 2


async def test_a_first_try_that_its_repetition_overtook_does_not_double_it(
    send, blobs, monkeypatch, database
):
    """The client gave up waiting; its second try was faster to the database than the first."""
    put = blobs.put_stream
    repeated: list[Any] = []

    async def put_slowly(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(blobs, "put_stream", put)
        stored = await put(*args, **kwargs)
        repeated.append(await send(**{RETRY: "1"}))
        return stored

    monkeypatch.setattr(blobs, "put_stream", put_slowly)
    first = await send(**{RETRY: "0"})
    assert first.content == repeated[0].content
    assert await count(database) == 1
    assert not same(repeated[0], await send(**{RETRY: "0"}))


async def test_an_answer_lost_with_the_server_is_given_again_by_the_next(
    app, key, settings, database
):
    """The first server dies between its commit and its answer."""

    class Killed(BaseException):
        pass

    def form() -> dict[str, Any]:
        return {"files": {"file": ("a.jsonl", LINES)}, "data": {"purpose": "fine-tune"}}

    async def deaf(scope: Any, receive: Any, _send: Any) -> None:
        async def die(_message: Any) -> None:
            raise Killed

        await app(scope, receive, die)

    async with running(app):
        transport = ASGITransport(app=cast("Any", deaf))
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            with pytest.raises(Killed):
                await client.post("/v1/files", **form(), headers={**key, RETRY: "0"})
    assert await count(database) == 1
    again = Database(settings.database)
    second = create_app(settings, database=again)
    async with running(second):
        transport = ASGITransport(app=cast("Any", second))
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post("/v1/files", **form(), headers={**key, RETRY: "1"})
            listed = await client.get("/v1/files", headers=key)
    assert answer.headers["idempotent-replayed"] == "true"
    assert [file["id"] for file in listed.json()["data"]] == [answer.json()["id"]]


@only_sqlite
async def test_the_official_clients_own_repetition_after_a_broken_line_is_one_file(
    client, key, database
):
    class Flaky(ASGITransport):
        """Loses the answer to the first request."""

        lost = 0

        async def handle_async_request(self, request: Any) -> Any:
            response = await super().handle_async_request(request)
            if not self.lost:
                self.lost += 1
                raise ReadError("the line broke")
            return response

    transport = Flaky(app=client._transport.app)
    async with AsyncClient(transport=transport, base_url="http://test") as flaky:
        openai = AsyncOpenAI(
            api_key=key["authorization"].removeprefix("Bearer "),
            base_url="http://test/v1",
            http_client=flaky,
            max_retries=1,
        )
        made = await openai.files.create(file=("a.jsonl", LINES), purpose="fine-tune")
        assert [file.id async for file in openai.files.list()] == [made.id]
    assert transport.lost == 1
    assert await count(database) == 1


@only_sqlite
async def test_uploads_and_parts_are_repeated_under_a_key_only(client, key, database):
    body = {"bytes": 4, "filename": "a", "mime_type": "b", "purpose": "batch"}

    async def begin(**headers: str) -> Any:
        return await client.post("/v1/uploads", json=body, headers={**key, **headers})

    async def add(upload: str, **headers: str) -> Any:
        return await client.post(
            f"/v1/uploads/{upload}/parts", files={"data": ("a", b"xx")}, headers={**key, **headers}
        )

    await begin()
    await begin()
    keyed = await begin(**{"idempotency-key": "u"})
    assert same(keyed, await begin(**{"idempotency-key": "u"}))
    assert await count(database, Upload) == 3
    upload = keyed.json()["id"]
    part = await add(upload)
    second = await add(upload, **{"idempotency-key": "p"})
    assert same(second, await add(upload, **{"idempotency-key": "p"}))
    assert await count(database, UploadPart) == 2
    done = [
        await client.post(
            f"/v1/uploads/{upload}/complete",
            json={"part_ids": [part.json()["id"], second.json()["id"]]},
            headers={**key, "idempotency-key": "c"},
        )
        for _ in range(2)
    ]
    assert same(*done)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_repetition_does_not_wait_for_ever(send, database, monkeypatch):
    monkeypatch.setattr("server.idempotency.WAIT_SECONDS", 0.1)
    first = await send(idempotency_key="k")
    async with database.transaction() as session:
        row = (await session.scalars(select(IdempotentRequest))).one()
        name, tenant_id, digest = row.name, row.tenant_id, row.request_sha256
        await session.delete(row)
        await session.flush()
        session.add(
            IdempotentRequest(
                tenant_id=tenant_id, name=name, request_sha256=digest, expires_at=now()
            )
        )
        await session.flush()
        answer = await send(idempotency_key="k")
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "request_in_progress"
    assert answer.headers["x-should-retry"] == "true"
    assert int(answer.headers["retry-after"]) > 0
    assert not same(first, await send(idempotency_key="k"))


def test_a_digest_depends_on_where_its_parts_end():
    assert idempotency.digest_of("a", b"b") == idempotency.digest_of(b"a", "b")
    assert idempotency.digest_of("ab", "") != idempotency.digest_of("a", "b")
