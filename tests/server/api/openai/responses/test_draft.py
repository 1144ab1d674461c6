"""What a response's output becomes as the engine's chunks arrive."""

from typing import Any

import msgspec
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from server.api.openai.responses.draft import Draft, Event
from server.chat.schemas import (
    ChunkChoice,
    Delta,
    FunctionDelta,
    Logprobs,
    TokenLogprob,
    ToolCallDelta,
)
from server.errors import StreamBroken

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
RESPONSE = "0" * 32


def text(content: str | None, finish_reason: str | None = None, **fields: Any) -> ChunkChoice:
    return ChunkChoice(index=0, delta=Delta(content=content), finish_reason=finish_reason, **fields)


def call(index: int, *, name: str | None = None, arguments: str | None = None) -> ChunkChoice:
    part = ToolCallDelta(
        index=index,
        id=f"call_{index}" if name else None,
        function=FunctionDelta(name=name, arguments=arguments),
    )
    return ChunkChoice(index=0, delta=Delta(tool_calls=[part]))


def write(draft: Draft, *choices: ChunkChoice) -> list[dict[str, Any]]:
    """All events of an answer, each held against the client's model."""
    made: list[Event] = []
    for choice in choices:
        made += draft.add(choice)
    made += draft.end()
    events: list[dict[str, Any]] = msgspec.to_builtins(
        [
            {"type": kind, "sequence_number": number, **fields}
            for number, (kind, fields) in enumerate(made)
        ]
    )
    for event in events:
        EVENTS.validate_python(event, strict=True)
    return events


def shown(events: list[dict[str, Any]]) -> list[str]:
    return [
        event["type"].removeprefix("response.") + str(event["output_index"]) for event in events
    ]


def test_a_call_is_an_item_of_its_own():
    draft = Draft(RESPONSE, first=2)
    events = write(
        draft,
        text(""),
        call(0, name="weather", arguments=""),
        call(0, arguments='{"city":'),
        call(0, arguments='"Ghent"}'),
        text(None, "tool_calls"),
    )
    assert shown(events) == [
        "output_item.added0",
        "function_call_arguments.delta0",
        "function_call_arguments.delta0",
        "function_call_arguments.done0",
        "output_item.done0",
    ]
    assert events[0]["item"] == {
        "type": "function_call",
        "id": f"fc_{RESPONSE}0002",
        "status": "in_progress",
        "call_id": "call_0",
        "name": "weather",
        "arguments": "",
    }
    done = {**events[0]["item"], "status": "completed", "arguments": '{"city":"Ghent"}'}
    assert events[-1]["item"] == done
    assert events[-2]["arguments"] == done["arguments"]
    assert msgspec.to_builtins(draft.output) == [done]
    assert not draft.incomplete


def test_text_and_calls_are_items_one_after_the_other():
    draft = Draft(RESPONSE, first=0)
    events = write(
        draft,
        text("Let me see."),
        call(0, name="weather", arguments="{}"),
        call(1, name="time", arguments="{}"),
        text(None, "tool_calls"),
    )
    assert shown(events) == [
        "output_item.added0",
        "content_part.added0",
        "output_text.delta0",
        "output_text.done0",
        "content_part.done0",
        "output_item.done0",
        "output_item.added1",
        "function_call_arguments.delta1",
        "function_call_arguments.done1",
        "output_item.done1",
        "output_item.added2",
        "function_call_arguments.delta2",
        "function_call_arguments.done2",
        "output_item.done2",
    ]
    assert [item.id for item in draft.output] == [
        f"msg_{RESPONSE}0000",
        f"fc_{RESPONSE}0001",
        f"fc_{RESPONSE}0002",
    ]


def test_an_answer_without_words_is_an_empty_message():
    draft = Draft(RESPONSE, first=0)
    events = write(draft, text("", "stop"))
    assert shown(events) == [
        "output_item.added0",
        "content_part.added0",
        "output_text.done0",
        "content_part.done0",
        "output_item.done0",
    ]
    assert events[2]["text"] == ""


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_what_is_cut_off_is_incomplete(reason):
    draft = Draft(RESPONSE, first=0)
    events = write(draft, text("Half a"), text(None, reason))
    assert draft.incomplete
    assert events[-1]["item"]["status"] == "incomplete"
    draft = Draft(RESPONSE, first=0)
    events = write(draft, call(0, name="weather", arguments='{"ci'), text(None, reason))
    assert events[-1]["item"]["status"] == "incomplete"


def test_tokens_without_text_keep_their_probabilities():
    """A character of several tokens comes with the last of them."""
    tokens = [TokenLogprob(token="\ufffd", logprob=-0.5), TokenLogprob(token="é", logprob=-0.1)]
    draft = Draft(RESPONSE, first=0)
    events = write(
        draft,
        text("", logprobs=Logprobs(content=tokens[:1])),
        text("é", "stop", logprobs=Logprobs(content=tokens[1:])),
    )
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [(delta["delta"], len(delta["logprobs"])) for delta in deltas] == [("é", 2)]
    assert events[-1]["item"]["content"][0]["logprobs"][1]["bytes"] == list("é".encode())


def test_what_breaks_off_keeps_what_there_is():
    draft = Draft(RESPONSE, first=0)
    assert draft.broken() == []
    for choice in (text("Let me see."), call(0, name="weather", arguments='{"ci')):
        list(draft.add(choice))
    done, open_ = draft.broken()
    assert (done.status, open_.status) == ("completed", "incomplete")


def test_nothing_can_be_added_to_a_call_that_has_ended():
    draft = Draft(RESPONSE, first=0)
    for index in (0, 1):
        list(draft.add(call(index, name="weather", arguments="{}")))
    with pytest.raises(StreamBroken):
        list(draft.add(call(0, arguments="more")))


def test_a_calls_own_tokens_begin_no_message() -> None:
    logprobs = Logprobs(content=[TokenLogprob("<tool_call>", -0.1)])
    begun = call(0, name="f", arguments="{")
    begun.logprobs = logprobs
    draft = Draft(RESPONSE, first=0)
    write(
        draft,
        text(None, logprobs=logprobs),
        text("", logprobs=logprobs),
        begun,
        call(0, arguments="}"),
        text("", "tool_calls", logprobs=logprobs),
    )
    assert [type(item).__name__ for item in draft.output] == ["CallItem"]
    whole = call(0, name="f", arguments="{}")
    whole.logprobs = logprobs
    draft = Draft(RESPONSE, first=0)
    write(draft, whole)
    assert [type(item).__name__ for item in draft.output] == ["CallItem"]
