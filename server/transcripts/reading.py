"""Reads an upload into a file of redacted conversations, as a process of its own.

    python -m server.transcripts.reading    (a ``Reading`` on standard input, an ``Outcome`` out)

See ``server/reader_processes.py``. It needs neither the database nor the settings, which keeps its start at
a third of a second.
"""

import hashlib
from pathlib import Path

import msgspec

from connectors.conversation import Conversation, Role, Turn
from connectors.errors import ConnectorError
from connectors.import_pipeline import redact, run_import
from connectors.importers import ImportOptions
from connectors.importers.csv.table import TableHead, look_at
from connectors.redaction.redactor import RedactionRules, Redactor
from connectors.report import ImportReport
from server.errors import Invalid
from server.reader_processes import (
    answer,
    ask,
    cpu_limit,
    end_with_parent,
    make_nice,
    read_request,
)

CELL_CHARACTERS = 200  # of a cell in the preview of a table
RECORD_SECONDS = 60.0
"""CPU time for redacting one record. The largest that importers let pass takes some 10 s of the worst
text; a processor of a quarter of that speed needs 40."""


class Kept(msgspec.Struct, frozen=True):
    """A redacted conversation, and the digest of its turns."""

    digest: str
    conversation: Conversation


class ReadingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to read, and how: ``source`` into ``spool``, a ``Kept`` a line, each text once.

    ``redaction`` is the ``Redactor``'s; ``record_seconds`` is how long it may work on one record, in seconds of
    CPU time. ``preview_rows``: show that many rows of a table, and read the rest as a trial.
    """

    source: str
    spool: str
    filename: str
    importer: str | None
    options: ImportOptions
    redaction: RedactionRules
    record_seconds: float = RECORD_SECONDS
    preview_rows: int = 0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A report, or why there is none: no importer takes the file, or the options do not fit it.

    ``head``: of a preview, how the table begins, redacted.
    """

    report: ImportReport | None = None
    head: TableHead | None = None
    code: str = ""
    message: str = ""


async def read(reading: ReadingRequest) -> ImportReport:
    """Run a process that reads. It ends when this call is cancelled, or this process ends.

    Raises:
        Invalid: the file cannot be read; ``code`` is the name of the ``ConnectorError``, or
            ``reader_ended`` where the process did not survive it.
    """
    outcome = await preview(reading)
    if outcome.report is None:
        raise Invalid(outcome.message, code=outcome.code)
    return outcome.report


async def preview(reading: ReadingRequest) -> Outcome:
    """Run a process that reads, and give what it says, also where nothing can be read.

    Raises:
        Invalid: the process did not survive it (``reader_ended``).
    """
    output = await ask("server.transcripts.reading", reading, about=reading.filename)
    return msgspec.json.decode(output, type=Outcome)


def read_source(reading: ReadingRequest) -> ImportReport:
    """Parse and redact, in this process and its main thread.

    Raises:
        ConnectorError: no importer takes the file, or the options do not fit it.
    """
    redactor = reading.redaction.redactor()
    repeated = 0
    seen: set[str] = set()
    with Path(reading.source).open("rb") as stream, Path(reading.spool).open("wb") as out:
        run = run_import(
            stream,
            reading.filename,
            importer=reading.importer,
            options=reading.options,
            redactor=redactor,
            record_limit=lambda: cpu_limit(reading.record_seconds, doing="redact"),
        )
        for conversation in run:
            digest = digest_of(conversation)
            if digest in seen:
                repeated += 1
                continue
            seen.add(digest)
            out.write(msgspec.json.encode(Kept(digest, conversation)) + b"\n")
    return msgspec.structs.replace(run.report, repeated=repeated)


def read_head(reading: ReadingRequest) -> TableHead:
    """How a table begins, as it may be shown: redacted, cells cut to ``CELL_CHARACTERS``."""
    redactor = reading.redaction.redactor()
    with Path(reading.source).open("rb") as stream:
        head = look_at(stream, reading.options, rows=reading.preview_rows)
    return msgspec.structs.replace(
        head,
        headers=[_cut(redactor.redact_text(header)) for header in head.headers],
        rows=[(line, _shown(cells, head.names, redactor)) for line, cells in head.rows],
        roles=[_cut(redactor.redact_text(role)) for role in head.roles],
        problem=redactor.redact_text(head.problem),
    )


def _shown(cells: list[str], names: list[int], redactor: Redactor) -> list[str]:
    """A row without personal data; who is named in one of its cells is not in another."""
    people = {cells[at].strip(): Role.NOTE for at in names if cells[at].strip()}
    row = Conversation("", tuple(Turn(Role.NOTE, cell) for cell in cells), names=people)
    return [_cut(turn.text) for turn in redact(row, redactor)[0].turns]


def _cut(text: str) -> str:
    return text if len(text) <= CELL_CHARACTERS else text[:CELL_CHARACTERS] + "…"


def digest_of(conversation: Conversation) -> str:
    """The SHA-256 of the turns' roles, texts and weights, without ids, times and labels."""
    turns = [(turn.role, turn.text, turn.weight) for turn in conversation.turns]
    return hashlib.sha256(msgspec.json.encode(turns)).hexdigest()


def main() -> None:
    """Read as the ``ReadingRequest`` on standard input says, and write the ``Outcome``."""
    reading = read_request(ReadingRequest)
    if not reading.preview_rows:
        make_nice()
    end_with_parent()
    head = read_head(reading) if reading.preview_rows else None
    try:
        outcome = Outcome(report=read_source(reading), head=head)
    except ConnectorError as exc:
        outcome = Outcome(code=type(exc).__name__, message=str(exc), head=head)
    answer(outcome)


if __name__ == "__main__":
    main()
