"""Tools and answers by schema, with the official client."""

import json
from typing import Any

import pytest
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionMessageParam,
    ChatCompletionToolUnionParam,
)
from pydantic import BaseModel

from tests.server.api.openai.published import conforms
from tests.server.api.openai.test_clients import events
from tests.server.serving import Serving, database_url, server

__all__ = ["database_url", "server"]

ADD: ChatCompletionToolUnionParam = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
NOW: ChatCompletionToolUnionParam = {"type": "function", "function": {"name": "now"}}
SUM: ChatCompletionMessageParam = {"role": "user", "content": "Please add 3 and 4."}
BOTH: ChatCompletionMessageParam = {"role": "user", "content": "What is add of 3, 4, and now?"}


def calls_of(answer: ChatCompletion) -> list[ChatCompletionMessageFunctionToolCall]:
    """What the only choice of an answer calls."""
    (choice,) = answer.choices
    calls = choice.message.tool_calls or []
    return [call for call in calls if call.type == "function"]


async def test_a_call_is_made_answered_and_answered_upon(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    first = await client.chat.completions.create(model="acme", messages=[SUM], tools=[ADD, NOW])
    (choice,) = first.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = calls_of(first)
    assert call.id.startswith("call_")
    assert json.loads(call.function.arguments) == {"a": 3, "b": 4}
    answered: list[Any] = [
        SUM,
        choice.message,
        {"role": "tool", "tool_call_id": call.id, "content": "7"},
    ]
    second = await client.chat.completions.create(model="acme", messages=answered, tools=[ADD])
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content
    assert second.choices[0].message.tool_calls is None


async def test_the_official_client_puts_a_streamed_call_together(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    asked: dict[str, Any] = {"model": "acme", "messages": [BOTH], "tools": [ADD, NOW]}
    async with client.chat.completions.stream(**asked) as stream:
        answer = await stream.get_final_completion()
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    calls = calls_of(answer)
    assert [call.function.name for call in calls] == ["add", "now"]
    assert json.loads(calls[0].function.arguments) == {"a": 3, "b": 4}
    assert json.loads(calls[1].function.arguments) == {}
    assert len({call.id for call in calls}) == 2


NAMED = {"type": "function", "function": {"name": "now"}}
ONLY_NOW = {
    "type": "allowed_tools",
    "allowed_tools": {"mode": "required", "tools": [NAMED]},
}


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, ["add", "now"]),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, ["add"]),
        ({"tool_choice": "none"}, []),
        ({"tool_choice": "required"}, ["add", "now"]),
        ({"tool_choice": NAMED}, ["now"]),
        ({"tool_choice": ONLY_NOW}, ["now"]),
        ({"n": 2, "temperature": 1}, ["add", "now"]),
    ],
    ids=["auto", "one", "none", "required", "named", "allowed", "several"],
)
async def test_what_is_chosen_is_called_and_conforms(
    server: Serving, fields: dict[str, Any], names: list[str]
) -> None:
    await server.tenant()
    key = await server.key()
    body = {"model": "acme", "messages": [BOTH], "tools": [ADD, NOW], **fields}
    async with server.post(key, body) as response:
        whole = await response.json()
    conforms(whole, "CreateChatCompletionResponse")
    async with server.post(key, {**body, "stream": True}) as response:
        *chunks, done = await events(response)
    assert done == "[DONE]"
    for chunk in chunks:
        conforms(chunk, "CreateChatCompletionStreamResponse")
    finish = "tool_calls" if names else "stop"
    for choice in whole["choices"]:
        message = choice["message"]
        assert [call["function"]["name"] for call in message.get("tool_calls", ())] == names
        assert (message["content"] is None) == bool(names)
        assert choice["finish_reason"] == finish
        mine = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        parts = [part for c in mine for part in c["delta"].get("tool_calls", ())]
        started = [part for part in parts if "id" in part]
        assert [part["function"]["name"] for part in started] == names
        assert [part["index"] for part in started] == list(range(len(names)))
        assert all(set(part) == {"index", "function"} for part in parts if part not in started)
        assert [c["finish_reason"] for c in mine if c["finish_reason"]] == [finish]
        assert [c["delta"]["role"] for c in mine if "role" in c["delta"]] == ["assistant"]


async def test_a_call_that_does_not_fit_ends_for_its_length(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    asked: dict[str, Any] = {"model": "acme", "messages": [SUM], "tools": [ADD], "max_tokens": 1}
    whole = await client.chat.completions.create(**asked)
    assert whole.choices[0].finish_reason == "length"
    assert whole.choices[0].message.content is None
    stream = await client.chat.completions.create(**asked, stream=True)
    finishes = [c.finish_reason async for chunk in stream for c in chunk.choices]
    assert finishes[-1] == "length"


class Parcel(BaseModel):
    """What the client wants to know."""

    number: int
    carrier: str
    shipped: bool


async def test_the_official_client_reads_an_answer_by_schema(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Parcel 7?"}]
    answer = await client.chat.completions.parse(
        model="acme", messages=messages, response_format=Parcel
    )
    assert answer.choices[0].message.parsed == Parcel(number=7, carrier="word", shipped=True)
    async with client.chat.completions.stream(
        model="acme", messages=messages, response_format=Parcel
    ) as stream:
        streamed = await stream.get_final_completion()
    assert streamed.choices[0].message.parsed == answer.choices[0].message.parsed


async def test_an_answer_may_be_any_json(server: Serving) -> None:
    await server.tenant()
    body = {"model": "acme", "messages": [SUM], "response_format": {"type": "json_object"}}
    async with server.post(await server.key(), body) as response:
        answer = await response.json()
    conforms(answer, "CreateChatCompletionResponse")
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"]), dict)


async def test_the_tier_is_told_when_it_is_asked_for(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    body = {"model": "acme", "messages": [SUM], "service_tier": "auto"}
    async with server.post(key, body) as response:
        answer = await response.json()
    conforms(answer, "CreateChatCompletionResponse")
    assert answer["service_tier"] == "default"
    async with server.post(key, {**body, "stream": True}) as response:
        assert (await events(response))[0]["service_tier"] == "default"
