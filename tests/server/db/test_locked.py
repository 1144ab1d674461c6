"""A SQLite file that another process holds locked: who waits, for how long, and who does not."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio
from httpx2 import AsyncClient
from openai import APIStatusError
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from server.db import write_behind
from server.db.models import StoredCompletion, Tenant
from server.db.session import Database
from server.db.write_behind import WriteBehind
from server.errors import Unavailable
from server.settings import Settings
from tests.server.serving import QUESTION, Serving, serving, until

PATIENCE = 2.0


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest_asyncio.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """One whose writers wait for two seconds, not for ten."""
    made = Database(settings.database, patience_seconds=PATIENCE)
    yield made
    await made.dispose()


@pytest.fixture
def lock(sqlite_url: str) -> Callable[[], Any]:
    """What another process does that writes for long."""

    @contextmanager
    def locked() -> Iterator[None]:
        # receipts of the answers before may still be written
        other = sqlite3.connect(sqlite_url, isolation_level=None, timeout=30)
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
            other.close()

    return locked


async def refused_after(database: Database, delay: float = 0.0) -> float:
    """How long a writer waits that gets no turn."""
    await asyncio.sleep(delay)
    began = time.monotonic()
    with pytest.raises((OperationalError, PoolTimeout)):
        async with database.transaction() as session:
            await session.execute(text("SELECT 1"))
    return time.monotonic() - began


async def test_six_writers_are_refused_together_each_after_its_own_time(
    database: Database, lock: Any
) -> None:
    with lock():
        waited = await asyncio.gather(
            *(refused_after(database) for _ in range(6)), refused_after(database, PATIENCE / 2)
        )
    assert all(PATIENCE * 0.9 <= each < PATIENCE * 1.6 for each in waited), waited


async def test_a_turn_that_comes_late_is_still_a_turn(database: Database, lock: Any) -> None:
    async def write() -> None:
        async with database.transaction() as session:
            session.add(Tenant(slug=f"t{time.monotonic_ns()}", name=""))

    with lock():
        writers = [asyncio.create_task(write()) for _ in range(6)]
        await asyncio.sleep(PATIENCE / 2)
    await asyncio.gather(*writers)
    # and a connection that waited for a shorter time waits as before afterwards
    async with database.reading() as session:
        assert len((await session.scalars(select(Tenant))).all()) == 6
        assert await session.scalar(text("PRAGMA busy_timeout")) == PATIENCE * 1000


async def test_six_requests_get_their_503_together(
    client: AsyncClient, operator: dict[str, str], lock: Any
) -> None:
    async def create(number: int) -> tuple[int, str, float]:
        began = time.monotonic()
        body = {"slug": f"t{number}", "name": "T"}
        answer = await client.post("/admin/tenants", json=body, headers=operator)
        return answer.status_code, answer.json()["code"], time.monotonic() - began

    with lock():
        answers = await asyncio.gather(*map(create, range(6)))
        assert (await client.get("/admin/tenants", headers=operator)).status_code == 200
    for status, code, waited in answers:
        assert (status, code) == (503, "database_unavailable")
        assert waited < PATIENCE * 2


async def test_an_upload_waits_once_and_its_bytes_are_left_to_the_sweep(
    client: AsyncClient, make_tenant: Any, make_key: Any, lock: Any
) -> None:
    await make_tenant("acme")
    key = await make_key("acme", "train")
    for path, sent in (
        ("/v1/files", {"data": {"purpose": "user_data"}, "files": {"file": ("a", b"x")}}),
        ("/admin/tenants/acme/transcripts", {"content": b"{}"}),
    ):
        began = time.monotonic()
        with lock():
            answer = await client.post(path, headers=key, **sent)
        assert answer.status_code == 503
        assert time.monotonic() - began < PATIENCE * 1.7
        assert (await client.post(path, headers=key, **sent)).status_code in (200, 202)


@pytest_asyncio.fixture
async def server(settings: Settings, database: Database) -> AsyncIterator[Serving]:
    async with serving(settings, database, tokens_per_second=2000) as made:
        await made.tenant()
        await made.adapter()
        yield made


@pytest.mark.parametrize("stream", [False, True])
async def test_no_answer_waits_for_its_bookkeeping(
    server: Serving, lock: Any, monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    monkeypatch.setattr(write_behind, "PATIENCE_SECONDS", 0.2)
    client = server.openai(await server.key())
    await client.chat.completions.create(model="acme", messages=[QUESTION])  # warm
    began = time.monotonic()
    with lock():
        chat: Any = await client.chat.completions.create(
            model="acme", messages=[QUESTION], store=True, stream=stream
        )
        made: Any = await client.responses.create(model="acme", input="Hello?", stream=stream)
        if stream:
            [*_, chat] = [chunk async for chunk in chat]
            [*_, last] = [event async for event in made]
            assert last.type == "response.completed"
            made = last.response
        assert time.monotonic() - began < PATIENCE  # less than one writer waits
        with pytest.raises(APIStatusError) as refused:
            await client.chat.completions.retrieve(chat.id)
        assert refused.value.status_code == 503
    monkeypatch.undo()
    kept = await client.chat.completions.retrieve(chat.id)
    assert kept.id == chat.id
    follow: Any = await client.responses.create(
        model="acme", input="And then?", previous_response_id=made.id
    )
    assert follow.previous_response_id == made.id
    assert (await client.responses.retrieve(made.id)).id == made.id


async def test_what_was_not_written_yet_is_written_when_the_server_stops(
    settings: Settings, database: Database, lock: Any
) -> None:
    async with serving(settings, database, tokens_per_second=2000) as server:
        await server.tenant()
        await server.adapter()
        client = server.openai(await server.key())
        with lock():
            for _ in range(3):
                chat = await client.chat.completions.create(
                    model="acme", messages=[QUESTION], store=True
                )
    again = Database(settings.database)
    async with again.reading() as session:
        found = (await session.scalars(select(StoredCompletion.id))).all()
        used = await session.scalar(text("SELECT sum(requests) FROM usage_day"))
    await again.dispose()
    assert len(found) == 3
    assert chat.id.removeprefix("chatcmpl-") in found
    assert used == 3


async def test_a_row_that_cannot_be_written_does_not_hold_up_the_next(database: Database) -> None:
    rows = WriteBehind(database)
    writing = asyncio.create_task(rows.run())

    async def bad(session: Any) -> None:
        await session.execute(text("INSERT INTO tenant (id) VALUES ('x')"))

    async def broken(_session: Any) -> None:
        raise RuntimeError("bug")

    async def good(session: Any) -> None:
        session.add(Tenant(slug="acme", name=""))

    for name, work in (("bad", bad), ("broken", broken), ("good", good)):
        await rows.put(name, work)
    await rows.settled("bad", "broken", "good")
    writing.cancel()
    await asyncio.wait([writing])
    async with database.reading() as session:
        assert (await session.scalars(select(Tenant.slug))).all() == ["acme"]


async def test_what_waits_is_bounded_and_nobody_waits_for_ever(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_behind, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(write_behind, "GRACE_SECONDS", 0.01)
    rows = WriteBehind(database, max_waiting=2)  # nobody writes

    async def work(_session: Any) -> None:
        return

    await rows.put("a", work)
    await rows.put("b", work)
    with pytest.raises(Unavailable):
        await rows.put("c", work)
    with pytest.raises(Unavailable):
        await rows.settled("b")
    await rows.settled("c")
    writing = asyncio.create_task(rows.run())
    await until(lambda: not rows._waiting)
    await rows.put("c", work)
    writing.cancel()
    await asyncio.wait([writing])
