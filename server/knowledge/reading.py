"""Reads an upload into a file of redacted articles, cut into pieces, as a process of its own.

    python -m server.knowledge.reading    (a ``ReadingRequest`` on standard input, an ``Outcome`` out)

See ``server/reader_processes.py``. A file may be made to be a burden: what libraries in C do with it is bounded by the
system, in memory, CPU time and what is written; what Python does with one article by a clock of its own,
so that the others are kept.
"""

from pathlib import Path

import msgspec

from connectors.importers.base import MIB
from connectors.knowledge.ingestion import Ingestion, KnowledgeReport
from connectors.redaction.redactor import RedactionRules
from server.errors import Invalid
from server.reader_processes import (
    answer,
    ask,
    cpu_limit,
    end_with_parent,
    limit_resources,
    make_nice,
    read_request,
)

ARTICLE_SECONDS = 60.0
"""CPU time for reading one article, and again for its redaction. The largest takes some 20 s."""
CPU_SECONDS = 1_800
"""Of one file: an archive of ten thousand pages of usual length takes some minutes."""
MEMORY_BYTES = 2048 * MIB
"""Of address space, code included. The largest article of each format takes half of it at most."""
SPOOL_BYTES = 1024 * MIB


class ReadingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to read, and how: ``source`` into ``spool``, a ``Prepared`` a line.

    ``name`` is what the article is called; empty: as the file. ``redaction`` is the ``Redactor``'s. The
    bounds are those of this module.
    """

    source: str
    spool: str
    filename: str
    name: str
    redaction: RedactionRules
    article_seconds: float = ARTICLE_SECONDS
    cpu_seconds: int = CPU_SECONDS
    memory_bytes: int = MEMORY_BYTES


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A report, or None where memory ran out."""

    report: KnowledgeReport | None = None


async def read(reading: ReadingRequest) -> KnowledgeReport:
    """Run a process that reads. It ends when this call is cancelled, or this process ends.

    Raises:
        Invalid: the process did not survive it (``reader_ended``).
    """
    output = await ask("server.knowledge.reading", reading, about=reading.filename)
    report = msgspec.json.decode(output, type=Outcome).report
    if report is None:
        raise Invalid(
            f"'{reading.filename}' takes more memory to read than {reading.memory_bytes // MIB:,} MiB: "
            "split it.",
            code="reader_ended",
        )
    return report


def read_source(reading: ReadingRequest) -> KnowledgeReport:
    """Read, redact and cut, in this process and its main thread."""
    run = Ingestion(
        Path(reading.source).read_bytes(),
        reading.filename,
        name=reading.name,
        redactor=reading.redaction.redactor(),
        article_limit=lambda: cpu_limit(reading.article_seconds, doing="read"),
    )
    with Path(reading.spool).open("wb") as out:
        out.writelines(msgspec.json.encode(article) + b"\n" for article in run)
    return run.report


def main() -> None:
    """Read as the ``ReadingRequest`` on standard input says, and write the ``Outcome``."""
    reading = read_request(ReadingRequest)
    make_nice()
    limit_resources(
        cpu_seconds=reading.cpu_seconds,
        memory_bytes=reading.memory_bytes,
        file_bytes=SPOOL_BYTES,
    )
    end_with_parent()
    try:
        outcome = Outcome(report=read_source(reading))
    except MemoryError:
        outcome = Outcome()
    answer(outcome)


if __name__ == "__main__":
    main()
