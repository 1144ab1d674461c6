"""The process that reads a file of articles: what it bounds."""

from pathlib import Path

import pytest

from connectors.redaction.redactor import RedactionRules
from server.errors import Invalid
from server.knowledge.reading import ReadingRequest, read
from tests import knowledge_files as files


@pytest.fixture
def make(tmp_path: Path):
    def make(data: bytes, filename: str, **fields) -> ReadingRequest:
        (tmp_path / "file").write_bytes(data)
        return ReadingRequest(
            source=str(tmp_path / "file"),
            spool=str(tmp_path / "spool"),
            filename=filename,
            **{
                "name": "",
                "redaction": RedactionRules(
                    custom_patterns={}, default_region="GB", allowlist=[], terms=[]
                ),
                **fields,
            },
        )

    return make


SLOW = ("my numbers " + "1/1/1/1 4 1 1 1 07 911 1 " * 20_000).encode()


async def test_an_article_that_takes_too_long_is_left_out_and_the_others_are_kept(make, tmp_path):
    pages = files.zipped({"a.md": b"# A\n\nText.", "slow.md": SLOW, "b.md": b"# B\n\nText."})
    report = await read(make(pages, "x.zip", article_seconds=0.4))
    assert (report.articles, report.skipped) == (2, 1)
    assert [(each.place, each.reason) for each in report.examples] == [("slow.md", "too_slow")]
    assert len((tmp_path / "spool").read_bytes().splitlines()) == 2


async def test_a_pdf_that_never_ends_is_given_up(make):
    """A page whose content is drawn by a form that draws itself, many times over."""
    lines = [("x" * 60, 8)] * 60
    report = await read(make(files.pdf([lines] * 400), "x.pdf", article_seconds=0.3))
    assert report.reasons == {"too_slow": 1}


async def test_more_memory_than_is_allowed_ends_the_reading_and_nothing_else(make):
    allowed = 100 << 20
    with pytest.raises(Invalid) as info:
        await read(make(bytes(allowed), "x.md", memory_bytes=allowed))
    assert info.value.code == "reader_ended"


async def test_more_cpu_time_than_is_allowed_ends_the_reading(make):
    pages = files.zipped({f"{n}.md": SLOW for n in range(30)})
    with pytest.raises(Invalid, match="CPU time") as info:
        await read(make(pages, "x.zip", cpu_seconds=2))
    assert info.value.code == "reader_ended"
