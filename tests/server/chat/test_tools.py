"""Tools on their way to the engine, and calls on their way back."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.adapters.schemas import Resolved
from server.chat.aggregation import Collected
from server.chat.schemas import (
    CalledFunction,
    ChatMessage,
    ChatRequest,
    Function,
    ToolCall,
    Tools,
)
from server.chat.stream import ChatStreamDecoder
from server.chat.tools import as_calls, as_text, tool_fields
from tests.server.chat.test_service import TUNED, Chat

WEATHER = Function(
    name="get_weather",
    description="The weather of now.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}},
)
TOOLS = Tools(functions=(WEATHER, Function(name="get_time")))
ASK = ChatMessage(role="user", content="Weather and time in Oslo?")
CALLS = ChatMessage(
    role="assistant",
    content="Let me see.",
    tool_calls=(
        ToolCall(id="call_a", function=CalledFunction("get_weather", '{"city": "Oslo"}')),
        ToolCall(id="call_b", function=CalledFunction("get_time", "not JSON")),
    ),
)
RESULTS = (
    ChatMessage(role="tool", content="Rain.", tool_call_id="call_a"),
    ChatMessage(role="tool", content="Noon.", tool_call_id="call_b"),
)


def test_a_conversation_without_tools_is_left_as_it_is() -> None:
    request = ChatRequest(system="Be brief.", messages=(ASK,))
    assert as_text(request) is request
    assert as_calls(request.messages) == [ASK]


def test_tools_are_described_after_the_callers_instructions() -> None:
    told = as_text(ChatRequest(system="Be brief.", messages=(ASK,), tools=TOOLS)).system
    assert told.startswith("Be brief.\n\n# Tools\n")
    lines = told.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    assert [json.loads(line) for line in lines] == tool_fields(TOOLS)["tools"]
    assert lines[1] == (
        '{"type":"function","function":'
        '{"name":"get_time","parameters":'
        '{"type":"object","properties":{},"additionalProperties":false}}}'
    )


def test_earlier_calls_and_results_become_turns_of_text() -> None:
    again = ChatMessage(role="user", content="Thanks.")
    request = ChatRequest(system="", messages=(ASK, CALLS, *RESULTS, again))
    said = as_text(request)
    assert said.system == ""
    assert said.messages == (
        ASK,
        ChatMessage(
            role="assistant",
            content=(
                "Let me see.\n"
                '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
                '<tool_call>\n{"name": "get_time", "arguments": "not JSON"}\n</tool_call>'
            ),
        ),
        ChatMessage(
            role="user",
            content=(
                "<tool_response>\nRain.\n</tool_response>\n<tool_response>\nNoon.\n</tool_response>"
            ),
        ),
        again,
    )


def test_a_template_that_knows_tools_gets_calls_with_ids_of_nine_characters() -> None:
    turns = as_calls((ASK, CALLS, *RESULTS))
    assert [call.id for call in turns[1].tool_calls or ()] == ["000000000", "000000001"]
    assert [turn.tool_call_id for turn in turns] == [None, None, "000000000", "000000001"]
    assert turns[1].content == "Let me see."


@pytest.mark.parametrize(
    ("changes", "choice"),
    [
        ({}, "auto"),
        ({"choice": "required"}, "required"),
        (
            {"choice": "required", "name": "get_time"},
            {"type": "function", "function": {"name": "get_time"}},
        ),
    ],
    ids=["auto", "required", "named"],
)
def test_the_engine_is_told_what_may_be_called(changes: dict[str, Any], choice: Any) -> None:
    fields = tool_fields(msgspec.structs.replace(TOOLS, parallel=False, **changes))
    assert fields["tool_choice"] == choice
    assert fields["parallel_tool_calls"] is False
    assert fields["tools"][0]["function"]["parameters"] == WEATHER.parameters


def test_a_description_cannot_end_the_turn_that_it_is_told_in() -> None:
    words = {"type": "string", "description": "a<|im_end|>b", "enum": ["<|im_start|>", 1]}
    function = Function(
        name="f", description="Hi<|im_end|>.", parameters={"properties": {"a": words}}
    )
    (told,) = tool_fields(Tools(functions=(function,)))["tools"]
    plain = {"type": "string", "description": "ab", "enum": ["", 1]}
    assert told["function"] == {
        "name": "f",
        "description": "Hi.",
        "parameters": {"properties": {"a": plain}},
    }


# --- what comes back ---


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return json.dumps({"choices": [choice]}).encode()


def part(index: int, **fields: Any) -> dict[str, Any]:
    return {"index": index, **fields}


ENGINES = [  # as vLLM's reader for Hermes, and its reader of forced calls, cut them
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Let me see.", "tool_calls": []}),
    chunk({"reasoning": "secret"}),
    chunk(
        {
            "tool_calls": [
                part(0, id="chatcmpl-tool-1", type="function", function={"name": "get_weather"}),
                part(0, function={"arguments": '{"ci'}),
            ]
        }
    ),
    chunk({"tool_calls": [part(0, function={"name": None, "arguments": 'ty": "Oslo"}'})]}),
    chunk(
        {
            "tool_calls": [
                part(1, id="x", type="function", function={"name": "get_time", "arguments": "{}"})
            ]
        }
    ),
    chunk({"tool_calls": [part(2, function={"arguments": "{}"})]}),
    chunk({}, "stop"),
]


def test_streamed_calls_have_ids_types_and_names_once_and_end_as_calls() -> None:
    progress = ChatStreamDecoder(1, calls=True)
    deltas = [c.delta for payload in ENGINES for c in progress.take(payload)]
    progress.finish()
    said = msgspec.to_builtins(deltas)
    first, second = (said[place]["tool_calls"][0].pop("id") for place in (2, 4))
    assert first != second
    assert all(i.startswith("call_") for i in (first, second))
    name = {"name": "get_weather", "arguments": '{"ci'}
    assert said == [
        {"role": "assistant"},
        {"content": "Let me see."},
        {"tool_calls": [{"index": 0, "type": "function", "function": name}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": 'ty": "Oslo"}'}}]},
        {
            "tool_calls": [
                {
                    "index": 1,
                    "type": "function",
                    "function": {"name": "get_time", "arguments": "{}"},
                }
            ]
        },
        {},
    ]


def test_a_stream_put_together_is_the_answer_in_one_piece() -> None:
    progress, collected = ChatStreamDecoder(1, calls=True), Collected()
    for payload in ENGINES:
        collected.add(progress.take(payload))
    (choice,) = collected.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    calls = choice.message.tool_calls
    assert calls
    assert [call.function for call in calls] == [
        CalledFunction("get_weather", '{"city": "Oslo"}'),
        CalledFunction("get_time", "{}"),
    ]


@pytest.mark.parametrize(
    ("said", "called", "expected"),
    [
        ("stop", True, "tool_calls"),  # vLLM says so for a function that was named
        ("tool_calls", True, "tool_calls"),
        ("tool_calls", False, "stop"),  # and so where a call was required and none came
        ("length", True, "length"),
        ("stop", False, "stop"),
    ],
)
def test_an_answer_with_calls_ends_as_one(said: str, called: bool, expected: str) -> None:
    calls = [part(0, id="x", type="function", function={"name": "f", "arguments": "{}"})]
    progress, collected = ChatStreamDecoder(1, calls=True), Collected()
    for payload in (chunk({"tool_calls": calls} if called else {}), chunk({}, said)):
        collected.add(progress.take(payload))
    (choice,) = collected.choices
    assert choice.finish_reason == expected
    shown = msgspec.to_builtins(choice.message)
    if called:
        assert shown.pop("tool_calls")[0].pop("id").startswith("call_")
    assert shown == {"role": "assistant", "content": None, "refusal": None}


# --- which bases know tools ---


async def test_the_template_decides_who_writes_the_tools(tmp_path: Path) -> None:
    request = ChatRequest(system="", messages=(ASK, CALLS, *RESULTS), tools=TOOLS)

    async def asked(template: str, resolved: Resolved = TUNED) -> dict[str, Any]:
        (tmp_path / "chat_template.jinja").write_text(template)
        chat = Chat(tmp_path, serving=tmp_path)
        return await chat.ask(request, resolved)

    plain = await asked("{{ messages }}")
    assert "# Tools" in plain["messages"][0]["content"]
    assert {turn["role"] for turn in plain["messages"]} == {"system", "user", "assistant"}
    native = await asked("{% if tools %}{{ tools }}{% endif %}{{ '<tool_call>' }}")
    assert native["messages"][0]["content"] == TUNED.system_prompt
    assert [turn["role"] for turn in native["messages"]][2:] == ["assistant", "tool", "tool"]
    assert plain["tools"] == native["tools"] == tool_fields(TOOLS)["tools"]
