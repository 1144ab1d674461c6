import gzip
import hashlib
import io
import json
from typing import BinaryIO, cast

import msgspec
import pytest

from connectors.errors import BadMapping, UnknownFormat
from connectors.import_pipeline import run_import
from connectors.importers import ImportOptions
from connectors.redaction.redactor import Redactor
from connectors.report import ImportReport, render_table


def record(identifier: str, text: str, role: str = "user") -> str:
    messages = [{"role": role, "content": text}, {"role": "assistant", "content": "Noted."}]
    return json.dumps({"id": identifier, "messages": messages}) + "\n"


FILE = (
    record("a", "write to vera@post.example")
    + record("a", "again")
    + record("a#2", "a third")
    + "{broken\n" * 12
    + record("b", "hi", role="vera@post.example")
).encode()


def test_a_run_keeps_counts_and_redacts():
    run = run_import(io.BytesIO(FILE), "chats.jsonl", redactor=Redactor())
    kept = list(run)
    assert [conversation.id for conversation in kept] == ["a", "a#2", "a#2#2"]
    assert kept[0].turns[0].text == "write to [EMAIL_1]"
    report = run.report
    assert report.importer == "openai"
    assert report.sha256 == hashlib.sha256(FILE).hexdigest()
    assert report.size_bytes == len(FILE)
    assert (report.read, report.turns, report.renamed) == (3, 6, 2)
    assert (report.rejected, report.partially_rejected) == (13, 0)
    assert report.reasons == {"bad_json": 12, "bad_role": 1}
    assert report.redacted == {"EMAIL": 1}
    assert report.notes["encoding"] == "utf-8"
    assert [item.line for item in report.examples] == [*range(4, 14), 16]


def test_the_report_itself_holds_no_personal_data():
    run = run_import(io.BytesIO(FILE), "chats.jsonl", redactor=Redactor())
    list(run)
    assert "vera@" not in render_table(run.report)
    assert b"vera@" not in msgspec.json.encode(run.report)


def test_a_note_that_quotes_the_file_is_redacted_too():
    table = b"ticket,role,text,time\n1,customer,hi,vera@post.example\n1,agent,ho,\n"
    run = run_import(io.BytesIO(table), "x.csv", redactor=Redactor())
    list(run)
    assert "'[EMAIL_1]' in line 2" in run.report.notes["times"]


def test_names_that_a_file_gives_are_replaced_and_counted_once_each():
    table = (
        b"ticket,role,text,name,customer_name\n1,customer,I am Vera,v77,Vera Low\n1,agent,Hi,,\n"
    )
    run = run_import(io.BytesIO(table), "x.csv", redactor=Redactor())
    kept = list(run)
    assert [turn.text for turn in kept[0].turns] == ["I am [NAME_1]", "Hi"]
    assert kept[0].names == {}
    assert run.report.redacted == {"NAME": 2}  # in the text, and the author
    assert run.report.roles == {"customer": 1, "agent": 1}


def test_the_table_names_file_counts_and_lines():
    run = run_import(io.BytesIO(FILE), "chats.jsonl")
    list(run)
    table = render_table(run.report)
    assert "3 conversations, 6 turns" in table
    assert "\nrejected  13 records, 0 parts of kept ones\n" in table
    assert "12 bad_json, 1 bad_role" in table
    assert "and 2 more" in table
    assert table.endswith("\n")


def test_the_report_survives_json():
    run = run_import(io.BytesIO(FILE), "chats.jsonl")
    list(run)
    assert msgspec.json.decode(msgspec.json.encode(run.report), type=ImportReport) == run.report


def test_progress_counts_the_bytes_of_the_file_as_it_arrived():
    data = gzip.compress(FILE * 500)
    seen: list[int] = []
    run = run_import(io.BytesIO(data), "chats.jsonl.gz", progress=seen.append)
    list(run)
    assert seen == sorted(seen)
    assert seen[-1] == len(data) == run.report.size_bytes
    assert run.report.sha256 == hashlib.sha256(data).hexdigest()


def test_the_hash_covers_what_an_importer_did_not_read():
    data = gzip.compress(FILE + b"\n" * 3_000_000) + b"trailing"
    run = run_import(io.BytesIO(data), "x", options=ImportOptions(max_unpacked_bytes=4000))
    list(run)
    assert run.report.reasons == {"too_large": 1}
    assert run.report.sha256 == hashlib.sha256(data).hexdigest()


def test_reading_begins_only_when_asked_and_streams():
    chunks = iter([FILE * 100] * 3)

    class Stream(io.RawIOBase):
        def read(self, size=-1):
            return next(chunks, b"")

    run = run_import(cast("BinaryIO", Stream()), "chats.jsonl", importer="openai")
    iterator = iter(run)
    next(iterator)
    assert run.report.read == 1
    assert run.report.sha256 != hashlib.sha256(FILE * 300).hexdigest()
    list(iterator)
    assert run.report.sha256 == hashlib.sha256(FILE * 300).hexdigest()


def test_what_fits_no_importer_is_refused_at_once():
    with pytest.raises(UnknownFormat):
        run_import(io.BytesIO(b"\x89PNG"), "cat.png")


def test_a_mapping_that_does_not_fit_is_refused_when_reading_begins():
    run = run_import(io.BytesIO(b"a,b\n1,2\n"), "x.csv")
    with pytest.raises(BadMapping):
        list(run)
