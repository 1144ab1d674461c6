"""The official client, and clients that are not so well-behaved, against a server that runs."""

import asyncio
import gzip
import json
import sqlite3
from typing import Any

import openai
import pytest

from server.api.openai import streaming
from server.db.session import Database
from server.settings import Settings
from tests.server.api.openai.published import conforms
from tests.server.serving import (
    QUESTION,
    Serving,
    database_url,
    server,
    serving,
    slow_server,
    until,
)

__all__ = ["database_url", "server", "slow_server"]


async def events(response: Any) -> list[Any]:
    """The events of a stream; comments are left out."""
    text = (await response.read()).decode()
    assert text.endswith("\n\n")
    lines = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    payloads = [line.removeprefix("data: ") for line in lines]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


# --- answers ---


async def test_the_official_client_chats_with_the_live_adapter(server: Serving) -> None:
    await server.tenant()
    await server.adapter()
    client = server.openai(await server.key())
    answer = await client.chat.completions.create(model="acme", messages=[QUESTION])
    assert (answer.choices[0].message.content or "").startswith("[acme.000000000001]")
    assert answer.model == "acme"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


async def test_a_compressed_body_is_refused_by_its_encoding(server: Serving) -> None:
    await server.tenant()
    headers = {"authorization": f"Bearer {await server.key('acme', 'chat', 'train')}"}
    body = gzip.compress(json.dumps({"model": "acme", "messages": [QUESTION]}).encode())
    for path in ("chat/completions", "uploads"):
        async with server.session.post(
            f"{server.url}/v1/{path}", data=body, headers=headers | {"content-encoding": "gzip"}
        ) as response:
            error = (await response.json())["error"]
            assert (response.status, error["code"]) == (415, "unsupported_media")
            assert "'gzip'" in error["message"]
    plain = json.dumps({"model": "acme", "messages": [QUESTION]})
    async with server.session.post(
        f"{server.url}/v1/chat/completions",
        data=plain,
        headers=headers | {"content-encoding": "identity"},
    ) as response:
        assert response.status == 200


async def test_the_official_client_streams_the_same_words(server: Serving) -> None:
    await server.tenant()
    await server.adapter()
    client = server.openai(await server.key())
    whole = await client.chat.completions.create(model="acme@1", messages=[QUESTION])
    stream = await client.chat.completions.create(model="acme@1", messages=[QUESTION], stream=True)
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content


async def test_answers_conform_to_the_published_schemas(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    for extra in ({}, {"n": 3}, {"logprobs": True}, {"max_tokens": 2}, {"stop": None}):
        body = {"model": "acme", "messages": [QUESTION], **extra}
        async with server.post(key, body) as response:
            assert response.status == 200
            conforms(await response.json(), "CreateChatCompletionResponse")
        options = {"stream": True, "stream_options": {"include_usage": True}}
        async with server.post(key, body | options) as response:
            assert response.status == 200
            for event in (await events(response))[:-1]:
                conforms(event, "CreateChatCompletionStreamResponse")


async def test_a_stream_has_one_id_one_role_and_one_end_for_each_choice(server: Serving) -> None:
    await server.tenant()
    body = {"model": "acme", "messages": [QUESTION], "stream": True, "n": 2}
    async with server.post(await server.key(), body) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-request-id"]
        *chunks, done = await events(response)
    assert done == "[DONE]"
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)
    for index in (0, 1):
        mine = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
        assert [c["delta"].get("role") for c in mine] == ["assistant"] + [None] * (len(mine) - 1)
        assert [c["finish_reason"] for c in mine] == [None] * (len(mine) - 1) + ["stop"]


async def test_usage_comes_last_and_only_when_asked_for(server: Serving) -> None:
    await server.tenant()
    body = {
        "model": "acme",
        "messages": [QUESTION],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with server.post(await server.key(), body) as response:
        *chunks, last, _ = await events(response)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] > last["usage"]["completion_tokens"] > 0


# --- models ---


async def test_a_key_lists_its_own_models_and_the_base(server: Serving) -> None:
    await server.tenant("acme")
    await server.adapter("acme", system_prompt="Be brief.")
    await server.tenant("other")
    await server.adapter("other")
    async with server.session.get(
        f"{server.url}/v1/models",
        headers={"authorization": f"Bearer {await server.key('acme')}"},
    ) as response:
        answer = await response.json()
    conforms(answer, "ListModelsResponse")
    for model in answer["data"]:
        conforms(model, "Model")
    names = {model["id"] for model in answer["data"]}
    ours = {"tiny-base", "acme", "acme@1", "ft:tiny-base:acme::000000000001"}
    assert names == ours | {"all-minilm-l6-v2"}


async def test_each_listed_model_is_retrieved_and_answers(server: Serving) -> None:
    await server.tenant()
    await server.adapter()
    client = server.openai(await server.key())
    async for model in client.models.list():
        assert (await client.models.retrieve(model.id)).id == model.id
        if model.id == "all-minilm-l6-v2":
            assert (await client.embeddings.create(model=model.id, input="Hello")).data
            continue
        answer = await client.chat.completions.create(model=model.id, messages=[QUESTION])
        assert answer.model == model.id


async def test_another_tenants_model_answers_like_a_missing_one(server: Serving) -> None:
    await server.tenant("acme")
    await server.tenant("other")
    await server.adapter("other")
    key = await server.key("acme")
    client = server.openai(key)
    for model in ("other", "other@1", "ft:tiny-base:other::000000000001"):
        missing = model.replace("other", "nobody")
        theirs = await server.refusal(key, model=model)
        none = await server.refusal(key, model=missing)
        assert theirs[0] == none[0] == 404
        assert theirs[1]["code"] == "model_not_found"
        assert json.dumps(theirs).replace(model, "X") == json.dumps(none).replace(missing, "X")
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve(model)


async def test_a_promotion_by_another_process_shows_in_the_next_request(server: Serving) -> None:
    await server.tenant()
    await server.adapter(version=1)
    client = server.openai(await server.key())

    async def version() -> str:
        answer = await client.chat.completions.create(model="acme", messages=[QUESTION])
        return (answer.choices[0].message.content or "").partition(" ")[0]

    assert await version() == "[acme.000000000001]"
    await server.adapter(version=2, live=False)
    assert await version() == "[acme.000000000001]"
    promoted = sqlite3.connect(server.settings.database_url)
    with promoted:
        promoted.execute(
            "UPDATE tenant SET live_adapter_id = (SELECT id FROM adapter WHERE version = 2)"
        )
    promoted.close()
    assert await version() == "[acme.000000000002]"


# --- refusals ---


async def test_the_official_client_raises_the_right_exceptions(server: Serving) -> None:
    await server.tenant()
    good = server.openai(await server.key())
    with pytest.raises(openai.AuthenticationError) as unknown:
        await server.openai("tt_nobody").models.list()
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError):
        await server.openai(await server.key("acme", "train")).models.list()
    with pytest.raises(openai.NotFoundError) as missing:
        await good.chat.completions.create(model="nobody", messages=[QUESTION])
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        await good.chat.completions.create(
            model="acme", messages=[QUESTION], extra_body={"chat_template": "{{ messages }}"}
        )
    assert bad.value.param == "chat_template"
    assert bad.value.request_id


NOT_JSON = [b"", b"{", b"[]", b'{"model": "acme"', b"\xff", b"[" * 90_000, b'{"x":"\\ud800"}']


async def test_what_is_not_json_is_a_bad_request(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    for data in NOT_JSON:
        async with server.post(key, data) as response:
            assert response.status == 400, data
            conforms(await response.json(), "ErrorResponse")


async def test_errors_have_the_published_envelope_and_a_request_id(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    body = {"model": "acme", "messages": [QUESTION]}
    cases: list[tuple[str, Any, str, int]] = [
        (key, body | {"temperature": 9}, "/v1/chat/completions", 400),
        ("tt_wrong", body, "/v1/chat/completions", 401),
        (await server.key(None), body, "/v1/chat/completions", 403),
        (key, body | {"model": "nobody"}, "/v1/chat/completions", 404),
        (key, body, "/v1/nowhere", 404),
        (key, body, "/v1/models", 405),
        (key, {"model": "acme", "x": "x" * 200_000}, "/v1/chat/completions", 413),
    ]
    for used, sent, path, status in cases:
        async with server.post(used, sent, path) as response:
            assert response.status == status, await response.text()
            assert response.headers["x-request-id"]
            conforms(await response.json(), "ErrorResponse")


# --- when something goes away ---


async def test_generation_stops_when_the_client_of_a_stream_goes(slow_server: Serving) -> None:
    await slow_server.tenant()
    await slow_server.adapter()
    body = {"model": "acme", "messages": [QUESTION], "stream": True}
    response = await slow_server.post(await slow_server.key(), body)
    await response.content.readline()
    assert await slow_server.running() == 1
    response.close()
    await until(slow_server.is_idle, 0.7)  # the whole answer takes 1.8 s


async def test_generation_stops_when_the_client_of_a_whole_answer_goes(
    slow_server: Serving,
) -> None:
    await slow_server.tenant()
    await slow_server.adapter()
    body = {"model": "acme", "messages": [QUESTION]}
    key = await slow_server.key()
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(ask(slow_server, key, body))
        await until(slow_server.is_busy)
        asking.cancel()
    await until(slow_server.is_idle, 0.7)  # the whole answer takes 1.8 s


async def test_an_engine_that_dies_ends_streams_with_an_error_and_comes_back(
    slow_server: Serving,
) -> None:
    await slow_server.tenant()
    await slow_server.adapter()
    key = await slow_server.key()
    client = slow_server.openai(key)
    stream = await client.chat.completions.create(model="acme", messages=[QUESTION], stream=True)
    await anext(stream)
    slow_server.kill_engine()
    with pytest.raises(openai.APIError, match="engine"):
        async for _ in stream:
            pass
    body = {"model": "acme", "messages": [QUESTION], "max_tokens": 1}
    refused = 0
    async with asyncio.timeout(20):
        while True:
            async with slow_server.post(key, body) as response:
                if response.status == 200:
                    break
                refused += 1
                assert response.status == 503
                assert int(response.headers["retry-after"]) >= 1
                conforms(await response.json(), "ErrorResponse")
    assert refused


async def test_a_stream_that_breaks_ends_with_an_error_event_and_no_done(
    slow_server: Serving,
) -> None:
    await slow_server.tenant()
    body = {"model": "acme", "messages": [QUESTION], "stream": True}
    async with slow_server.post(await slow_server.key(), body) as response:
        await response.content.readline()
        slow_server.kill_engine()
        text = await response.text()
    last = text.rstrip().rpartition("data: ")[2]
    conforms(json.loads(last), "ErrorResponse")
    assert "[DONE]" not in text


async def test_without_an_engine_chats_are_unavailable(
    settings: Settings, database: Database
) -> None:
    async with serving(settings, database, start_seconds=30, wait=False) as server:
        await server.tenant()
        client = server.openai(await server.key())
        with pytest.raises(openai.APIStatusError) as starting:
            await client.chat.completions.create(model="acme", messages=[QUESTION])
    assert starting.value.status_code == 503
    assert int(starting.value.response.headers["retry-after"]) >= 1


async def test_a_silent_stream_is_kept_open_with_comments(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(streaming, "WATCH_SECONDS", 0.02)
    async with serving(settings, database, tokens_per_second=10) as server:
        await server.tenant()
        body = {"model": "acme", "messages": [QUESTION], "stream": True, "max_tokens": 3}
        async with server.post(await server.key(), body) as response:
            text = await response.text()
    assert "\n\n: still here\n\n" in text
    assert text.endswith("data: [DONE]\n\n")


async def ask(server: Serving, key: str, body: dict[str, Any]) -> None:
    async with server.post(key, body) as response:
        await response.read()
