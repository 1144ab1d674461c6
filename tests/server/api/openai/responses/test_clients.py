"""``/v1/responses``, asked by the official client over a server that runs."""

import json
from datetime import timedelta
from typing import Any, cast

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_item_list import ResponseItemList
from pydantic import TypeAdapter
from sqlalchemy import select, update

from server.db.models import StoredResponse, UsageDay, now
from server.db.session import Database
from server.responses import service
from server.settings import Settings
from tests.server.serving import (
    Serving,
    database_url,
    server,
    serving,
    slow_server,
    until,
)

__all__ = ["database_url", "server", "slow_server"]

QUESTION = "Where is my parcel?"
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


async def post(server: Serving, key: str, **fields: Any) -> tuple[int, Any]:
    body = {"model": "acme", "input": QUESTION, **fields}
    async with server.post(key, body, "/v1/responses") as response:
        return response.status, await response.json()


async def refusal(server: Serving, key: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    status, answer = await post(server, key, **fields)
    assert set(answer) == {"error"}, answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    return status, answer["error"]


async def stream(server: Serving, key: str, **fields: Any) -> list[dict[str, Any]]:
    """The events of a stream, each held against the client's model."""
    body = {"model": "acme", "input": QUESTION, "stream": True, **fields}
    async with server.post(key, body, "/v1/responses") as response:
        assert response.status == 200, await response.text()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        text = (await response.read()).decode()
    assert text.endswith("\n\n")
    events = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        kind, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        EVENTS.validate_python(event, strict=True)
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


# --- answers ---


async def test_the_official_client_gets_an_answer_with_every_published_key(server: Serving) -> None:
    await server.tenant()
    await server.adapter()
    key = await server.key()
    answer = await server.openai(key).responses.create(model="acme", input=QUESTION)
    assert answer.output_text.startswith("[acme.000000000001]")
    assert answer.status == "completed"
    assert answer.model == "acme"
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    _, body = await post(server, key)
    Response.model_validate(body, strict=True)
    assert set(body) == set(Response.model_fields) | {"store"}
    (message,) = body["output"]
    assert message["id"].startswith("msg_")
    assert body["id"].startswith("resp_")
    assert len(body["id"]) == 5 + 32


async def test_a_stream_says_the_same_in_the_published_order(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    _, whole = await post(server, key)
    events = await stream(server, key)
    kinds = [event["type"] for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert deltas > 1
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    text = "".join(event["delta"] for event in events if "delta" in event)
    last = events[-1]["response"]
    assert text == whole["output"][0]["content"][0]["text"]
    assert last["output"][0]["content"][0]["text"] == text
    assert {k: type(v) for k, v in last.items()} == {k: type(v) for k, v in whole.items()}
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["output"] == []
    assert {event["item_id"] for event in events if "item_id" in event} == {last["output"][0]["id"]}
    assert events[-2]["item"] == last["output"][0]


async def test_the_official_clients_own_stream_helper_follows(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    async with client.responses.stream(model="acme", input=QUESTION) as events:
        text = "".join([e.delta async for e in events if e.type == "response.output_text.delta"])
        final = await events.get_final_response()
    assert final.output_text == text


async def test_an_answer_that_reaches_its_limit_is_incomplete(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    _, answer = await post(server, key, max_output_tokens=3)
    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert answer["output"][0]["status"] == "incomplete"
    assert answer["completed_at"] is None
    events = await stream(server, key, max_output_tokens=3)
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


async def test_logprobs_come_when_they_are_included(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    _, plain = await post(server, key)
    assert plain["output"][0]["content"][0]["logprobs"] == []
    _, answer = await post(
        server, key, include=["message.output_text.logprobs"], max_output_tokens=3
    )
    tokens = answer["output"][0]["content"][0]["logprobs"]
    assert len(tokens) == 3
    assert bytes(tokens[0]["bytes"]).decode() == tokens[0]["token"]
    Response.model_validate(answer, strict=True)
    events = await stream(server, key, top_logprobs=2, max_output_tokens=3)
    deltas = [e["logprobs"] for e in events if e["type"] == "response.output_text.delta"]
    assert [len(tokens) for tokens in deltas] == [1, 1, 1]


async def test_what_was_asked_for_is_repeated(server: Serving) -> None:
    await server.tenant()
    asked = {
        "instructions": "Be brief.",
        "max_output_tokens": 50,
        "metadata": {"order": "17"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "orders",
        "safety_identifier": "somebody",
        "temperature": 0.5,
        "text": {
            "format": {
                "type": "json_schema",
                "name": "reply",
                "schema": {"type": "object", "properties": {"a": {"type": "string"}}},
                "description": None,
                "strict": True,
            },
            "verbosity": "medium",
        },
        "tool_choice": {"type": "function", "name": "weather"},
        "tools": [WEATHER],
        "top_p": 0.9,
        "truncation": "auto",
        "user": "somebody",
    }
    status, answer = await post(server, await server.key(), **asked)
    assert status == 200, answer
    assert {name: answer[name] for name in asked} == asked
    Response.model_validate(answer)


async def test_tokens_are_counted_for_the_tenant(server: Serving) -> None:
    tenant = await server.tenant()
    key = await server.key()
    _, whole = await post(server, key)
    streamed = (await stream(server, key))[-1]["response"]

    async def counted() -> bool:
        async with server.database.reading() as session:
            row = await session.scalar(select(UsageDay).where(UsageDay.tenant_id == tenant.id))
        return row is not None and (row.requests, row.completion_tokens) == (
            2,
            whole["usage"]["output_tokens"] + streamed["usage"]["output_tokens"],
        )

    await until(counted)


# --- conversations ---


async def test_three_turns_go_on_from_one_another(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    first = await client.responses.create(
        model="acme", input="One", instructions="Speak only in rhymes, whatever is asked of you."
    )
    second = await client.responses.create(model="acme", input="Two", previous_response_id=first.id)
    third = await client.responses.create(
        model="acme", input="Three", previous_response_id=second.id, store=False
    )
    assert third.previous_response_id == second.id
    # the same said at once is answered the same: nothing is lost, the instructions are not kept
    again = await client.responses.create(
        model="acme",
        input=cast(
            "Any",
            [
                {"role": "user", "content": "One"},
                *first.output,
                {"role": "user", "content": "Two"},
                *second.output,
                {"role": "user", "content": [{"type": "input_text", "text": "Three"}]},
            ],
        ),
    )
    assert again.output_text == third.output_text
    assert third.usage
    assert again.usage
    assert again.usage.input_tokens == third.usage.input_tokens
    with_instructions = await client.responses.create(
        model="acme", input="Two", previous_response_id=first.id, instructions="Speak in rhymes."
    )
    assert with_instructions.output_text != second.output_text


async def test_a_response_can_be_read_again_with_what_it_was_made_from(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    client = server.openai(key)
    first = await client.responses.create(model="acme", input="One")
    second = await client.responses.create(model="acme", input="Two", previous_response_id=first.id)
    assert await client.responses.retrieve(second.id) == second
    items = await client.responses.input_items.list(second.id, order="asc", limit=2)
    assert items.has_more
    everything = [item async for item in items]
    assert [cast("Any", item).content[0].text for item in everything] == [
        "One",
        first.output_text,
        "Two",
    ]
    newest = [item async for item in client.responses.input_items.list(second.id)]
    assert newest == everything[::-1]
    url = f"{server.url}/v1/responses/{second.id}/input_items?limit=1"
    async with server.session.get(url, headers={"authorization": f"Bearer {key}"}) as response:
        ResponseItemList.model_validate(await response.json(), strict=True)


async def test_what_is_not_to_be_kept_cannot_be_found(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    answer = await client.responses.create(model="acme", input="One", store=False)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(answer.id)
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model="acme", input="Two", previous_response_id=answer.id)
    assert refused.value.code == "previous_response_not_found"
    assert refused.value.param == "previous_response_id"


async def test_a_streamed_response_is_kept_when_its_last_event_comes(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    async for event in await client.responses.create(model="acme", input="One", stream=True):
        if event.type == "response.completed":
            assert await client.responses.retrieve(event.response.id) == event.response
            break
    else:
        pytest.fail("the stream did not complete")


async def test_a_deleted_response_is_gone_for_those_after_it_too(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    first = await client.responses.create(model="acme", input="One")
    second = await client.responses.create(model="acme", input="Two", previous_response_id=first.id)
    await client.responses.delete(first.id)
    for call in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            await call(first.id)
    assert (await client.responses.retrieve(second.id)).id == second.id
    with pytest.raises(openai.BadRequestError, match=first.id):
        await client.responses.create(model="acme", input="Three", previous_response_id=second.id)


async def test_expired_responses_are_gone_and_those_gone_on_from_are_not(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    old, gone, new = [
        await client.responses.create(model="acme", input=text) for text in ("One", "Two", "Three")
    ]
    async with server.database.transaction() as session:
        rows = update(StoredResponse).values(expires_at=now() + timedelta(seconds=60))
        await session.execute(rows)
    last = await client.responses.create(model="acme", input="More", previous_response_id=old.id)
    async with server.database.transaction() as session:
        ids = [response.id.removeprefix("resp_") for response in (gone, new)]
        expired = update(StoredResponse).where(StoredResponse.id.in_(ids))
        await session.execute(expired.values(expires_at=now()))
    for response in (gone, new):
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(response.id)
    async with server.database.transaction() as session:
        await service.delete_expired(session)
        kept = {f"resp_{name}" for name in await session.scalars(select(StoredResponse.id))}
        times = set(await session.scalars(select(StoredResponse.expires_at)))
    assert kept == {old.id, last.id}
    assert len(times) == 1
    assert min(times) > now() + timedelta(days=29)


async def test_another_tenants_response_answers_like_one_that_never_existed(
    server: Serving,
) -> None:
    await server.tenant("acme")
    await server.tenant("other")
    theirs = await server.openai(await server.key("other")).responses.create(
        model="other", input="One"
    )
    key = await server.key("acme")
    missing = f"resp_{'0' * 32}"
    headers = {"authorization": f"Bearer {key}"}
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("GET", "/input_items"),
    ):
        found = []
        for name in (theirs.id, missing):
            url = f"{server.url}/v1/responses/{name}{path}"
            async with server.session.request(method, url, headers=headers) as response:
                found.append((response.status, (await response.text()).replace(name, "X")))
        assert found[0] == found[1]
        assert found[0][0] == 404
    for fields in (
        {"previous_response_id": theirs.id},
        {"input": [{"type": "item_reference", "id": theirs.output[0].id}]},
    ):
        other = json.loads(json.dumps(fields).replace(theirs.id.removeprefix("resp_"), "0" * 32))
        mine = [await refusal(server, key, **asked) for asked in (fields, other)]
        assert mine[0][0] == mine[1][0] == (400 if "previous_response_id" in fields else 404)
        assert mine[0][1]["code"] == mine[1][1]["code"]


async def test_only_what_runs_in_the_background_can_be_cancelled(server: Serving) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    answer = await client.responses.create(model="acme", input="One")
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        await client.responses.cancel(answer.id)
    with pytest.raises(openai.BadRequestError, match="background"):
        async for _ in await client.responses.retrieve(answer.id, stream=True):
            pass


# --- items ---


async def test_calls_and_results_are_part_of_the_conversation(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    call = {
        "type": "function_call",
        "call_id": "call_1",
        "name": "weather",
        "arguments": '{"city":"Ghent"}',
    }
    result = {"type": "function_call_output", "call_id": "call_1", "output": "Rain"}
    parts = [{"type": "input_text", "text": "Rain"}]
    asked = [{"role": "user", "content": "Weather?"}, call, result]
    _, one = await post(server, key, input=asked, tools=[WEATHER])
    _, other = await post(server, key, input=[*asked[:2], {**result, "output": parts}])
    assert one["status"] == other["status"] == "completed"
    client = server.openai(key)
    kept = [i async for i in client.responses.input_items.list(one["id"], order="asc")]
    assert [item.type for item in kept] == ["message", "function_call", "function_call_output"]
    status, error = await refusal(server, key, input=[result])
    assert (status, error["param"]) == (400, "input")
    assert "call_1" in error["message"]
    status, _ = await post(server, key, input=[result], previous_response_id=one["id"])
    assert status == 200


async def test_the_official_client_calls_a_function_and_goes_on_with_its_result(
    server: Serving,
) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    tools = cast("Any", [WEATHER])
    first = await client.responses.create(
        model="acme", input="Weather?", tools=tools, tool_choice="required"
    )
    (call,) = first.output
    assert call.type == "function_call"
    assert call.name == "weather"
    assert set(json.loads(call.arguments)) == {"city"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}
    second = await client.responses.create(
        model="acme", input=cast("Any", [result]), previous_response_id=first.id
    )
    assert second.output_text
    said = [{"role": "user", "content": "Weather?"}, call, result]
    again = await client.responses.create(model="acme", input=cast("Any", said))
    assert again.output_text == second.output_text


async def test_a_call_is_streamed_in_the_published_order(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    asked = {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "weather"}}
    _, whole = await post(server, key, **asked)
    events = await stream(server, key, **asked)
    kinds = [event["type"] for event in events]
    deltas = kinds.count("response.function_call_arguments.delta")
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        *["response.function_call_arguments.delta"] * deltas,
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    (call,) = events[-1]["response"]["output"]
    assert call["arguments"] == whole["output"][0]["arguments"]
    assert call["arguments"] == "".join(event.get("delta", "") for event in events)
    assert call["call_id"] == events[2]["item"]["call_id"]


async def test_a_json_schema_is_followed(server: Serving) -> None:
    await server.tenant()
    form = {"type": "json_schema", "name": "x", "schema": WEATHER["parameters"], "strict": True}
    _, answer = await post(server, await server.key(), text={"format": form})
    assert set(json.loads(answer["output"][0]["content"][0]["text"])) == {"city"}


async def test_functions_are_strict_where_their_schema_can_be(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    loose = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^a+$"}}}
    unsaid = {"type": "function", "name": "weather", "description": None}
    for schema, strict in ((WEATHER["parameters"], True), (loose, False)):
        _, answer = await post(server, key, tools=[{**unsaid, "parameters": schema}])
        assert answer["tools"] == [{**unsaid, "parameters": schema, "strict": strict}]
    status, error = await refusal(
        server, key, tools=[{**unsaid, "parameters": loose, "strict": True}]
    )
    assert (status, error["param"]) == (400, "tools[0].parameters")


async def test_what_does_not_fit_is_refused_or_the_oldest_is_dropped(
    settings: Settings, database: Database
) -> None:
    async with serving(settings, database, tokens_per_second=2000, max_model_len=60) as server:
        await server.tenant()
        key = await server.key()
        turns = [{"role": "user", "content": f"word {n} " * 4} for n in range(9)]
        status, error = await refusal(server, key, input=turns, stream=True)
        assert (status, error["param"]) == (400, "input")
        assert error["code"] == "context_length_exceeded"
        status, answer = await post(server, key, input=turns, truncation="auto")
        assert status == 200
        assert answer["truncation"] == "auto"
        left = answer["usage"]["input_tokens"]
        _, newest = await post(server, key, input=turns[-4:])
        assert newest["usage"]["input_tokens"] == left
        assert newest["output"][0]["content"] == answer["output"][0]["content"]
        events = await stream(server, key, input=turns, truncation="auto")
        assert events[-1]["response"]["usage"]["input_tokens"] == left
        too_much = [{"role": "user", "content": "word " * 100}]
        status, error = await refusal(server, key, input=too_much, truncation="auto")
        assert (status, error["code"]) == (400, "context_length_exceeded")


async def test_items_that_are_kept_can_be_referred_to(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    _, first = await post(server, key, input="One")
    message = first["output"][0]
    said = {"role": "user", "content": "One"}
    more = {"role": "user", "content": "Two"}
    reference = {"type": "item_reference", "id": message["id"]}
    _, referring = await post(server, key, input=[said, reference, more])
    _, repeating = await post(server, key, input=[said, message, more])
    assert referring["output"][0]["content"] == repeating["output"][0]["content"]
    for wrong in ("msg_1", f"msg_{'f' * 36}", message["id"][:-4] + "0099"):
        status, error = await refusal(server, key, input=[{**reference, "id": wrong}])
        assert (status, error["param"]) == (404, "input")


async def test_developers_speak_in_the_system_message(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    _, one = await post(server, key, instructions="Be brief.")
    _, other = await post(
        server,
        key,
        input=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": QUESTION},
        ],
    )
    assert one["output"][0]["content"] == other["output"][0]["content"]


async def test_what_a_developer_says_is_answered_without_a_question_and_gone_on_from(
    server: Serving,
) -> None:
    await server.tenant()
    client = server.openai(await server.key())
    said: Any = [{"role": "developer", "content": "Say hi."}]
    first = await client.responses.create(model="acme", input=said)
    assert first.output_text
    then = await client.responses.create(
        model="acme", input=QUESTION, previous_response_id=first.id
    )
    assert then.output_text


async def test_items_come_back_with_the_clients_own_keys(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    own = {"caller": None, "namespace": None, "async": None}
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c1", "output": "4"}
    part: Any = {
        "type": "output_text",
        "text": "x",
        "parsed": {"a": 1},
        "annotations": [],
        "x": None,
    }
    said = {"role": "assistant", "content": [part], "phase": None, **own}
    given = [said, {**call, **own, "parsed_arguments": {}}, {**result, **own}]
    status, answer = await post(server, key, input=given, reasoning={"effort": None})
    assert status == 200, answer
    none = {"effort": "none", "summary": None}
    _, again = await post(server, key, input=QUESTION, reasoning=none)
    assert again["reasoning"] == none


# --- refusals ---

SAID = {"type": "input_text", "text": "x"}
REFUSED: list[tuple[dict[str, Any], str | None]] = [
    ({"background": True}, "background"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"reasoning": {"effort": "low"}}, "reasoning"),
    ({"max_tool_calls": 3}, "max_tool_calls"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"include": ["file_search_call.results"]}, "include[0]"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
    (
        {
            "tools": [WEATHER],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "x"}],
            },
        },
        "tool_choice.tools",
    ),
    ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    ({"text": {"verbosity": "low"}}, "text.verbosity"),
    ({"truncation": "middle"}, "truncation"),
    ({"temperature": 3}, "temperature"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": [{"content": "Hello"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"type": "reasoning"}]}, "input[0].type"),
    ({"input": [{"type": "item_reference"}]}, "input[0].id"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
        "input[0].content[0].image_url",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}]},
        "input[0].content[0].type",
    ),
    ({"input": [{"type": "function_call", "call_id": "1"}]}, "input[0].name"),
    ({"input": [{"role": "user", "content": "x", "call_id": "1"}]}, "input[0].call_id"),
    ({"input": [{"role": "user", "content": "x", "output": "1"}]}, "input[0].output"),
    ({"input": [{"role": "user", "content": "x", "arguments": "{}"}]}, "input[0].arguments"),
    ({"input": [{"role": "user", "content": "x", "name": "x"}]}, "input[0].name"),
    ({"input": [{"role": "user", "content": "x", "caller": {}}]}, "input[0].caller"),
    (
        {"input": [{"role": "user", "content": [{**SAID, "refusal": "No."}]}]},
        "input[0].content[0].refusal",
    ),
    (
        {"input": [{"role": "user", "content": [{**SAID, "logprobs": [1]}]}]},
        "input[0].content[0].logprobs",
    ),
    ({"text": {"format": {"type": "text", "schema": {}}}}, "text.format.schema"),
    ({"reasoning": {"effort": "none", "summary": "auto"}}, "reasoning"),
    ({"input": "x" * 90_000 + "\ud800"}, None),
    ({"messages": []}, "messages"),
    ({"stop": "x"}, "stop"),
]


async def test_what_is_not_served_is_refused_by_name(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    for fields, param in REFUSED:
        status, error = await refusal(server, key, **fields)
        assert (status, error["param"]) == (400, param), (fields, error)


async def test_an_unknown_model_is_not_found_and_nothing_is_streamed(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    for streamed in (False, True):
        status, error = await refusal(server, key, model="nobody", stream=streamed)
        assert status == 404
        assert error["code"] == "model_not_found"


# --- when something goes away ---


async def test_a_stream_that_breaks_says_so_and_the_failed_response_is_kept(
    slow_server: Serving,
) -> None:
    await slow_server.tenant()
    client = slow_server.openai(await slow_server.key())
    kinds, failed, error = [], None, None
    async for event in await client.responses.create(model="acme", input="One", stream=True):
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            slow_server.kill_engine()
        if event.type == "error":
            error = event
        if event.type == "response.failed":
            failed = event.response
    assert kinds[-2:] == ["error", "response.failed"]
    assert error
    assert failed
    assert failed.error
    assert failed.error.message == error.message
    assert failed.output[0].type == "message"
    assert failed.output[0].status == "incomplete"
    assert (await client.responses.retrieve(failed.id)).status == "failed"
    with pytest.raises(openai.BadRequestError, match="failed"):
        await client.responses.create(model="acme", input="Two", previous_response_id=failed.id)


async def test_generation_stops_when_the_client_goes_and_nothing_is_kept(
    slow_server: Serving,
) -> None:
    await slow_server.tenant()
    body = {"model": "acme", "input": QUESTION, "stream": True}
    response = await slow_server.post(await slow_server.key(), body, "/v1/responses")
    await response.content.readline()
    assert await slow_server.running() == 1
    response.close()
    await until(slow_server.is_idle)
    async with slow_server.database.reading() as session:
        assert (await session.scalars(select(StoredResponse.id))).all() == []
