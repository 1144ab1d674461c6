"""What the server relies on, asked of every engine: the fake one and vLLM.

The interface is ``server.engine.backend.EngineBackend``. Each engine is used as ``--engine-url``
uses it (``server.engine.backends.remote``), by its backend and by the service over it.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import jsonschema
import msgspec
import pytest
import pytest_asyncio

from server.engine.backend import TEXT, EngineBackend
from server.engine.backends.fake import Engine as FakeEngine
from server.engine.service import AdapterRef, EngineService
from server.errors import AdapterRefused, EngineRejected, EngineUnavailable
from tests.engines import engine_metrics, loaded_adapters

MESSAGES = [
    {"role": "system", "content": "You answer briefly."},
    {"role": "user", "content": "How do I reset my password?"},
]
TOKEN_IDS = [5, 9, 12, 9, 40, 7, 7, 101]
SCHEMA = {
    "type": "object",
    "properties": {
        "to": {"enum": ["Oslo", "Rome"]},
        "n": {"type": "integer", "minimum": 1, "maximum": 9},  # or digits may never end
    },
    "required": ["to", "n"],
    "additionalProperties": False,
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = [
    {"type": "function", "function": {"name": "now", "parameters": NOTHING}},
    {"type": "function", "function": {"name": "ask", "parameters": SCHEMA}},
]
NAMED = {"type": "function", "function": {"name": "ask"}}


class Engine(msgspec.Struct):
    """A service over an engine, and two adapters of one tenant that answer differently."""

    service: EngineService
    old: AdapterRef
    new: AdapterRef

    @property
    def backend(self) -> EngineBackend:
        return self.service.client

    async def loaded(self) -> list[str]:
        """Names of the adapters that the engine itself says are loaded."""
        return await loaded_adapters(self.service.client)


@pytest_asyncio.fixture(
    params=[
        "fake",
        pytest.param("vllm", marks=[pytest.mark.heavy, pytest.mark.vllm, pytest.mark.timeout(600)]),
    ]
)
async def engine(
    request: pytest.FixtureRequest, tmp_path: Path, make_adapter: Any
) -> AsyncIterator[Engine]:
    """Each engine in turn, used through its URL.

    The fake one runs in this process. ``vllm_engine`` is one process for all tests; it has
    ``url``, ``base`` and ``adapters`` (two AdapterRefs).
    """
    async with AsyncExitStack() as stack:
        if request.param == "fake":
            adapters = [make_adapter("acme.000000000001"), make_adapter("acme.000000000002")]
            base, url = "fake-base", f"unix:{tmp_path / 'engine.sock'}"
            fake = FakeEngine(base=base, adapters=tmp_path / "adapters", tokens_per_second=300)
            await stack.enter_async_context(fake.serving(tmp_path / "engine.sock"))
        else:
            process = request.getfixturevalue("vllm_engine")
            adapters, base, url = process.adapters, process.base, process.url
        service = EngineService(base=base, run=tmp_path, url=url)
        await service.start()
        stack.push_async_callback(service.stop, grace_seconds=1)
        await service.wait_ready(120)
        yield Engine(service=service, old=adapters[0], new=adapters[1])


def body(tokens: int = 8, **more: Any) -> dict[str, Any]:
    return {
        "messages": MESSAGES,
        "max_tokens": tokens,
        "min_tokens": tokens,
        "temperature": 0,
        **more,
    }


async def chunks(engine: Engine, adapter: AdapterRef | None, asked: dict[str, Any]) -> list[Any]:
    async with engine.service.stream(asked, tenant="acme", adapter=adapter) as payloads:
        return [msgspec.json.decode(payload) async for payload in payloads]


async def whole(engine: Engine, adapter: AdapterRef | None, asked: dict[str, Any]) -> Any:
    return msgspec.json.decode(await engine.service.complete(asked, tenant="acme", adapter=adapter))


def text(parts: list[Any]) -> str:
    deltas = [choice["delta"] for part in parts for choice in part["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


async def running(engine: Engine) -> float:
    metrics = await engine_metrics(engine.service.client)
    found = re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", metrics, re.MULTILINE)
    return sum(float(value) for value in found)


async def test_its_metrics_have_the_figures_that_the_console_shows(engine):
    figures = engine.service.figures
    assert (await figures.read()).kv_cache is not None
    await whole(engine, engine.old, body())
    figures._looked_at -= 10  # as if the look before were longer ago
    later = await figures.read()
    assert later.generated_per_second
    assert 0 < later.generated_per_second < 100


async def test_a_stream_has_the_role_first_then_text_one_finish_and_usage_last(engine):
    parts = await chunks(engine, engine.old, body(stream_options={"include_usage": True}))
    roles = [c["delta"].get("role") for part in parts for c in part["choices"]]
    assert roles[0] == "assistant"
    assert set(roles[1:]) <= {None}
    finishes = [c["finish_reason"] for part in parts for c in part["choices"]]
    assert [reason for reason in finishes if reason] == ["length"]
    assert text(parts)
    assert {part["object"] for part in parts} == {"chat.completion.chunk"}
    assert len({(part["id"], part["created"], part["model"]) for part in parts}) == 1
    assert parts[-1]["choices"] == []
    usage = parts[-1]["usage"]
    assert usage["completion_tokens"] == 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + 8


async def test_without_the_option_a_stream_carries_no_usage(engine):
    parts = await chunks(engine, None, body())
    assert not [part for part in parts if part.get("usage")]
    assert all(part["choices"] for part in parts)


EVERYWHERE = {"include_usage": True, "continuous_usage_stats": True}


async def test_each_chunk_counts_its_choice_where_that_is_asked_for(engine):
    asked = body(4, n=2, temperature=0.5, stream_options=EVERYWHERE)
    *parts, last = await chunks(engine, engine.old, asked)
    counted: dict[int, list[int]] = {0: [], 1: []}
    for part in parts:
        (choice,) = part["choices"]
        assert part["usage"]["prompt_tokens"] == last["usage"]["prompt_tokens"]
        counted[choice["index"]].append(part["usage"]["completion_tokens"])
    assert counted == {0: [0, 1, 2, 3, 4], 1: [0, 1, 2, 3, 4]}
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 8


async def test_each_chunk_of_texts_counts_its_choice_and_its_prompt(engine):
    asked = {"prompt": ["The sea is", "A parcel"], "max_tokens": 3, "min_tokens": 3}
    asked |= {"stream_options": EVERYWHERE}
    where: dict[str, Any] = {"tenant": "acme", "adapter": engine.old, "path": TEXT}
    async with engine.service.stream(asked, **where) as payloads:
        *parts, last = [msgspec.json.decode(payload) async for payload in payloads]
    counted: dict[int, list[int]] = {0: [], 1: []}
    prompts = {}
    for part in parts:
        (choice,) = part["choices"]
        prompts[choice["index"]] = part["usage"]["prompt_tokens"]
        counted[choice["index"]].append(part["usage"]["completion_tokens"])
    assert counted == {0: [1, 2, 3], 1: [1, 2, 3]}
    assert sum(prompts.values()) == last["usage"]["prompt_tokens"]


async def test_tokens_are_sent_as_they_come_and_their_text_when_no_stop_string_can_begin_in_it(
    engine,
):
    asked = body(8, logprobs=True, stop=["never said by anybody"])
    choices = [c for part in await chunks(engine, engine.old, asked) for c in part["choices"]]
    told = [c["logprobs"]["content"] for c in choices if c["logprobs"]]
    assert [len(tokens) for tokens in told] == [1] * 8
    assert not any(c["delta"].get("content") for c in choices[:2])
    said = "".join(c["delta"].get("content") or "" for c in choices)
    words = "".join(token["token"] for tokens in told for token in tokens)
    # a token that breaks off in the midst of a character has no text of its own
    assert words.replace("\ufffd", "") == said.replace("\ufffd", "")


async def test_a_whole_answer_says_what_the_stream_says(engine):
    streamed = await chunks(engine, engine.old, body())
    answer = await whole(engine, engine.old, body())
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["message"]["content"] == text(streamed)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 8


async def test_adapters_and_base_answer_each_in_their_own_way(engine):
    answers = [
        (await whole(engine, adapter, body(16)))["choices"][0]["message"]["content"]
        for adapter in (None, engine.old, engine.new)
    ]
    assert len(set(answers)) == 3


async def test_a_request_that_makes_no_sense_is_rejected_before_anything_is_streamed(engine):
    with pytest.raises(EngineRejected) as caught:
        await chunks(engine, None, {"messages": [], "max_tokens": 4})
    assert caught.value.status == 400
    assert caught.value.message


async def test_an_unknown_model_is_not_found(engine):
    with pytest.raises(EngineRejected) as caught:
        await engine.backend.complete({**body(), "model": "nobody.000000000009"})
    assert caught.value.status == 404


async def test_loading_and_unloading_twice_is_the_same_as_once(engine):
    backend = engine.backend
    for _ in range(2):
        assert await backend.ensure_adapter(engine.old.name, engine.old.path) >= 0
    assert engine.old.name in await engine.loaded()
    for _ in range(2):
        await backend.drop_adapter(engine.old.name)
    assert engine.old.name not in await engine.loaded()
    engine.service.adapters.mark_stale(engine.old.name)
    await whole(engine, engine.old, body())
    assert engine.old.name in await engine.loaded()


async def test_a_missing_folder_and_a_name_in_use_are_refused_with_a_reason(engine):
    backend = engine.backend
    with pytest.raises(AdapterRefused) as caught:
        await backend.ensure_adapter("acme.00000000000f", engine.old.path + "-gone")
    assert caught.value.code in ("adapter_missing", "adapter_refused")
    await backend.ensure_adapter(engine.old.name, engine.old.path)
    with pytest.raises(AdapterRefused) as caught:
        await backend.ensure_adapter(engine.old.name, engine.new.path)
    assert caught.value.code == "name_in_use"


async def test_a_forgotten_adapter_is_unloaded_when_its_last_stream_ends(engine):
    asked = body(12)
    async with engine.service.stream(asked, tenant="acme", adapter=engine.old) as payloads:
        await engine.service.forget(engine.old.name)
        assert engine.old.name in await engine.loaded()
        async for _ in payloads:
            pass
    assert engine.old.name not in await engine.loaded()


async def test_a_client_that_goes_frees_the_engine_within_two_seconds(engine):
    async def leave_early(adapter: AdapterRef | None) -> None:
        asked = body(400)
        async with engine.service.stream(asked, tenant="acme", adapter=adapter) as payloads:
            await anext(payloads)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await whole(engine, None, body(400))

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(leave_early(engine.old if number % 2 else None))
        for _ in range(2):
            group.create_task(give_up())
    left = monotonic()
    while await running(engine):
        assert monotonic() - left < 2
        await asyncio.sleep(0.05)
    assert engine.service.requests == 0


async def test_a_score_has_one_value_per_token_and_none_for_the_first(engine):
    scores = await engine.service.score(TOKEN_IDS, tenant="acme", adapter=engine.old)
    assert len(scores) == len(TOKEN_IDS)
    assert scores[0] is None
    assert all(score is not None and score <= 0 for score in scores[1:])
    again = await engine.service.score(TOKEN_IDS, tenant="acme", adapter=engine.old)
    base = await engine.service.score(TOKEN_IDS, tenant="acme", adapter=None)
    assert again == pytest.approx(scores, abs=1e-3)
    assert base[1:] != pytest.approx(scores[1:], abs=1e-3)


def calling(choice: Any) -> dict[str, Any]:
    return {
        "messages": MESSAGES,
        "tools": TOOLS,
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "max_tokens": 80,
        "temperature": 0,
    }


async def test_a_function_that_must_be_called_is_with_arguments_by_its_schema(engine):
    async with asyncio.TaskGroup() as group:
        named = group.create_task(whole(engine, None, calling(NAMED)))
        streamed = group.create_task(chunks(engine, engine.old, calling(NAMED)))
        required = group.create_task(whole(engine, engine.old, calling("required")))
        forced = group.create_task(chunks(engine, None, calling("required")))
    for answer, name, finish in (
        (named.result(), "ask", "stop"),
        (required.result(), None, "tool_calls"),
    ):
        (choice,) = answer["choices"]
        (call,) = choice["message"]["tool_calls"]
        assert choice["finish_reason"] == finish
        assert not choice["message"]["content"]
        assert call["id"]
        assert call["type"] == "function"
        check_call(call["function"]["name"], call["function"]["arguments"], name)
    for parts, name, finish in (
        (streamed.result(), "ask", "stop"),
        (forced.result(), None, "tool_calls"),
    ):
        choices = [choice for part in parts for choice in part["choices"]]
        assert choices[0]["delta"]["role"] == "assistant"
        assert [c["finish_reason"] for c in choices if c["finish_reason"]] == [finish]
        assert not text(parts)
        calls = [call for c in choices for call in c["delta"].get("tool_calls", ())]
        assert {call["index"] for call in calls} == {0}
        assert [bool(call.get("id")) for call in calls] == [True] + [False] * (len(calls) - 1)
        assert calls[0]["type"] == "function"
        arguments = "".join(call["function"].get("arguments") or "" for call in calls)
        check_call(calls[0]["function"]["name"], arguments, name)


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        *(({"max_tokens": limit}, "length") for limit in (1, 3, 8, 14, 20)),
        ({"stop": ['"to"']}, "stop"),
    ],
)
async def test_a_call_that_is_cut_off_has_no_more_than_was_generated(engine, fields, ends):
    asked = {**calling(NAMED), "stream_options": EVERYWHERE, **fields}
    *parts, last = await chunks(engine, None, asked)
    choices = [choice for part in parts for choice in part["choices"]]
    assert not text(parts)
    assert choices[-1]["finish_reason"] == ends
    calls = [call for c in choices for call in c["delta"].get("tool_calls", ())]
    assert [call["function"]["name"] for call in calls[:1]] in ([], ["ask"])
    arguments = "".join(call["function"].get("arguments") or "" for call in calls)
    assert '{"to": '.replace(" ", "").startswith(arguments[:6].replace(" ", ""))
    assert arguments != "{}"
    if ends == "stop":
        assert arguments == "{"
    else:
        assert last["usage"]["completion_tokens"] == fields["max_tokens"]


def check_call(name: str, arguments: str, expected: str | None) -> None:
    assert name == (expected or name)
    assert name in ("now", "ask")
    jsonschema.validate(msgspec.json.decode(arguments), SCHEMA if name == "ask" else NOTHING)


async def test_without_need_tools_need_not_be_called(engine):
    for choice in ("auto", "none"):
        answer = await whole(engine, None, {**calling(choice), "max_tokens": 4})
        assert answer["choices"][0]["message"]["content"]
        assert not answer["choices"][0]["message"].get("tool_calls")


async def test_an_answer_by_schema_follows_it(engine):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    asked = {"messages": MESSAGES, "max_tokens": 60, "temperature": 0, "response_format": form}
    answer = await whole(engine, engine.old, asked)
    assert answer["choices"][0]["finish_reason"] == "stop"
    jsonschema.validate(msgspec.json.decode(answer["choices"][0]["message"]["content"]), SCHEMA)


async def test_a_schema_that_makes_no_sense_is_rejected(engine):
    function = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "no"}}}}
    asked = calling("required") | {"tools": [{"type": "function", "function": function}]}
    with pytest.raises(EngineRejected) as caught:
        await whole(engine, None, asked)
    assert caught.value.status == 400


async def continued(engine: Engine, asked: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The same texts whole and streamed."""
    where: dict[str, Any] = {"tenant": "acme", "adapter": engine.old, "path": TEXT}
    async with engine.service.stream(
        {**asked, "stream_options": {"include_usage": True}}, **where
    ) as payloads:
        parts = [msgspec.json.decode(payload) async for payload in payloads]
    return msgspec.json.decode(await engine.service.complete(asked, **where)), parts


@pytest.mark.parametrize(
    ("fields", "choices"),
    [
        ({"prompt": ["The sea is", "A parcel"], "n": 2, "temperature": 0.5, "seed": 1}, 4),
        ({"prompt": TOKEN_IDS, "logprobs": 2}, 1),
        ({"prompt": "The sea is", "echo": True}, 1),
    ],
    ids=["several", "tokens", "echo"],
)
async def test_texts_are_continued_in_one_piece_or_several(engine, fields, choices):
    asked = {"max_tokens": 4, "min_tokens": 4, "temperature": 0, **fields}
    answer, parts = await continued(engine, asked)
    assert answer["object"] == "text_completion"
    assert [choice["index"] for choice in answer["choices"]] == list(range(choices))
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert answer["usage"]["completion_tokens"] == 4 * choices
    assert parts[-1]["choices"] == []
    assert parts[-1]["usage"]["total_tokens"] == answer["usage"]["total_tokens"]
    for choice in answer["choices"]:
        mine = [c for part in parts for c in part["choices"] if c["index"] == choice["index"]]
        assert [c["finish_reason"] for c in mine if c["finish_reason"]] == ["length"]
        assert choice["text"]
        if choices == 1:  # with a seed a batch's rounding may still tell two runs apart
            assert "".join(c["text"] for c in mine) == choice["text"]
        if fields.get("echo"):
            assert choice["text"].startswith("The sea is")
        if fields.get("logprobs"):
            told = choice["logprobs"]
            assert len(told["tokens"]) == len(told["token_logprobs"]) == 4
            assert sum(len(c["logprobs"]["tokens"]) for c in mine) == 4


async def test_streamed_texts_echo_their_prompt_and_its_tokens(engine):
    # with several answers to a prompt vLLM loses its log-probabilities now and then, and breaks off
    prompts = ["The sea is", "A parcel"]
    asked = {"prompt": prompts, "temperature": 0, "max_tokens": 3, "min_tokens": 3}
    _, parts = await continued(engine, {**asked, "echo": True, "logprobs": 1})
    for index, prompt in enumerate(prompts):
        mine = [c for part in parts for c in part["choices"] if c["index"] == index]
        said = "".join(c["text"] for c in mine)
        assert said.startswith(prompt)
        assert "".join(token for c in mine for token in c["logprobs"]["tokens"]) == said


async def test_an_echo_alone_is_counted_as_one_token(engine):
    prompts = ["The sea is", "A parcel"]
    asked = {"prompt": prompts, "echo": True, "max_tokens": 0}
    answer, parts = await continued(engine, asked)
    choices = [choice for part in parts for choice in part["choices"]]
    assert sorted(choice["text"] for choice in choices) == sorted(prompts)
    assert {choice["finish_reason"] for choice in choices} == {"length"}
    assert answer["usage"]["completion_tokens"] == parts[-1]["usage"]["completion_tokens"] == 2


async def test_no_prompt_is_rejected_before_anything_is_streamed(engine):
    with pytest.raises(EngineRejected) as caught:
        await continued(engine, {"prompt": "", "max_tokens": 4})
    assert caught.value.status == 400


async def test_sixteen_open_streams_end_on_the_old_adapter_while_new_ones_use_the_new(engine):
    tokens = 48
    live = engine.old
    opened = asyncio.Barrier(17)

    async def ask(*, wait: bool) -> tuple[str, str, list[Any]]:
        used = live
        async with engine.service.stream(body(tokens), tenant="acme", adapter=used) as payloads:
            parts = [msgspec.json.decode(await anext(payloads))]
            if wait:
                await opened.wait()
            parts += [msgspec.json.decode(payload) async for payload in payloads]
        return used.name, text(parts), parts

    async with asyncio.TaskGroup() as group:
        before = [group.create_task(ask(wait=True)) for _ in range(16)]
        await opened.wait()
        live = engine.new
        after = [group.create_task(ask(wait=False)) for _ in range(8)]
    answers: dict[str, set[str]] = {engine.old.name: set(), engine.new.name: set()}
    for tasks, adapter in ((before, engine.old), (after, engine.new)):
        for task in tasks:
            name, said, parts = task.result()
            answers[name].add(said)
            assert name == adapter.name
            assert {part["model"] for part in parts} == {adapter.name}
            finishes = [c["finish_reason"] for part in parts for c in part["choices"]]
            assert "length" in finishes
    # Which words a random adapter says depends on the batch's rounding, so answers are not compared
    # with lone ones here (tests/server/engine/vllm/test_engine.py does, where they must be equal).
    assert not answers[engine.old.name] & answers[engine.new.name]


async def test_an_engine_says_how_many_answers_it_generates_at_once(engine):
    assert engine.service.max_num_seqs > 1
    assert engine.service.max_num_seqs == (await engine.backend.info()).settings.max_num_seqs


async def test_a_stopped_service_is_unavailable(engine):
    await engine.service.stop(grace_seconds=1)
    with pytest.raises(EngineUnavailable):
        await chunks(engine, None, body())
