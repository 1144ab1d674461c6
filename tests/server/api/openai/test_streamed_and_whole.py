"""An answer in one piece is what the stream says, down to its counts, wherever it ends."""

import asyncio
import itertools
import json
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from server.chat.aggregation import Collected
from server.chat.logprobs import LogprobAligner
from server.chat.schemas import ChunkChoice
from server.db.models import UsageDay
from tests.engines import engine_metrics
from tests.server.api.openai.test_clients import events
from tests.server.serving import QUESTION, Serving, database_url, server, slow_server, until

__all__ = ["database_url", "server", "slow_server"]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo"]}},
            "required": ["city"],
        },
    },
}
ARGUMENTS = '{"city":"Oslo"}'
CALLING = {"tools": [WEATHER], "tool_choice": "required"}
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


async def both(server: Serving, key: str, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A chat's answer in one piece, and put together from its stream."""
    body = {"model": "acme", "messages": [QUESTION], **fields}
    async with server.post(key, body) as response:
        assert response.status == 200
        whole = await response.json()
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with server.post(key, streamed) as response:
        *chunks, last, done = await events(response)
    assert done == "[DONE]"
    assert {chunk["usage"] for chunk in chunks} == {None}
    collected = Collected()
    for chunk in chunks:
        collected.add(choices_of(chunk["choices"]))
    choices = msgspec.to_builtins(collected.choices)
    return whole, {"choices": choices, "usage": last["usage"]}


def choices_of(choices: list[Any]) -> list[ChunkChoice]:
    return msgspec.convert(choices, list[ChunkChoice])


def without_ids(choices: list[Any]) -> list[Any]:
    for choice in choices:
        for call in choice["message"].get("tool_calls", ()):
            assert call.pop("id").startswith("call_")
    return choices


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_tokens": 3, "logprobs": True},
        {"logprobs": True, "top_logprobs": 2},
        {"n": 2, "temperature": 1, "logprobs": True},
        {"stop": ["acme"], "logprobs": True},
        {"tools": [WEATHER], "logprobs": True},
        {**CALLING, "logprobs": True},
        {**CALLING, "max_tokens": 14},
        {**CALLING, "stop": ["city"], "n": 2, "temperature": 1},
    ],
)
async def test_a_whole_answer_is_the_streamed_one(server: Serving, fields: dict[str, Any]) -> None:
    await server.tenant()
    await server.adapter()
    whole, streamed = await both(server, await server.key(), **fields)
    assert without_ids(whole["choices"]) == without_ids(streamed["choices"])
    assert whole["usage"] == streamed["usage"]


# --- calls that are cut off ---


async def test_a_call_that_is_cut_off_has_what_was_generated_and_nothing_else(
    server: Serving,
) -> None:
    await server.tenant()
    key = await server.key()
    seen = set()
    for limit in range(1, 30):
        whole, streamed = await both(server, key, **CALLING, max_tokens=limit)
        assert without_ids(whole["choices"]) == without_ids(streamed["choices"])
        (choice,) = whole["choices"]
        message = choice["message"]
        assert message["content"] is None
        (call,) = message.get("tool_calls") or [None]
        told = call and call["function"]["arguments"]
        seen.add(told)
        assert told is None or ARGUMENTS.startswith(told)
        assert choice["finish_reason"] == "length" or told == ARGUMENTS
    assert {None, "", "{", '{"city', ARGUMENTS} <= seen


@pytest.mark.parametrize(
    ("stop", "arguments", "finish"),
    [
        ("city", '{"', "stop"),
        ('"arguments"', "", "stop"),
        ("weather", None, "stop"),
        ("tool_call", None, "stop"),
        ("</tool_call>", ARGUMENTS, "tool_calls"),
        ("never said", ARGUMENTS, "tool_calls"),
    ],
)
async def test_a_text_to_stop_at_in_a_call_ends_the_answer_as_a_stop(
    server: Serving, stop: str, arguments: str | None, finish: str
) -> None:
    await server.tenant()
    for answer in await both(server, await server.key(), **CALLING, stop=[stop]):
        (choice,) = answer["choices"]
        calls = choice["message"].get("tool_calls", ())
        assert [call["function"]["arguments"] for call in calls] == (
            [] if arguments is None else [arguments]
        )
        assert not choice["message"]["content"]
        assert choice["finish_reason"] == finish


# --- log-probabilities ---


@pytest.mark.parametrize(
    ("fields", "ending"),
    [({}, ""), ({"max_tokens": 4}, ""), ({"stop": [" "]}, ""), ({"stop": ["me.0"]}, "me.0")],
    ids=["end", "length", "stop", "inside"],
)
async def test_log_probabilities_are_those_of_the_text(
    server: Serving, fields: dict[str, Any], ending: str
) -> None:
    await server.tenant()
    await server.adapter()
    key = await server.key()
    for answer in await both(server, key, **fields, logprobs=True):
        (choice,) = answer["choices"]
        content, told = choice["message"]["content"], choice["logprobs"]["content"]
        said = "".join(token["token"] for token in told)
        assert said.startswith(content)
        assert content + ending in said  # a token that can be seen in part is all there
        assert "im_end" not in said
        assert len("".join(token["token"] for token in told[:-1])) < len(content)


async def test_a_call_has_no_log_probabilities(server: Serving) -> None:
    await server.tenant()
    for answer in await both(server, await server.key(), **CALLING, logprobs=True):
        assert answer["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(
    "fields",
    [{}, {"max_tokens": 2}, {"echo": True, "max_tokens": 2}, {"stop": ["9"]}, {"stop": [" "]}],
    ids=["end", "length", "echo", "inside", "stop"],
)
async def test_texts_tell_the_same_tokens_whole_and_streamed(
    server: Serving, fields: dict[str, Any]
) -> None:
    await server.tenant()
    await server.adapter(version=9)
    key = await server.key()
    body = {"model": "acme", "prompt": "Once upon", "max_tokens": 99, "logprobs": 1, **fields}
    async with server.post(key, body, TEXT) as response:
        (choice,) = (await response.json())["choices"]
    async with server.post(key, {**body, "stream": True}, TEXT) as response:
        *chunks, _ = await events(response)
    parts = [c["logprobs"] for chunk in chunks for c in chunk["choices"] if c["logprobs"]]
    told = choice["logprobs"]
    assert {name: [v for part in parts for v in part[name]] for name in told} == told
    said = "".join(told["tokens"])
    assert said.startswith(choice["text"])
    assert "im_end" not in said
    ends = itertools.accumulate(map(len, told["tokens"]), initial=0)
    assert told["text_offset"] == list(ends)[:-1]
    assert {len(values) for values in told.values()} == {len(told["tokens"])}


def visible(
    *chunks: tuple[str, list[str]], strict: bool = False
) -> tuple[list[list[str]], list[int]]:
    """What each chunk shows, and where it is in the text."""
    found: LogprobAligner[str] = LogprobAligner(strict=strict)
    last = len(chunks) - 1
    seen = [
        found.take(text, ((token, token) for token in tokens), last=place == last)
        for place, (text, tokens) in enumerate(chunks)
    ]
    return [[told for _, told in some] for some in seen], [at for some in seen for at, _ in some]


def test_a_token_shows_when_its_text_does() -> None:
    none: list[str] = []
    assert visible(("Hel", ["Hello"]), ("", [" you"]), ("lo yo", none), ("", ["END"])) == (
        [[], [], ["Hello"], [" you"]],
        [0, 5],
    )


def test_special_tokens_and_spaces_that_a_text_begins_without_do_not_lead_astray() -> None:
    chunks = ("Hi", ["<s>", " Hi"]), (" é", [" ", "", "é", "<|im_start|>"]), ("!", ["!", "</s>"])
    assert visible(*chunks) == ([[" Hi"], [" ", "", "é"], ["!"]], [0, 2, 3, 3, 4])


def test_what_a_text_does_not_have_is_left_out_where_it_may_be_a_call() -> None:
    chunks = ("Hi ", ["Hi", " ", "{", "name"]), ("you", ["}", "you"])
    assert visible(*chunks, strict=True) == ([["Hi", " "], ["you"]], [0, 2, 3])


# --- what is booked ---


async def booked(server: Serving) -> tuple[int, int]:
    """(prompt, completion) tokens of all requests, once they are written."""
    async with server.session.get(
        f"{server.url}/admin/tenants/acme/usage",
        headers={"authorization": f"Bearer {await server.key(None)}"},
    ) as response:
        assert response.status == 200
    async with server.database.reading() as session:
        rows = list(await session.scalars(select(UsageDay)))
    return sum(row.prompt_tokens for row in rows), sum(row.completion_tokens for row in rows)


async def generated(server: Serving) -> int:
    for line in (await engine_metrics(server.engine.client)).splitlines():
        if line.startswith("vllm:generation_tokens_total"):
            return int(float(line.rpartition(" ")[2]))
    raise AssertionError("the engine does not say what it has generated")


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("path", [CHAT, TEXT], ids=["chat", "text"])
@pytest.mark.parametrize("tokens", [0, 3])
async def test_an_answer_that_is_broken_off_is_booked_as_far_as_it_came(
    slow_server: Serving, path: str, tokens: int, *, stream: bool
) -> None:
    await slow_server.tenant()
    await slow_server.adapter()
    key = await slow_server.key()
    said = {"messages": [QUESTION]} if path == CHAT else {"prompt": "a b c d", "max_tokens": 90}

    async def ask() -> None:
        body = {"model": "acme", "stream": stream, **said}
        async with slow_server.post(key, body, path) as response:
            await response.read()

    before = await generated(slow_server)

    async def came() -> bool:
        return await generated(slow_server) >= before + tokens

    asking = asyncio.create_task(ask())
    await until(slow_server.is_busy)
    await until(came)
    asking.cancel()
    await until(slow_server.is_idle)
    await until(lambda: slow_server.engine.requests == 0)
    prompt, completion = await booked(slow_server)
    if tokens:
        assert prompt == (12 if path == CHAT else 4)
    assert prompt > 0  # where the engine had said nothing yet: a guess
    assert 0 <= await generated(slow_server) - before - completion <= 1  # one may be on its way


async def test_what_is_not_generated_is_not_booked(server: Serving) -> None:
    await server.tenant()
    body = {"model": "acme", "prompt": ["a b c", "d"], "max_tokens": 0, "echo": True}
    async with server.post(await server.key(), body, TEXT) as response:
        answer = await response.json()
    assert [choice["text"] for choice in answer["choices"]] == ["a b c", "d"]
    assert answer["usage"]["completion_tokens"] == 0
    assert answer["usage"]["total_tokens"] == 4
    assert await booked(server) == (4, 0)


async def test_several_echoes_with_their_log_probabilities_are_told_at_once(
    server: Serving,
) -> None:
    await server.tenant()
    key = await server.key()
    asked = {"prompt": ["a b c", "d"], "max_tokens": 3, "n": 2, "temperature": 1}
    body = {"model": "acme", **asked, "echo": True, "logprobs": 1}
    async with server.post(key, body, TEXT) as response:
        whole = await response.json()
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
    async with server.post(key, streamed, TEXT) as response:
        chunk, last, _ = await events(response)
    assert chunk["choices"] == whole["choices"]
    assert last["usage"] == whole["usage"]
    assert [choice["text"][:1] for choice in whole["choices"]] == ["a", "a", "d", "d"]
    assert await booked(server) == (8, 24)


async def test_a_whole_answer_whose_engine_dies_is_unavailable(slow_server: Serving) -> None:
    await slow_server.tenant()
    body = {"model": "acme", "messages": [QUESTION]}
    key = await slow_server.key()

    async def ask() -> tuple[int, bytes]:
        async with slow_server.post(key, body) as response:
            return response.status, await response.read()

    asking = asyncio.create_task(ask())

    async def under_way() -> bool:
        return await generated(slow_server) > 1

    await until(under_way)
    slow_server.kill_engine()
    status, said = await asking
    assert status == 503
    assert json.loads(said)["error"]["code"] == "engine_unavailable"
