"""The process that reads an upload: what it bounds, and how it ends."""

import asyncio
import json
from pathlib import Path

import psutil
import pytest

from connectors.conversation import Conversation, Role, Turn
from connectors.importers import ImportOptions
from connectors.redaction.redactor import RedactionRules
from server.errors import Invalid
from server.reader_processes import NICENESS
from server.transcripts.reading import ReadingRequest, digest_of, read


def line(text: str) -> str:
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]
    return json.dumps({"messages": messages}) + "\n"


SLOW = line("my numbers " + "1/1/1/1 4 1 1 1 07 911 1 " * 20_000)


@pytest.fixture
def make(tmp_path: Path):
    def make(text: str, **fields) -> ReadingRequest:
        (tmp_path / "file").write_text(text)
        return ReadingRequest(
            source=str(tmp_path / "file"),
            spool=str(tmp_path / "spool"),
            filename="chats.jsonl",
            **{
                "importer": None,
                "options": ImportOptions(),
                "redaction": RedactionRules(
                    custom_patterns={}, default_region="GB", allowlist=[], terms=[]
                ),
                **fields,
            },
        )

    return make


async def reader(spool: Path) -> psutil.Process:
    """The process that reads, once it does: then it writes."""
    while not spool.exists():  # noqa: ASYNC110, ASYNC240 - a file of another process has no event
        await asyncio.sleep(0.05)
    children = psutil.Process().children()
    (found,) = [each for each in children if "server.transcripts.reading" in each.cmdline()]
    return found


def test_the_digest_of_the_same_turns_is_that_of_earlier_versions():
    """Else the first import after an update would store every conversation anew."""
    turns = (
        Turn(Role.CUSTOMER, "What does bbo0 mean beside ffo3, ffo3 and kko7?"),
        Turn(Role.NOTE, "x"),
        Turn(Role.AGENT, "kko7 stands for bbo0; ffo3 follows kko7.", "Iver", "2031"),
    )
    assert digest_of(Conversation("c0", turns)) == (
        "6781cf75d3c09573917dc3fbed846d428e8184c85daeb1da75d0764debae4213"
    )


async def test_a_record_that_takes_too_long_is_left_out_with_its_reason_and_the_others_are_kept(
    make, tmp_path
):
    report = await read(make(line("a@b.com?") + SLOW + line("Bye"), record_seconds=0.2))
    assert (report.read, report.rejected) == (2, 1)
    assert report.reasons == {"too_slow": 1}
    assert "0.2 s of CPU time" in report.examples[0].detail
    spool = (tmp_path / "spool").read_text()
    assert len(spool.splitlines()) == 2
    assert "1/1/1/1" not in spool
    assert "[EMAIL_1]" in spool


async def test_a_file_that_no_importer_takes_is_refused_with_the_errors_name(make):
    with pytest.raises(Invalid) as refused:
        await read(make("\x00\x01\x02"))
    assert refused.value.code == "UnknownFormat"


async def test_a_reader_that_is_killed_is_reported_and_lets_chats_come_first(make, tmp_path):
    reads = asyncio.ensure_future(read(make(SLOW * 20)))
    process = await reader(tmp_path / "spool")
    assert process.nice() >= NICENESS
    process.kill()
    with pytest.raises(Invalid, match="SIGKILL") as refused:
        await reads
    assert refused.value.code == "reader_ended"


async def test_a_reader_outlives_a_stop_of_the_whole_group_and_ends_with_its_parent(make, tmp_path):
    reads = asyncio.ensure_future(read(make(SLOW * 20)))
    process = await reader(tmp_path / "spool")
    process.terminate()
    await asyncio.sleep(0.3)
    assert process.is_running()
    assert not reads.done()
    reads.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reads
    assert not process.is_running()
