"""Completions that are kept: found again, marked, deleted, and nobody else's."""

import asyncio
from typing import Any

import openai
import pytest

from server.tenants import service as tenants
from tests.server.api.openai.chat.test_tools import ADD, SUM, calls_of
from tests.server.api.openai.published import conforms
from tests.server.serving import QUESTION, Serving, server, slow_server, until

__all__ = ["server", "slow_server"]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


async def test_a_kept_completion_is_found_again(server: Serving) -> None:
    await server.tenant()
    await server.adapter()
    key = await server.key()
    client = server.openai(key)
    made = await client.chat.completions.create(
        model="acme", messages=[QUESTION], store=True, metadata={"topic": "parcels"}
    )
    found = await client.chat.completions.retrieve(made.id)
    assert found.choices == made.choices
    assert (found.id, found.created, found.model) == (made.id, made.created, "acme")
    assert found.usage == made.usage
    assert found.metadata == {"topic": "parcels"}
    (message,) = [m async for m in client.chat.completions.messages.list(made.id)]
    assert message.content == QUESTION["content"]
    assert message.id == f"{made.id}-0"
    async with server.session.get(
        f"{server.url}/v1/chat/completions", headers={"authorization": f"Bearer {key}"}
    ) as response:
        listed = await response.json()
    assert listed["object"] == "list"
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == (made.id, made.id, False)
    conforms(listed["data"][0], "CreateChatCompletionResponse")


async def test_the_answer_to_a_system_message_alone_is_kept(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    made = await client.chat.completions.create(
        model="acme", messages=[{"role": "system", "content": "Say hi."}], store=True
    )
    assert made.choices[0].message.content
    (message,) = [m async for m in client.chat.completions.messages.list(made.id)]
    assert (message.role, message.content) == ("system", "Say hi.")


async def test_a_kept_stream_is_found_as_one_piece_with_its_calls(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    asked: dict[str, Any] = {"model": "acme", "messages": [SUM], "tools": [ADD], "store": True}
    async with client.chat.completions.stream(**asked) as stream:
        streamed = await stream.get_final_completion()
    found = await client.chat.completions.retrieve(streamed.id)
    (choice,) = found.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,), (theirs,) = calls_of(found), calls_of(streamed)
    assert (call.id, call.function.arguments) == (theirs.id, theirs.function.arguments)
    assert found.usage is not None
    assert found.usage.completion_tokens > 0


async def test_what_is_not_to_be_kept_is_not(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    for extra in ({}, {"store": False}, {"store": None}):
        asked: dict[str, Any] = {"model": "acme", "messages": [QUESTION], **extra}
        made = await client.chat.completions.create(**asked)
        assert made.id.startswith("chatcmpl-")
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.retrieve(made.id)
    assert [one async for one in client.chat.completions.list()] == []


async def test_kept_completions_are_listed_by_page_order_model_and_metadata(
    server: Serving,
) -> None:
    await server.tenant()
    await server.adapter()
    client = server.openai(await server.key())
    ids = []
    for number, model in enumerate(("acme", "tiny-base", "acme", "acme")):
        made = await client.chat.completions.create(
            model=model,
            messages=[QUESTION],
            store=True,
            metadata={"parity": str(number % 2), 'a "quoted" key': "'"},
        )
        ids.append(made.id)

    async def listed(**query: Any) -> list[str]:
        return [one.id async for one in client.chat.completions.list(**query)]

    assert await listed() == ids
    assert await listed(limit=2) == ids  # the client turns the pages
    assert await listed(order="desc", limit=3) == ids[::-1]
    assert await listed(after=ids[1]) == ids[2:]
    assert await listed(model="tiny-base") == [ids[1]]
    assert await listed(metadata={"parity": "1"}) == [ids[1], ids[3]]
    assert await listed(metadata={"parity": "1", 'a "quoted" key': "'"}) == [ids[1], ids[3]]
    assert await listed(metadata={"parity": "2"}) == []
    assert await listed(metadata={"colour": "1"}) == []
    page = await client.chat.completions.list(limit=3)
    assert page.has_more
    with pytest.raises(openai.BadRequestError):
        await listed(limit=0)
    with pytest.raises(openai.NotFoundError):
        await listed(after="chatcmpl-nothing")


async def test_messages_are_paged_and_shown_as_they_came(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    function = {"name": "add", "arguments": "{}"}
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Add."}], "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "7"},
    ]
    made = await client.chat.completions.create(model="acme", messages=messages, store=True)
    shown = [m async for m in client.chat.completions.messages.list(made.id, limit=3)]
    assert [m.id for m in shown] == [f"{made.id}-{place}" for place in range(4)]
    assert shown[0].content == "Be brief."
    assert shown[1].content is None
    assert [part.to_dict() for part in shown[1].content_parts or ()] == [
        {"type": "text", "text": "Add."}
    ]
    calls = shown[2].tool_calls or ()
    assert [call.id for call in calls] == ["call_1"]
    last = [m async for m in client.chat.completions.messages.list(made.id, order="desc", limit=1)]
    assert [m.id for m in last] == [m.id for m in shown[::-1]]


async def test_metadata_is_replaced_and_a_completion_deleted(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    client = server.openai(key)
    made = await client.chat.completions.create(
        model="acme", messages=[QUESTION], store=True, metadata={"a": "1"}
    )
    changed = await client.chat.completions.update(made.id, metadata={"b": "2"})
    assert changed.metadata == {"b": "2"}
    assert (await client.chat.completions.retrieve(made.id)).metadata == {"b": "2"}
    path = f"/v1/chat/completions/{made.id}"
    async with server.post(key, {"metadata": {"k": "x" * 513}}, path) as response:
        assert response.status == 400
    async with server.post(key, {"metadata": None}, path) as response:
        assert (await response.json())["metadata"] == {}
    deleted = await client.chat.completions.delete(made.id)
    assert deleted.to_dict() == {
        "id": made.id,
        "object": "chat.completion.deleted",
        "deleted": True,
    }
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.retrieve(made.id)


async def test_another_tenants_completion_answers_like_one_that_never_was(
    server: Serving,
) -> None:
    await server.tenant("acme")
    await server.tenant("other")
    theirs = server.openai(await server.key("other"))
    made = await theirs.chat.completions.create(model="other", messages=[QUESTION], store=True)
    client = server.openai(await server.key("acme"))
    completions = client.chat.completions
    never = "chatcmpl-" + "0" * 32
    for ask in (
        completions.retrieve,
        completions.delete,
        lambda i: completions.update(i, metadata={"a": "b"}),
        completions.messages.list,
        lambda i: completions.list(after=i),
    ):
        told = []
        for completion_id in (made.id, never):
            with pytest.raises(openai.NotFoundError) as refused:
                await ask(completion_id)
            told.append(str(refused.value).replace(completion_id, "X"))
        assert told[0] == told[1]
    assert await theirs.chat.completions.retrieve(made.id)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_an_answer_is_given_though_its_tenant_goes_meanwhile(
    slow_server: Serving, path: str, stream: bool
) -> None:
    await slow_server.tenant()
    key = await slow_server.key()
    asked = "messages" if path.startswith("/v1/chat") else "input"
    body = {"model": "acme", asked: [QUESTION], "store": True, "stream": stream}

    async def ask() -> tuple[int, str]:
        async with slow_server.post(key, body, path) as response:
            return response.status, await response.text()

    asking = asyncio.create_task(ask())
    await until(slow_server.is_busy)
    async with slow_server.database.transaction() as session:
        await tenants.delete(session, "acme")
    status, text = await asking
    assert status == 200
    assert "tiny-base" in text
    assert '"error":{' not in text
    if stream:
        assert "[DONE]" in text or "event: response.completed" in text
