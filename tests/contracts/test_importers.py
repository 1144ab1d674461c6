"""What every importer does with the same conversation and with the same bad input."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import pytest

from connectors.conversation import Conversation, Role
from connectors.errors import BadMapping, UnknownFormat
from connectors.importers import IMPORTERS, ImportOptions, Reason, Rejected, choose

DATA = Path(__file__).parents[1] / "data" / "transcripts"
FIXTURES = {
    "openai.jsonl": "openai",
    "sharegpt.jsonl": "sharegpt",
    "tenantune.jsonl": "tenantune",
    "turns.csv": "csv",
    "pairs.csv": "csv",
}
Exchange = tuple[str, str]


class Format(NamedTuple):
    """How to write a record of a format: one exchange; ``header`` comes first in a file."""

    importer: str
    record: Callable[[str, str, str], str]
    header: str = ""


def _openai(number: str, asked: str, said: str) -> str:
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    return json.dumps({"id": number, "messages": messages}, ensure_ascii=False)


def _sharegpt(number: str, asked: str, said: str) -> str:
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": said}]
    return json.dumps({"id": number, "conversations": turns}, ensure_ascii=False)


def _tenantune(number: str, asked: str, said: str) -> str:
    turns = [{"role": "customer", "text": asked}, {"role": "agent", "text": said}]
    return json.dumps({"id": number, "turns": turns}, ensure_ascii=False)


def _pair(number: str, asked: str, said: str) -> str:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="").writerow([number, asked, said])
    return out.getvalue()


FORMATS = [
    Format("openai", _openai),
    Format("sharegpt", _sharegpt),
    Format("tenantune", _tenantune),
    Format("csv", _pair, "id,question,answer"),
]


@pytest.fixture(params=FORMATS, ids=lambda form: form.importer)
def form(request):
    return request.param


def file_of(form: Format, *records: str, end: str = "\n") -> str:
    lines = [form.header, *records] if form.header else list(records)
    return "".join(line + end for line in lines)


def read(
    form: Format, data: bytes, **options
) -> tuple[list[Conversation], list[Rejected], dict[str, str]]:
    notes: dict[str, str] = {}
    items = list(
        IMPORTERS[form.importer].read(io.BytesIO(data), ImportOptions(**options), notes.__setitem__)
    )
    kept = [item for item in items if isinstance(item, Conversation)]
    return kept, [item for item in items if isinstance(item, Rejected)], notes


def said(conversation: Conversation) -> list[tuple[Role, str]]:
    return [(turn.role, turn.text) for turn in conversation.turns]


GOOD = ("c1", "Où est mon colis ?", "It left “yesterday”, 5 € paid.")


def line_of(form: Format, position: int) -> int:
    """The physical line of the record at a position, when each takes one line."""
    return position + 1 + bool(form.header)


def test_an_exchange_is_read_whole(form):
    kept, rejected, _ = read(form, file_of(form, form.record(*GOOD)).encode())
    assert not rejected
    assert [conversation.id for conversation in kept] == ["c1"]
    assert said(kept[0]) == [(Role.CUSTOMER, GOOD[1]), (Role.AGENT, GOOD[2])]


@pytest.mark.parametrize(
    ("codec", "noted"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("utf-16", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("cp1252", "cp1252 (guessed)"),
    ],
)
def test_the_encoding_is_found_out_and_told(form, codec, noted):
    kept, rejected, notes = read(form, file_of(form, form.record(*GOOD)).encode(codec))
    assert not rejected
    assert said(kept[0])[1][1] == GOOD[2]
    assert notes["encoding"] == noted


def test_crlf_line_ends_make_no_difference(form):
    kept, rejected, _ = read(form, file_of(form, form.record(*GOOD), end="\r\n").encode())
    assert not rejected
    assert said(kept[0])[1][1] == GOOD[2]


def test_a_text_with_line_ends_keeps_them_as_lf(form):
    record = form.record("c1", "one\r\ntwo\n\nthree", "ok")
    kept, rejected, _ = read(form, file_of(form, record, end="\r\n").encode())
    assert not rejected
    assert said(kept[0])[0][1] == "one\ntwo\n\nthree"


def test_blank_lines_are_no_records(form):
    data = file_of(form, "", form.record(*GOOD), "", "   ", form.record("c2", "a", "b"), "")
    kept, rejected, _ = read(form, data.encode())
    assert [conversation.id for conversation in kept] == ["c1", "c2"]
    assert not rejected


def test_an_empty_file_holds_nothing(form):
    assert read(form, b"")[:2] == ([], [])
    assert read(form, b"\n\n")[:2] == ([], [])


def test_a_line_of_one_mebibyte_is_read(form):
    text = "lamp " * (1024 * 1024 // 5) + "end"
    kept, rejected, _ = read(form, file_of(form, form.record("c1", text, "ok")).encode())
    assert not rejected
    assert said(kept[0])[0][1] == text


def test_a_line_over_the_bound_is_rejected_without_being_held(form):
    good = form.record(*GOOD)
    head = file_of(form, good).encode()

    class Endless(io.RawIOBase):
        """40 MiB in one line, made as it is read."""

        def __init__(self) -> None:
            self.parts = iter([head, *[b"x" * 65536] * 640, b"\n", (good + "\n").encode()])

        def read(self, size=-1):
            return next(self.parts, b"")

    items = list(IMPORTERS[form.importer].read(cast("BinaryIO", Endless()), ImportOptions()))
    kept = [item for item in items if isinstance(item, Conversation)]
    # A table gathers rows of one conversation; the lines say that both good records were read.
    assert sum(len(conversation.turns) for conversation in kept) == 4
    rejected = [item for item in items if isinstance(item, Rejected)]
    assert [(item.line, item.reason) for item in rejected] == [
        (line_of(form, 1), Reason.LINE_TOO_LONG)
    ]


@pytest.mark.parametrize(
    ("spoil", "reasons"),
    [
        (lambda form: form.record("x", "a", "b")[:-1], {Reason.BAD_JSON, Reason.UNCLOSED_QUOTE}),
        (lambda form: form.record("x", "", "b") if form.header else "[1, 2]", {Reason.EMPTY_TEXT, Reason.BAD_RECORD}),
        (lambda form: form.record("x", "a", "b").replace("a", "a\0"), {Reason.NUL_BYTE}),
        (lambda form: form.record("x", "nul\0", "b"), {Reason.NUL_BYTE}),
        (lambda form: "nonsense", {Reason.BAD_JSON, Reason.WRONG_COLUMNS}),
        (lambda form: "null", {Reason.BAD_RECORD, Reason.WRONG_COLUMNS}),
        (lambda form: "[" * 100_000, {Reason.BAD_JSON, Reason.WRONG_COLUMNS}),
        (lambda form: "{}", {Reason.BAD_RECORD, Reason.WRONG_COLUMNS}),
    ],
    ids=["cut", "empty", "nul", "escaped nul", "nonsense", "null", "deep", "no keys"],
)  # fmt: skip
def test_a_bad_record_is_told_with_its_line_and_the_rest_is_read(form, spoil, reasons):
    good = [form.record(f"c{n}", "Do you mend clocks?", "We do.") for n in range(4)]
    data = file_of(form, *good[:2], spoil(form), *good[2:]).encode()
    kept, rejected, _ = read(form, data)
    assert [conversation.id for conversation in kept] == ["c0", "c1", "c2", "c3"]
    assert [item.line for item in rejected] == [line_of(form, 2)]
    assert rejected[0].reason in reasons
    assert rejected[0].detail
    assert not rejected[0].part


def test_bytes_that_are_no_text_cost_one_line(form):
    good = [form.record(f"c{n}", "Où ?", "Ici.") for n in range(3)]
    lines = file_of(form, *good).encode().splitlines(keepends=True)
    bad = form.record("x", "Où ?", "Ici.").encode().replace(b"\xc3\xb9", b"\xc3\x28") + b"\n"
    lines.insert(line_of(form, 2) - 1, bad)
    kept, rejected, notes = read(form, b"".join(lines))
    assert len(kept) == 3
    assert [(item.line, item.reason) for item in rejected] == [
        (line_of(form, 2), Reason.UNDECODABLE)
    ]
    assert notes["encoding"] == "utf-8"


def test_a_wrong_encoding_given_by_hand_rejects_the_lines_it_cannot_read(form):
    data = file_of(form, form.record("c1", "a", "b"), form.record("c2", "é", "b")).encode()
    kept, rejected, _ = read(form, data, encoding="ascii")
    assert [conversation.id for conversation in kept] == ["c1"]
    assert [item.reason for item in rejected] == [Reason.UNDECODABLE]


def test_an_unknown_encoding_is_refused_before_reading(form):
    with pytest.raises(BadMapping, match="klingon"):
        read(form, b"x", encoding="klingon")
    with pytest.raises(BadMapping, match="base64"):
        read(form, b"x", encoding="base64")


def test_gzip_is_unpacked_also_in_several_members(form):
    first = gzip.compress(file_of(form, form.record(*GOOD)).encode())
    second = gzip.compress((form.record("c2", "a", "b") + "\n").encode())
    kept, rejected, _ = read(form, first + second)
    assert [conversation.id for conversation in kept] == ["c1", "c2"]
    assert not rejected


def test_a_cut_gzip_file_keeps_what_came_before_and_says_so(form):
    whole = file_of(form, *(form.record(f"c{n}", f"a{n * 7919}", "b") for n in range(5000)))
    packed = gzip.compress(whole.encode())
    kept, rejected, _ = read(form, packed[: len(packed) // 2])
    assert 0 < len(kept) < 5000
    assert [item.reason for item in rejected][-1] == Reason.BAD_COMPRESSION


def test_a_gzip_bomb_stops_at_the_bound(form):
    good = file_of(form, form.record(*GOOD)).encode()
    bomb = gzip.compress(good + b"\n" * (8 * 1024 * 1024))
    kept, rejected, _ = read(form, bomb, max_unpacked_bytes=128 * 1024)
    assert len(kept) == 1
    assert [item.reason for item in rejected] == [Reason.TOO_LARGE]


def test_a_split_given_for_the_file_pins_every_conversation(form):
    data = file_of(form, form.record(*GOOD), form.record("c2", "a", "b")).encode()
    kept, _, _ = read(form, data, split="test")
    assert {conversation.split for conversation in kept} == {"test"}


def test_exactly_one_importer_knows_a_line_of_each_format(form):
    data = file_of(form, form.record(*GOOD)).encode()
    for head in (data, gzip.compress(data), data.decode().encode("utf-16"), b"\xef\xbb\xbf" + data):
        knowing = [name for name, one in IMPORTERS.items() if one.sniff(head, "upload")]
        assert knowing == [form.importer]


def test_a_first_record_longer_than_the_head_is_still_known(form):
    data = file_of(form, form.record("c1", "lamp " * 100_000, "ok")).encode()
    assert choose(data[:65536], "upload").name == form.importer


def test_a_bad_first_record_does_not_hide_the_format(form):
    data = file_of(form, '{"x": 1' if not form.header else "", form.record(*GOOD)).encode()
    assert choose(data, "upload").name == form.importer


@pytest.mark.parametrize(("fixture", "name"), FIXTURES.items())
def test_each_fixture_is_known_by_its_content_alone(fixture, name):
    head = (DATA / fixture).read_bytes()
    assert [key for key, one in IMPORTERS.items() if one.sniff(head, "")] == [name]


def test_every_importer_has_a_fixture():
    assert set(FIXTURES.values()) == set(IMPORTERS)
    assert {path.name for path in DATA.iterdir()} == set(FIXTURES)


def test_an_unknown_file_or_name_is_refused_with_what_there_is():
    with pytest.raises(UnknownFormat, match="sharegpt"):
        choose(b"Dear all,", "letter.txt")
    with pytest.raises(UnknownFormat, match="jq"):
        choose(b'{"tickets": [{"id": 1}]}', "export.json")
    with pytest.raises(UnknownFormat, match="no importer 'zip'"):
        choose(b"", "x", name="zip")
