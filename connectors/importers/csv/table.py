"""Tables: one turn a row (conversation, role, text), or one question with its answer a row.

A file is read twice: first for its profile, then for its conversations.
"""

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from tempfile import SpooledTemporaryFile
from typing import IO, NamedTuple, cast

import msgspec

from connectors.conversation import Conversation, Role
from connectors.errors import BadMapping
from connectors.importers.base import (
    MIB,
    BadRecord,
    ImportOptions,
    Note,
    Reason,
    Rejected,
    ignore_note,
)
from connectors.importers.csv.columns import Columns, choose_columns
from connectors.importers.csv.grouping import MAX_OPEN_CONVERSATIONS, ConversationGrouper
from connectors.importers.csv.headers import Field
from connectors.importers.csv.profile import TableProfile
from connectors.importers.csv.records import Record, delimiter_of, read_records
from connectors.importers.decode import peek, read_lines
from connectors.importers.name_columns import name_column

_EXCEL_DELIMITER = re.compile(r"sep=(.)", re.IGNORECASE)

_HELD_BYTES = 8 * MIB  # of an upload in memory, between the two passes; a larger one goes to a file


class CsvTable:
    """CSV, TSV and similar; the columns are guessed from the headers, or given."""

    name = "csv"
    description = "tables with a header: conversation, role, text (or question, answer)"

    def sniff(self, head: bytes, filename: str) -> bool:
        """Whether the first line is a usable header, or the name ends in .csv or .tsv."""
        text = peek(head).lstrip()
        if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"%PDF")):  # whatever its name is
            return False
        if not text or text[0] in "{[":
            return False
        header = next(line for line in text.splitlines() if line.strip())
        if _EXCEL_DELIMITER.fullmatch(header):
            return True
        plain_name = filename.lower().removesuffix(".gz")
        if plain_name.endswith((".csv", ".tsv")):
            return True
        try:
            choose_columns(_headers(header.split(delimiter_of(header))), {})
        except BadMapping:
            return False
        return True

    def read(
        self, stream: IO[bytes], options: ImportOptions, note: Note = ignore_note
    ) -> Iterator[Conversation | Rejected]:
        """Yield conversations as they close; see ``Importer.read``."""
        with SpooledTemporaryFile(max_size=_HELD_BYTES) as held:
            shutil.copyfileobj(stream, held)
            copy = cast("IO[bytes]", held)
            copy.seek(0)
            first = _opened(copy, options, ignore_note)
            if first is None:
                return
            profile = TableProfile(
                first.columns, first.headers, options, max_open=MAX_OPEN_CONVERSATIONS
            )
            for row in first.rows:
                if row.fields is not None:
                    profile.observe(row.line, row.fields)
            note("columns", _listed(first))
            profile.resolve(note)
            copy.seek(0)
            again = _opened(copy, options, note)
            grouper = ConversationGrouper(profile, options)
            for row in again.rows if again else ():
                try:
                    yield from grouper.add(row.line, _fields(row))
                except BadRecord as exc:
                    yield Rejected(row.line, exc.reason, exc.detail)
            yield from grouper.close()
            grouper.write_notes(note)


class _Opened(NamedTuple):
    """A table whose header was read; its ``rows`` have as many fields as the header, or a reason."""

    headers: list[str]
    columns: Columns
    rows: Iterator[Record]


class TableHead(msgspec.Struct, frozen=True):
    """How a table begins: its headers, which of them is used as what, and its first rows.

    ``columns``: field -> position in ``headers``; empty where ``problem`` says why that cannot be told.
    ``rows``: (line, cells), as many cells as there are headers. ``roles``: the different values of the
    role column in all that was read. ``names``: positions of the columns with people's names.
    """

    headers: list[str] = []
    columns: dict[Field, int] = {}
    rows: list[tuple[int, list[str]]] = []
    roles: list[str] = []
    names: list[int] = []
    problem: str = ""


_MOST_ROLES = 20  # a column with more values is not the role column


def look_at(stream: IO[bytes], options: ImportOptions, *, rows: int) -> TableHead:
    """The head of a table, from a stream that holds its beginning; never raises for what it holds."""
    try:
        opened = _read_header(stream, options, ignore_note)
    except BadMapping as exc:
        return TableHead(problem=str(exc))
    if opened is None:
        return TableHead(problem="the file is empty")
    headers, records = opened
    problem = ""
    at: dict[Field, int] = {}
    try:
        chosen = choose_columns(headers, options.mapping)
    except BadMapping as exc:
        problem = str(exc)
        names = [at for at, header in enumerate(headers) if name_column(at, header)]
    else:
        at = chosen.at
        names = [column.at for column in chosen.names]
        names += [at["author"]] if "author" in at else []
    first: list[tuple[int, list[str]]] = []
    roles: dict[str, None] = {}
    for record in records:
        if record.fields is None:
            continue
        cells = [*record.fields, *[""] * len(headers)][: len(headers)]
        if len(first) < rows:
            first.append((record.line, cells))
        if "role" in at and len(roles) < _MOST_ROLES and (value := cells[at["role"]].strip()):
            roles[value] = None
        elif len(first) == rows and "role" not in at:
            break
    return TableHead(headers, at, first, list(roles), names, problem)


def _opened(stream: IO[bytes], options: ImportOptions, note: Note) -> _Opened | None:
    """Read the header; None of a file without one. Raises BadMapping."""
    found = _read_header(stream, options, note)
    if found is None:
        return None
    headers, records = found
    columns = choose_columns(headers, options.mapping)
    return _Opened(headers, columns, _fitting(records, len(headers), columns))


def _read_header(
    stream: IO[bytes], options: ImportOptions, note: Note
) -> tuple[list[str], Iterator[Record]] | None:
    """The headers, and the records after them; None of a file without a header. Raises BadMapping."""
    lines = read_lines(stream, options, note, repair_mojibake=True)
    first = next((line for line in lines if line.text is None or line.text.strip()), None)
    if first is None:
        for _ in lines:  # so that the encoding is noted
            pass
        return None
    delimiter = options.delimiter
    if delimiter is not None and len(delimiter) != 1:
        raise BadMapping(f"a delimiter is one character, not {delimiter!r}")
    if declared := _EXCEL_DELIMITER.fullmatch(first.text or ""):
        delimiter = delimiter or declared[1]
        first = next(lines, first)
    if first.text is None:
        raise BadMapping(f"line {first.number}, the header, cannot be read: {first.detail}")
    delimiter = delimiter or delimiter_of(first.text)
    records = read_records(chain([first], lines), delimiter, max_bytes=options.max_line_bytes)
    header = next(records)
    if header.fields is None:
        raise BadMapping(f"line {header.line}, the header, cannot be read: {header.detail}")
    headers = _headers(header.fields)
    while headers and not headers[-1]:  # a delimiter at the end of each line
        headers.pop()
    return headers, records


def _fitting(records: Iterable[Record], width: int, columns: Columns) -> Iterator[Record]:
    """Records with as many fields as there are headers.

    Empty cells beyond the last header are dropped. Optional cells that are missing at the end are
    empty, unless the next line has too few cells as well: then it is the rest of this record, cut
    by a line end that should have been quoted.
    """
    needed = 1 + max(at for field, at in columns.at.items() if field in _NEEDED)
    short: Record | None = None
    for record in records:
        fields = record.fields
        if fields is None:
            fitted = record
        else:
            while len(fields) > width and not fields[-1].strip():
                fields = fields[:-1]
            if len(fields) != width:
                detail = f"{len(record.fields or ())} columns, the header has {width}"
                fitted = Record(record.line, None, Reason.WRONG_COLUMNS, detail)
            else:
                fitted = Record(record.line, fields)
        if short is not None:
            lacking = [""] * (width - len(short.fields or ()))
            if fitted.reason is Reason.WRONG_COLUMNS and len(fields or ()) < needed:
                detail = f"{len(short.fields or ())} columns, the header has {width}"
                yield Record(short.line, None, Reason.WRONG_COLUMNS, detail)
            else:
                yield Record(short.line, [*(short.fields or ()), *lacking])
            short = None
        if fields is not None and needed <= len(fields) < width:
            short = Record(record.line, fields)
        else:
            yield fitted
    if short is not None:
        yield Record(short.line, [*(short.fields or ()), *[""] * (width - len(short.fields or ()))])


_NEEDED: tuple[Field, ...] = ("conversation", "role", "text", "question", "answer")


_NAME_FIELDS = {
    Role.CUSTOMER: "customer_name",
    Role.AGENT: "agent_name",
    Role.NOTE: "name",
}


def _listed(table: _Opened) -> str:
    """The columns that were chosen, for the report."""
    columns = table.columns
    parts = [f"{field}={table.headers[at]}" for field, at in columns.at.items()]
    if columns.date is not None:
        parts.append(f"date={table.headers[columns.date]}")
    parts += [f"{_NAME_FIELDS[column.side]}={table.headers[column.at]}" for column in columns.names]
    return ", ".join(parts)


def _headers(fields: Sequence[str]) -> list[str]:
    return [field.strip().strip('"').strip() for field in fields]


def _fields(record: Record) -> list[str]:
    if record.fields is None:
        raise BadRecord(record.reason or Reason.BAD_RECORD, record.detail)
    return record.fields
