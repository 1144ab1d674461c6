"""A canary through every door that answers customers, over the fake engine."""

import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select

from server.adapters import canary, changes, service
from server.adapters.split import bucket
from server.db.models import CanaryCount, LiveMessage, Tenant, UsageDay
from server.tenants import service as tenants
from tests.server.serving import QUESTION, Serving, database_url, server, until
from tests.server.web.widget.visiting import Frame, frame_of

__all__ = ["database_url", "server"]
LIVE, TRIED = "[acme.000000000001]", "[acme.000000000002]"
Counted = dict[bool, tuple[int, int]]


@pytest_asyncio.fixture
async def visited(server: Serving) -> AsyncIterator[Frame]:
    """A tenant with a widget; 1 is live, and 2 answers half of the requests."""
    frame = await frame_of(server)
    await server.adapter(version=1, system_prompt="One.")
    await server.adapter(
        version=2, live=False, system_prompt="Two, which is longer than the other."
    )
    await start(server)
    await frame.enter()
    yield frame


async def start(server: Serving, slug: str = "acme", percent: int = 50) -> None:
    async with server.database.transaction() as session:
        await canary.start(
            session,
            await tenants.get(session, slug),
            version=2,
            percent=percent,
            base=server.settings.base,
            actor="test",
        )


async def tenant_of(server: Serving) -> Tenant:
    async with server.database.reading() as session:
        return await tenants.get(session, "acme")


async def key_for(server: Serving, *, tried: bool) -> str:
    """A key whose answers the canary writes, or what is live."""
    tenant = await tenant_of(server)
    return next(key for key in map(str, range(999)) if (bucket(tenant.id, 2, key) < 50) == tried)


async def counted(server: Serving) -> Counted:
    """(requests, errors) of what is live and of the canary, over all shares."""
    async with server.database.reading() as session:
        rows = list(await session.scalars(select(CanaryCount)))
    return {row.is_canary: (row.requests, row.errors) for row in rows}


async def used(server: Serving) -> dict[str, int]:
    """Requests by the model that answered them, of all tenants."""
    async with server.database.reading() as session:
        rows = await session.execute(select(UsageDay.model, UsageDay.requests))
    return {row.model: row.requests for row in rows}


async def until_used(server: Serving, expected: dict[str, int]) -> None:
    """The ledger writes every second."""

    async def is_so() -> bool:
        return await used(server) == expected

    await until(is_so)


async def is_over(server: Serving) -> bool:
    """Whether there is no canary any more."""
    async with server.database.reading() as session:
        tenant = await tenants.get(session, "acme")
        return await changes.running_canary(session, tenant) is None


@pytest.mark.parametrize("field", ["safety_identifier", "user", "prompt_cache_key"])
async def test_an_end_user_gets_the_same_version_whole_and_streamed(
    server: Serving, visited: Frame, field: str
) -> None:
    client = server.openai(await server.key())
    for tried, begin in ((True, TRIED), (False, LIVE)):
        named: dict[str, Any] = {field: await key_for(server, tried=tried)}
        whole = await client.chat.completions.create(model="acme", messages=[QUESTION], **named)
        assert (whole.choices[0].message.content or "").startswith(begin)
        assert whole.model == "acme"
        stream = await client.chat.completions.create(
            model="acme", messages=[QUESTION], stream=True, **named
        )
        text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
        assert text.startswith(begin)
        response = await client.responses.create(model="acme", input="Hi", **named)
        assert response.output_text.startswith(begin)
    exact = await client.chat.completions.create(model="acme@1", messages=[QUESTION])
    assert (exact.choices[0].message.content or "").startswith(LIVE)


async def test_texts_and_responses_are_split_and_a_chain_keeps_its_version(
    server: Serving, visited: Frame
) -> None:
    client = server.openai(await server.key())
    for tried, begin in ((True, TRIED), (False, LIVE)):
        user = await key_for(server, tried=tried)
        done = await client.completions.create(model="acme", prompt="Once", user=user)
        assert done.choices[0].text.startswith(begin)
    seen = set()
    for _ in range(8):
        first = await client.responses.create(model="acme", input="Hi")
        before, begin = first.id, first.output_text.partition("]")[0]
        seen.add(begin)
        for _ in range(2):
            then = await client.responses.create(
                model="acme", input="And?", previous_response_id=before
            )
            assert then.output_text.startswith(begin)
            before = then.id
    assert seen <= {LIVE[:-1], TRIED[:-1]}


async def test_a_visitors_conversation_keeps_its_version_and_its_answers_know_it(
    server: Serving, visited: Frame
) -> None:
    for text in ("Where is my parcel?", "And now?"):
        await visited.say(text)
    async with server.database.reading() as session:
        rows = list(
            await session.scalars(select(LiveMessage).where(LiveMessage.role == "assistant"))
        )
    (version,) = {row.adapter_version for row in rows}
    tenant = await tenant_of(server)
    drawn = bucket(tenant.id, 2, rows[0].conversation_id) < 50
    assert version == (2 if drawn else 1)
    assert {row.model for row in rows} == {f"acme@{version}"}
    assert all(row.text.startswith(TRIED if drawn else LIVE) for row in rows)


async def test_another_tenants_canary_answers_nobody_else(server: Serving, visited: Frame) -> None:
    await server.tenant("zoo")
    await server.adapter("zoo", version=1)
    client = server.openai(await server.key("zoo"))
    for tried in (True, False):
        user = await key_for(server, tried=tried)
        answer = await client.chat.completions.create(model="zoo", messages=[QUESTION], user=user)
        assert (answer.choices[0].message.content or "").startswith("[zoo.000000000001]")
    status, error = await server.refusal(await server.key("zoo"), model="acme")
    assert (status, error["code"]) == (404, "model_not_found")
    await until_used(server, {"zoo@1": 2})
    assert await counted(server) == {}


async def test_both_sides_are_counted_and_names_of_versions_are_not(
    server: Serving, visited: Frame
) -> None:
    client = server.openai(await server.key())
    tried, live = await key_for(server, tried=True), await key_for(server, tried=False)
    for user, times in ((tried, 1), (live, 2)):
        for _ in range(times):
            await client.chat.completions.create(model="acme", messages=[QUESTION], user=user)
    await client.chat.completions.create(model="acme@2", messages=[QUESTION], user=tried)
    await until_used(server, {"acme@1": 2, "acme@2": 2})
    assert await counted(server) == {True: (1, 0), False: (2, 0)}


async def test_what_the_engine_refuses_is_answered_by_what_is_live_and_stopped(
    server: Serving, visited: Frame
) -> None:
    shutil.rmtree(server.settings.adapters / "acme.000000000002")
    client = server.openai(await server.key())
    user = await key_for(server, tried=True)
    for stream in (False, True):
        answer: Any = await client.chat.completions.create(
            model="acme", messages=[QUESTION], user=user, stream=stream
        )
        if stream:
            text = "".join([c.choices[0].delta.content or "" async for c in answer if c.choices])
        else:
            text = answer.choices[0].message.content
        assert text.startswith(LIVE)
    assert await is_over(server)
    async with server.database.reading() as session:
        (step, *_) = await service.history(session, await tenants.get(session, "acme"))
    assert (step.kind, step.canary_version, step.actor) == ("canary_end", 2, "engine")
    assert "would not load" in step.reason
    # the one that was refused is counted as what answered it
    await until_used(server, {"acme@1": 2})
    assert await counted(server) == {False: (1, 0)}
    # in the widget too, and the receipt of an answer says who wrote it
    await start(server)
    for _ in range(30):  # until a conversation is one of the canary's
        frame = Frame(server, "acme", visited.pub)
        await frame.enter()
        assert (await frame.say("Where is my parcel?"))[-1][0] == "done"
        if await is_over(server):
            break
    assert await is_over(server)
    async with server.database.reading() as session:
        rows = list(
            await session.scalars(select(LiveMessage).where(LiveMessage.role == "assistant"))
        )
    assert {(row.model, row.adapter_version) for row in rows} == {("acme@1", 1)}
    # asked for by its name it is an error, as any version that cannot be loaded
    status, error = await server.refusal(await server.key(), model="acme@2")
    assert (status, error["code"]) == (502, "adapter_refused")
