"""What is particular to each importer; the shared behaviour is in contracts/test_importers.py."""

import io
from pathlib import Path

import pytest

from connectors.conversation import ChatMessage, Conversation, Role, chat_messages
from connectors.errors import BadMapping
from connectors.importers import (
    IMPORTERS,
    Importer,
    ImportOptions,
    Reason,
    Rejected,
    parse_map,
)
from connectors.importers.messages import MessageLines

DATA = Path(__file__).parents[2] / "data" / "transcripts"


def read(name: str, data: bytes | str, **options) -> tuple[list[Conversation], list[Rejected]]:
    stream = io.BytesIO(data.encode() if isinstance(data, str) else data)
    items = list(IMPORTERS[name].read(stream, ImportOptions(**options)))
    kept = [item for item in items if isinstance(item, Conversation)]
    return kept, [item for item in items if isinstance(item, Rejected)]


def fixture(name: str) -> bytes:
    return (DATA / name).read_bytes()


def test_openai_keeps_weights_labels_and_parts_and_counts_what_is_no_text():
    kept, rejected = read("openai", fixture("openai.jsonl"))
    assert [conversation.id for conversation in kept] == ["line-1", "lib-2"]
    assert kept[0].turns[0].role is Role.SYSTEM
    assert kept[1].labels == {"intent": "fines", "urgent": "false"}
    assert kept[1].channel == "chat"
    assert [turn.weight for turn in kept[1].turns] == [1, 1, 1, 0]
    assert kept[1].turns[0].text == "Why do I owe 2 crowns?"
    assert all(item.part and item.line == 2 for item in rejected)
    assert [item.reason for item in rejected] == [
        Reason.NOT_TEXT,
        Reason.TOOL_MESSAGE,
        Reason.TOOL_MESSAGE,
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"messages": []}', Reason.NO_TURNS),
        ('{"messages": {}}', Reason.BAD_RECORD),
        ('{"messages": ["hi"]}', Reason.BAD_RECORD),
        ('{"messages": [{"role": "wizard", "content": "hi"}]}', Reason.BAD_ROLE),
        ('{"messages": [{"role": ["user"], "content": "hi"}]}', Reason.BAD_ROLE),
        ('{"messages": [{"content": "hi"}]}', Reason.BAD_ROLE),
        ('{"messages": [{"role": "user", "content": 7}]}', Reason.BAD_RECORD),
        ('{"messages": [{"role": "user", "content": " "}]}', Reason.EMPTY_TEXT),
        ('{"messages": [{"role": "user", "content": null}]}', Reason.EMPTY_TEXT),
        ('{"messages": [{"role": "tool", "content": "x"}]}', Reason.TOOL_MESSAGE),
        ('{"messages": [{"role": "user", "content": "a", "weight": 2}]}', Reason.BAD_RECORD),
        ('{"messages": [{"role": "user", "content": [{"type": "text"}]}]}', Reason.BAD_RECORD),
        ('{"messages": [{"role": "user", "content": "a\\u0000"}]}', Reason.NUL_BYTE),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', Reason.BAD_JSON),
        ('{"messages": [{"role": "user", "content": "a"}]}}', Reason.BAD_JSON),
    ],
)
def test_openai_rejects_what_it_cannot_read(line, reason):
    kept, rejected = read("openai", line)
    assert not kept
    assert [(item.line, item.reason, item.part) for item in rejected] == [(1, reason, False)]


def test_an_empty_message_is_left_out_and_its_conversation_stays():
    line = (
        '{"messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": ""},'
        ' {"role": "assistant", "content": "hello"}]}'
    )
    kept, rejected = read("openai", line)
    assert len(kept[0].turns) == 2
    assert [(item.reason, item.part) for item in rejected] == [(Reason.EMPTY_TEXT, True)]


def test_a_role_of_ones_own_can_be_given_a_meaning():
    line = '{"messages": [{"role": "Concierge", "content": "hi"}]}'
    kept, _ = read("openai", line, roles={"concierge": Role.AGENT})
    assert kept[0].turns[0].role is Role.AGENT


def test_sharegpt_maps_its_speakers():
    kept, rejected = read("sharegpt", fixture("sharegpt.jsonl"))
    assert not rejected
    assert [len(chat_messages(conversation)) for conversation in kept] == [2, 2]
    assert kept[1].turns[0].role is Role.SYSTEM


def test_our_own_format_loses_nothing():
    kept, rejected = read("tenantune", fixture("tenantune.jsonl"))
    assert not rejected
    first = kept[0]
    assert first.split == "test"
    assert first.labels == {"line": "12"}
    assert (first.channel, first.language) == ("mail", "en")
    assert first.turns[0].author == "Odile Brandt"
    assert first.turns[0].sent_at == "2031-02-03T07:40:00+00:00"
    assert first.turns[1].role is Role.NOTE
    assert [m.role for m in chat_messages(first)] == ["user", "assistant"]


def test_our_own_format_is_read_under_the_old_name_of_a_role():
    new = fixture("tenantune.jsonl")
    assert read("tenantune", new.replace(b'"role"', b'"speaker"')) == read("tenantune", new)
    line = '{"id": "a", "turns": [{"role": "agent", "speaker": "%s", "text": "x"}]}\n'
    kept, rejected = read("tenantune", line % "agent" + line % "customer")
    assert [turn.role for turn in kept[0].turns] == [Role.AGENT]
    assert [(each.line, each.reason) for each in rejected] == [(2, Reason.BAD_RECORD)]
    assert "message 1: 'role' and 'speaker', its old name" in rejected[0].detail


def test_our_own_format_refuses_a_split_that_is_none():
    line = '{"id": "a", "turns": [{"role": "agent", "text": "x"}], "split": "exam"}'
    _, rejected = read("tenantune", line)
    assert "exam" in rejected[0].detail


def test_rows_are_gathered_into_conversations_in_order_of_time():
    kept, rejected = read("csv", fixture("turns.csv"))
    assert not rejected
    assert [conversation.id for conversation in kept] == ["7001", "7002"]
    first = kept[0].turns
    assert first[0].text == 'Hello,\nmy "Comet" lamp flickers'
    assert [turn.role for turn in first] == [Role.CUSTOMER, Role.AGENT]
    assert [turn.author for turn in first] == ["Milo", "Desk 4"]


def test_an_export_with_the_newest_first_is_turned_round():
    data = "conversation,role,text,time\n1,agent,bye,20\n1,user,hi,10\n"
    data = data.replace(",20", ",2031-01-01 10:00").replace(",10", ",2031-01-01 09:00")
    kept, _ = read("csv", data)
    assert [turn.text for turn in kept[0].turns] == ["hi", "bye"]


def test_times_that_cannot_be_read_leave_the_order_of_the_file():
    data = "conversation,role,text,time\n1,agent,bye,noon\n1,user,hi,2031-01-01\n"
    kept, _ = read("csv", data)
    assert [turn.text for turn in kept[0].turns] == ["bye", "hi"]


def test_pairs_with_semicolons_in_cp1252_are_read():
    kept, rejected = read("csv", fixture("pairs.csv"))
    assert not rejected
    assert [turn.text for turn in kept[0].turns] == ["Wann öffnet ihr?", "Um neun Uhr."]
    assert [conversation.id for conversation in kept] == ["line-2", "line-3"]


def test_excels_delimiter_line_is_heeded():
    kept, _ = read("csv", "sep=|\r\nquestion|answer\r\na,b|c\r\n")
    assert kept[0].turns[0].text == "a,b"


def test_columns_can_be_named_by_hand():
    mapping, roles = parse_map(["conversation=Ref,text=What", "role=Who,role:Q=customer"])
    data = "Ref,Who,What,message\n1,Q,hi,x\n1,agent,hello,x\n"
    kept, rejected = read("csv", data, mapping=mapping, roles=roles)
    assert not rejected
    assert [turn.text for turn in kept[0].turns] == ["hi", "hello"]


def test_a_map_argument_may_have_the_old_name_of_a_role():
    old = parse_map(["conversation=Ref,speaker=Who", "speaker:Q=customer,role:R=agent"])
    assert old == parse_map(["conversation=Ref,role=Who,role:Q=customer,role:R=agent"])
    assert parse_map(["role=Who,speaker=Who,role:Q=agent,speaker:Q=agent"])[0] == {"role": "Who"}
    for contradiction in ("role=Who,speaker=From", "speaker=Who,role=From"):
        with pytest.raises(BadMapping, match="'role' and 'speaker', its old name"):
            parse_map([contradiction])
    with pytest.raises(BadMapping, match="'role:Q' and 'speaker:Q', its old name"):
        parse_map(["speaker:Q=agent", "role:Q=customer"])


def test_a_column_with_the_old_name_of_a_role_is_found_and_counts_first():
    new = read("csv", "ticket,role,text\n1,user,hi\n1,agent,hello\n")
    assert read("csv", "ticket,speaker,text\n1,user,hi\n1,agent,hello\n") == new
    both = "ticket,role,speaker,text\n1,Head of support,agent,hello\n1,Buyer,user,hi\n"
    kept, _ = read("csv", both)
    assert [turn.role for turn in kept[0].turns] == [Role.AGENT, Role.CUSTOMER]


@pytest.mark.parametrize(
    ("header", "mapping", "told"),
    [
        ("a,b,c", {}, "--map conversation=COLUMN,role=COLUMN,text=COLUMN"),
        ("thread,sender,message,body", {}, r"text \(several fit: message, body\)"),
        ("id,role,text", {}, "conversation"),
        ("ticket,role,text,question,answer", {}, "say which"),
        ("ticket,role,text", {"text": "Body"}, "no column 'Body'; the file has: ticket"),
        ("ticket,role,text", {"mood": "x"}, "no field 'mood'"),
    ],
)
def test_columns_that_cannot_be_told_are_asked_for(header, mapping, told):
    with pytest.raises(BadMapping, match=told):
        read("csv", f"{header}\n", mapping=mapping)


@pytest.mark.parametrize("item", ["text", "=x", "text=", "role:Q=boss", "mood=x"])
def test_a_map_argument_that_says_nothing_is_refused(item):
    with pytest.raises(BadMapping):
        parse_map([item])


def test_an_unknown_speaker_is_told_with_what_to_pass():
    kept, rejected = read("csv", "ticket,role,text\n1,Zaphod,hi\n1,user,hi\n")
    assert len(kept[0].turns) == 1
    assert rejected[0].reason == Reason.BAD_ROLE
    assert "--map" in rejected[0].detail


def test_an_unclosed_quote_costs_one_record_even_at_the_end_of_the_file():
    rows = [f'{n},user,"text {n}"' for n in range(5)]
    rows[1] = '1,user,"never closed'
    rows.append('5,user,"nor this')
    rows.append("6,user,plain")
    kept, rejected = read("csv", "ticket,role,text\n" + "\n".join(rows) + "\n")
    assert [conversation.id for conversation in kept] == ["0", "2", "3", "4", "6"]
    assert [(item.line, item.reason) for item in rejected] == [
        (3, Reason.UNCLOSED_QUOTE),
        (7, Reason.UNCLOSED_QUOTE),
    ]


def test_a_quote_that_is_not_doubled_is_told():
    kept, rejected = read("csv", 'ticket,role,text\n1,user,"a "b" c"\n2,user,5" pipe\n')
    assert kept[0].turns[0].text == '5" pipe'
    assert [(item.line, item.reason) for item in rejected] == [(2, Reason.STRAY_QUOTE)]


def test_the_line_of_a_record_is_its_first_physical_line():
    data = 'ticket,role,text\n1,user,"a\nb\nc"\n2,nobody,x\n'
    _, rejected = read("csv", data)
    assert [item.line for item in rejected] == [5]


def test_a_row_without_a_conversation_or_with_too_many_columns_is_told():
    kept, rejected = read("csv", "ticket,role,text\n,user,a\n1,user,a,b\n1,user,\n1,user,ok\n")
    assert len(kept) == 1
    assert [item.reason for item in rejected] == [
        Reason.BAD_RECORD,
        Reason.WRONG_COLUMNS,
        Reason.EMPTY_TEXT,
    ]


def test_a_constant_conversation_column_does_not_make_one_endless_conversation():
    rows = "".join(f"1,user,text {n}\n" for n in range(2003))
    kept, rejected = read("csv", f"ticket,role,text\n{rows}")
    assert len(kept[0].turns) == 2000
    assert [item.reason for item in rejected] == [Reason.TOO_MANY_TURNS] * 3


def test_rows_far_apart_are_told_not_mixed_up():
    rows = "".join(f"{n},user,text\n" for n in range(20_002))
    kept, rejected = read("csv", f"ticket,role,text\n{rows}0,agent,late\n")
    assert len(kept) == 20_002
    assert [item.reason for item in rejected] == [Reason.CONVERSATION_REAPPEARS]


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("Здравствуйте, где мой заказ? Спасибо большое", "cp1251"),
        (
            "Zażółć gęślą jaźń, proszę o zwrot zamówienia, błąd w przesyłce, dziękuję, też część",
            "cp1250",
        ),
        ("Où est l\u2019équipe ? À bientôt, ça va très bien, naïve Zoë déjà", "cp1252"),
        ("it\u2019s 5 € \u2013 don\u2019t", "cp1252"),
    ],
)
def test_an_eight_bit_encoding_is_guessed(text, codec):
    kept, rejected = read("csv", f"question,answer\n{text},ok\n".replace(", ", " ").encode(codec))
    assert not rejected
    assert kept[0].turns[0].text == text.replace(", ", " ")


_DESK_ROLES = {"client": Role.CUSTOMER, "staff": Role.AGENT}


class Desk(MessageLines):
    """The example of ``Importer``'s docstring: all that a format of messages has to say."""

    name = "desk"
    description = 'JSON lines with {"thread": [{"who", "what"}]}'
    key = "thread"
    role_field = "who"
    text_field = "what"
    roles = _DESK_ROLES


def test_a_format_of_messages_needs_its_names_alone():
    data = (
        b'{"id": 7, "thread": [{"who": "client", "what": "Open today?"}, '
        b'{"who": "staff", "what": "Until six."}, {"who": "tool", "what": "{}"}]}\n'
    )
    desk: Importer = Desk()
    assert desk.sniff(data, "export")
    assert not any(importer.sniff(data, "export") for importer in IMPORTERS.values())
    conversation, skipped = sorted(
        desk.read(io.BytesIO(data), ImportOptions()), key=lambda item: isinstance(item, Rejected)
    )
    assert isinstance(conversation, Conversation)
    assert chat_messages(conversation) == [
        ChatMessage(role="user", content="Open today?"),
        ChatMessage(role="assistant", content="Until six."),
    ]
    assert isinstance(skipped, Rejected)
    assert (skipped.reason, skipped.part) == (Reason.TOOL_MESSAGE, True)
