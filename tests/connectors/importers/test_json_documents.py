"""JSON that is not one object a line."""

import io
import json

import pytest

from connectors.conversation import Conversation, Role
from connectors.errors import UnknownFormat
from connectors.importers import IMPORTERS, ImportOptions, Reason, Rejected, choose
from connectors.importers.base import MAX_CONVERSATION_CHARACTERS, MAX_TURNS
from connectors.training_files import read_examples as read_training_file


def record(asked: str, said: str = "b", **more) -> dict[str, object]:
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    return {**more, "messages": messages}


RECORDS = [record("one }", id="1"), record('two "x" [', id="2"), record("three\n{", id="3")]


def read(text: str, **options) -> tuple[list[Conversation], list[Rejected]]:
    head = text.encode()
    importer = choose(head[:65536], "export.json")
    items = list(importer.read(io.BytesIO(head), ImportOptions(**options)))
    kept = [item for item in items if isinstance(item, Conversation)]
    return kept, [item for item in items if isinstance(item, Rejected)]


@pytest.mark.parametrize(
    "text",
    [
        "[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]\n",
        "[" + ",\r\n".join(map(json.dumps, RECORDS)) + "]",
        "\n[\n" + "\n,".join(map(json.dumps, RECORDS)) + "]",
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2),
        json.dumps(RECORDS, indent=0),
        json.dumps(RECORDS, indent="\t").replace("\n", "\r\n"),
        "\n".join(json.dumps(each, indent=4) for each in RECORDS),
        ",\n".join(map(json.dumps, RECORDS)) + ",\n",
    ],
    ids=["a line each", "crlf", "comma first", "one line", "indented", "flat", "tabs", "no array", "no brackets"],
)  # fmt: skip
def test_every_record_is_read_whatever_the_shape(text):
    kept, rejected = read(text)
    assert not rejected
    assert [conversation.id for conversation in kept] == ["1", "2", "3"]
    assert [conversation.turns[0].text for conversation in kept] == [
        "one }",
        'two "x" [',
        "three\n{",
    ]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("broken", ['"content": "b"}', '"content": "b'])
def test_a_broken_record_of_an_array_costs_itself_alone(indent, broken):
    whole = [json.dumps(record("a", id=str(n)), indent=indent) for n in range(4)]
    whole[1] = whole[1].replace('"content": "b"', broken)
    text = "[\n" + ",\n".join(whole).replace("\n", "\n  " if indent else "\n") + "\n]"
    text = text.replace("[\n{", "[\n  {", 1) if indent else text
    kept, rejected = read(text)
    ids = [conversation.id for conversation in kept]
    assert ids[0] == "0"
    assert ids[-1] == "3"
    assert {item.reason for item in rejected} == {Reason.BAD_JSON}
    assert rejected[0].line == text[: text.index('"1"')].count("\n") + (0 if indent else 1)


def test_what_is_no_object_in_an_array_is_told():
    kept, rejected = read("[\n" + json.dumps(RECORDS[0]) + ',\nnull,\n"x",\n7\n]')
    assert len(kept) == 1
    assert [item.line for item in rejected] == [3, 4, 5]


def test_a_line_over_the_bound_says_how_to_mend_it():
    text = "[" + ",".join([json.dumps(RECORDS[0])] * 100) + "]"
    kept, rejected = read(text, max_line_bytes=2000)
    assert not kept
    assert [(item.reason, "jq" in item.detail) for item in rejected] == [
        (Reason.LINE_TOO_LONG, True)
    ]


def test_an_array_of_something_else_is_refused_with_a_hint():
    with pytest.raises(UnknownFormat, match='none of its first records holds a list "messages"'):
        choose(b'[{"tickets": []}]', "export.json")


def test_a_training_file_stays_one_example_a_line():
    text = "[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]\n"
    found = list(read_training_file(io.BytesIO(text.encode()), "supervised"))
    assert any(isinstance(item, Rejected) and item.line == 1 for item in found)


@pytest.mark.parametrize(
    "flag", [{"private": True}, {"public": False}, {"internal": True}, {"is_private": True}]
)
@pytest.mark.parametrize("name", ["openai", "sharegpt"])
def test_a_message_for_colleagues_alone_is_a_note(name, flag):
    key, role, text = {
        "openai": ("messages", "role", "content"),
        "sharegpt": ("conversations", "from", "value"),
    }[name]
    said = [{role: "user", text: "q"}, {role: "assistant", text: "s", **flag}]
    kept = list(IMPORTERS[name].read(io.BytesIO(json.dumps({key: said}).encode()), ImportOptions()))
    assert isinstance(kept[0], Conversation)
    assert [turn.role for turn in kept[0].turns] == [Role.CUSTOMER, Role.NOTE]


def test_people_whom_a_record_names_are_handed_on():
    kept, _ = read(
        json.dumps(
            record("a", customer_name="Jane Doe", labels={"agent_name": "Tom", "topic": "x"})
        )
    )
    assert kept[0].names == {"Jane Doe": Role.CUSTOMER, "Tom": Role.AGENT}


def test_addresses_that_a_record_names_are_handed_on():
    kept, _ = read(
        json.dumps(record("a", postcode="BS1 4TT", labels={"shipping_street": "Elm Row 5"}))
    )
    assert kept[0].places == ("BS1 4TT", "Elm Row 5")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"role": "user", "content": "a"}] * (MAX_TURNS + 1), Reason.TOO_MANY_TURNS),
        ([{"role": "user", "content": "a" * (MAX_CONVERSATION_CHARACTERS + 1)}], Reason.TOO_LARGE),
    ],
)
def test_a_record_beyond_the_bounds_is_told(messages, reason):
    kept, rejected = read(json.dumps({"messages": messages}) + "\n" + json.dumps(RECORDS[0]))
    assert len(kept) == 1
    assert [item.reason for item in rejected] == [reason]
