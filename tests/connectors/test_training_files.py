"""Training files: what each method takes, what is left out, and that nothing personal is kept."""

import io
import json
from typing import Any

import pytest

from connectors.conversation import Conversation, Turn
from connectors.importers import Rejected
from connectors.preference import Preference, UnpairedPreference
from connectors.redaction.redactor import Redactor
from connectors.training_files import Method, read_examples, redact_example, system_message

USER = {"role": "user", "content": "Where is it? Write to jo@example.com"}
GOOD = {"role": "assistant", "content": "On its way, jo@example.com. Or ask ann@example.com."}
BAD = {"role": "assistant", "content": "Ask ann@example.com."}
SYSTEM = {"role": "system", "content": "Be kind."}
CALL = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "x"}
OLD_CALL = {"role": "assistant", "content": None, "function_call": {"name": "f"}}
OLD_RESULT = {"role": "function", "name": "f", "content": "x"}
PAIR = {
    "input": {"messages": [SYSTEM, USER], "tools": [], "parallel_tool_calls": True},
    "preferred_output": [GOOD],
    "non_preferred_output": [BAD],
}


def records(method: Method, *lines: Any) -> list[Any]:
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return list(read_examples(io.BytesIO(data), method))


def texts(turns: tuple[Turn, ...]) -> list[str]:
    return [turn.text for turn in turns]


def test_a_pair_is_redacted_as_one_conversation() -> None:
    (pair,) = records("dpo", PAIR)
    assert isinstance(pair, Preference)
    kept, counts = redact_example(pair, Redactor())
    assert isinstance(kept, Preference)
    assert texts(kept.turns) == ["Be kind.", "Where is it? Write to [EMAIL_1]"]
    assert texts(kept.chosen) == ["On its way, [EMAIL_1]. Or ask [EMAIL_2]."]
    assert texts(kept.rejected) == ["Ask [EMAIL_2]."]
    assert counts["EMAIL"] == 4
    assert system_message(kept) == "Be kind."


def test_a_judged_conversation_and_a_plain_one_are_redacted() -> None:
    (judged,) = records("kto", {"messages": [USER, GOOD], "label": False})
    (plain,) = records("supervised", {"messages": [USER, GOOD]})
    assert isinstance(judged, UnpairedPreference)
    assert isinstance(plain, Conversation)
    assert judged.label is False
    for record in (judged, plain):
        assert "@" not in "".join(texts(redact_example(record, Redactor())[0].turns))


def test_calls_of_tools_are_left_out_and_counted_as_a_part() -> None:
    chat = {"messages": [USER, CALL, {"role": "tool", "content": "x"}, GOOD], "tools": []}
    *parts, kept = records("supervised", chat)
    assert [(each.part, each.reason) for each in parts] == [(True, "tool_message")] * 2
    assert texts(kept.turns) == [USER["content"], GOOD["content"]]


@pytest.mark.parametrize(
    "messages",
    [
        [USER, CALL, RESULT, GOOD],
        [USER, CALL, {"role": "tool", "content": "x"}, GOOD],
        [USER, OLD_CALL, OLD_RESULT, GOOD],
        [USER, CALL, RESULT, GOOD, USER, CALL, RESULT, RESULT, GOOD],
        [USER | {"weight": None}, GOOD | {"weight": 1}],
        [USER, {"role": " Assistant ", "content": "x", "weight": 0}, USER, GOOD],
        [USER, {"role": "function_call", "content": "f()"}, OLD_RESULT, GOOD],
    ],
)
def test_calls_with_their_results_and_weights_of_the_assistant_are_taken(messages: Any) -> None:
    kept = [each for each in records("supervised", {"messages": messages}) if not is_part(each)]
    assert [type(each) for each in kept] == [Conversation]


def is_part(item: Any) -> bool:
    return isinstance(item, Rejected) and item.part


@pytest.mark.parametrize(
    ("method", "record", "why"),
    [
        ("supervised", {"messages": []}, "no messages"),
        ("supervised", {"messages": [GOOD]}, "no user message that an assistant message answers"),
        ("supervised", {"messages": [USER, GOOD | {"weight": 0}]}, "weight 0"),
        ("supervised", {"messages": [USER, GOOD | {"weight": "1"}]}, "weight must be 0 or 1"),
        ("supervised", PAIR, "no 'messages'"),
        ("supervised", {"messages": [USER | {"weight": 0}, GOOD]}, "message 1: only the assistant"),
        ("supervised", {"messages": [SYSTEM | {"weight": 1}, USER, GOOD]}, "not one from 'system'"),
        ("supervised", {"messages": [USER, CALL, RESULT | {"weight": 0}, GOOD]}, "from 'tool'"),
        (
            "supervised",
            {"messages": [USER, RESULT, GOOD]},
            "message 2 is the result of a tool that",
        ),
        ("supervised", {"messages": [USER, RESULT, CALL, GOOD]}, "message 2 is the result"),
        ("supervised", {"messages": [USER, OLD_RESULT, GOOD]}, "message 2 is the result"),
        ("supervised", {"messages": [USER, CALL, RESULT | {"tool_call_id": "2"}, GOOD]}, "'2'"),
        (
            "supervised",
            {"messages": [USER, CALL, RESULT | {"tool_call_id": {}}, GOOD]},
            "answers {}",
        ),
        ("dpo", PAIR | {"input": {"messages": [USER | {"weight": 1}]}}, "input: message 1: only"),
        ("dpo", PAIR | {"input": {"messages": [RESULT, USER]}}, "input: message 1 is the result"),
        ("kto", {"messages": [USER | {"weight": 0}, GOOD], "label": True}, "message 1: only"),
        ("kto", {"messages": [USER, RESULT, GOOD], "label": True}, "message 2 is the result"),
        ("dpo", {"messages": [USER, GOOD]}, "no 'input' with 'messages'"),
        ("dpo", PAIR | {"input": {"messages": [USER, GOOD]}}, "input: the last message"),
        ("dpo", PAIR | {"input": {"messages": [SYSTEM]}}, "input: the last message"),
        ("dpo", PAIR | {"preferred_output": [USER]}, "preferred_output: every message"),
        ("dpo", PAIR | {"preferred_output": [CALL]}, "preferred_output: no message with text"),
        ("dpo", PAIR | {"non_preferred_output": "no"}, "non_preferred_output: 'messages'"),
        ("dpo", {"input": PAIR["input"]}, "no 'preferred_output'"),
        ("kto", {"messages": [USER, GOOD]}, "'label' must be true or false"),
        ("kto", {"messages": [USER, GOOD], "label": 1}, "'label' must be true or false"),
        ("kto", {"label": True}, "no 'messages'"),
        ("kto", {"messages": [USER], "label": True}, "the last message must be from 'assistant'"),
        ("kto", {"messages": [GOOD], "label": True}, "no user message"),
    ],
)
def test_what_is_no_example_is_named_with_its_line(method: Method, record: Any, why: str) -> None:
    good = {"dpo": PAIR, "kto": {"messages": [USER, GOOD], "label": True}}
    kept, rejected = records(method, good.get(method, {"messages": [USER, GOOD]}), record)
    assert not isinstance(kept, Rejected)
    assert isinstance(rejected, Rejected)
    assert (rejected.line, rejected.part) == (2, False)
    assert why in rejected.detail
