"""Tables: one turn a row (conversation, speaker, text), or one question with its answer a row.

A file is gone through twice: what no row tells by itself is found out first (``survey``).
"""

import re
import shutil
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, NamedTuple, cast

import msgspec

from connectors.conversation import Conversation, Speaker, Turn
from connectors.errors import BadMapping
from connectors.importers.base import (
    MIB,
    MOST_CHARACTERS,
    BadRecord,
    ImportOptions,
    Note,
    Reason,
    Rejected,
    clean_text,
    ignore_note,
    quoted,
)
from connectors.importers.columns import Columns, Field, choose_columns
from connectors.importers.csv_records import Record, delimiter_of, read_records
from connectors.importers.decode import peek, read_lines
from connectors.importers.survey import Survey
from connectors.importers.times import Moment, step_between

_EXCEL_DELIMITER = re.compile(r"sep=(.)", re.IGNORECASE)

# Rows of one conversation need not stand together (exports sorted by time), but memory is
# bounded: the conversation untouched for longest is closed when more than this many are open.
_OPEN_CONVERSATIONS = 20_000
_TURNS_IN_A_CONVERSATION = 2_000  # more is a wrong conversation column, not a conversation
_HELD_BYTES = 8 * MIB  # of an upload, between the two looks at it; the rest goes to a file


class CsvTable:
    """CSV, TSV and the like; the columns are guessed from the headers or given."""

    name = "csv"
    description = "tables with a header: conversation, speaker, text (or question, answer)"

    def sniff(self, head: bytes, filename: str) -> bool:
        """Whether the first line is a header we can read, or the name ends in .csv or .tsv."""
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
        self, stream: BinaryIO, options: ImportOptions, note: Note = ignore_note
    ) -> Iterator[Conversation | Rejected]:
        """Yield conversations as they close; see ``Importer.read``."""
        with SpooledTemporaryFile(max_size=_HELD_BYTES) as held:
            shutil.copyfileobj(stream, held)
            copy = cast("BinaryIO", held)
            copy.seek(0)
            first = _opened(copy, options, ignore_note)
            if first is None:
                return
            survey = Survey(first.columns, first.headers, options, most_open=_OPEN_CONVERSATIONS)
            for row in first.rows:
                if row.fields is not None:
                    survey.see(row.line, row.fields)
            note("columns", _listed(first))
            survey.settle(note)
            copy.seek(0)
            again = _opened(copy, options, note)
            table = _Table(survey, options)
            for row in again.rows if again else ():
                try:
                    yield from table.add(row.line, _fields(row))
                except BadRecord as exc:
                    yield Rejected(row.line, exc.reason, exc.detail)
            yield from table.close()
            table.tell(note)


class _Opened(NamedTuple):
    """A table whose header is read; ``rows`` have as many fields as the header, or a reason."""

    headers: list[str]
    columns: Columns
    rows: Iterator[Record]


def _opened(stream: BinaryIO, options: ImportOptions, note: Note) -> _Opened | None:
    """Read the header; None of a file without one. Raises BadMapping."""
    lines = read_lines(stream, options, note, mend=True)
    first = next((line for line in lines if line.text is None or line.text.strip()), None)
    if first is None:
        for _ in lines:  # so that the encoding is noted
            pass
        return None
    delimiter = options.delimiter
    if delimiter is not None and len(delimiter) != 1:
        raise BadMapping(f"a delimiter is one character, not {delimiter!r}")
    if told := _EXCEL_DELIMITER.fullmatch(first.text or ""):
        delimiter = delimiter or told[1]
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
    columns = choose_columns(headers, options.mapping)
    return _Opened(headers, columns, _fitting(records, len(headers), columns))


def _fitting(records: Iterable[Record], width: int, columns: Columns) -> Iterator[Record]:
    """Records with as many fields as there are headers.

    Empty cells beyond the last header are nothing, and cells that an optional column lacks at the
    end are empty; unless the next line has too few as well: then it is the rest of this one, cut
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


_NEEDED: tuple[Field, ...] = ("conversation", "speaker", "text", "question", "answer")


class _Row(NamedTuple):
    """The turns of a row, and when it was sent: (seconds, with a date), or unknown."""

    turns: tuple[Turn, ...]
    moment: Moment | None


class _Gathered(msgspec.Struct):
    """A conversation whose rows may go on."""

    conversation: Conversation
    rows: list[_Row] = []
    turns: int = 0
    characters: int = 0
    names: dict[str, None] = {}


class _Table:
    """Gathers rows into conversations."""

    def __init__(self, survey: Survey, options: ImportOptions) -> None:
        self._survey = survey
        self._columns = survey.columns
        self._options = options
        self._open: OrderedDict[str, _Gathered] = OrderedDict()
        self._closed: set[str] = set()
        self._finished = 0
        self._turned = 0
        self._moved = 0
        self._timed = 0
        self._agent_opens = 0

    def add(self, line: int, fields: Sequence[str]) -> Iterator[Conversation]:
        """Take a row; yields the conversations that close. Raises BadRecord."""
        identifier = self._survey.identifier(fields)
        names = self._names(fields)
        turns = self._pair(fields, names) if self._columns.pairs else (self._turn(fields, names),)
        row = _Row(turns, self._survey.moment(fields))
        if identifier is None:
            alone = _Gathered(self._conversation(f"line-{line}", fields))
            self._take(alone, row, names)
            yield self._made(alone)
            return
        if identifier in self._closed:
            detail = (
                f"a row of an earlier conversation, after {_OPEN_CONVERSATIONS:,} others; "
                "sort the file by conversation"
            )
            raise BadRecord(Reason.CONVERSATION_REAPPEARS, detail)
        if identifier not in self._open:
            self._open[identifier] = _Gathered(self._conversation(identifier, fields))
        self._open.move_to_end(identifier)
        self._take(self._open[identifier], row, names)
        if len(self._open) > _OPEN_CONVERSATIONS:
            yield self._finish(next(iter(self._open)))

    def close(self) -> Iterator[Conversation]:
        """Yield what is still open, in the order of the last row seen."""
        for identifier in list(self._open):
            yield self._finish(identifier)

    def tell(self, note: Note) -> None:
        """What was assumed, for the report."""
        if self._turned or self._moved:
            note(
                "order",
                f"by time; of {self._finished:,} conversations the file lists {self._turned:,} "
                f"newest first and {self._moved:,} others in no order",
            )
        elif not self._timed and self._agent_opens == self._finished > 0:
            note(
                "order",
                "as in the file; every conversation begins with the agent and ends with the "
                "customer: if the newest turn comes first, pass --order newest-first",
            )
        if said := str(self._survey.visibility):
            note("internal notes", said)
        if self._columns.names:
            note("names", "people whom the export names are replaced where they occur")
        if self._survey.html:
            note("html", f"{self._survey.html:,} texts were HTML; what a reader sees was kept")

    def _take(self, into: _Gathered, row: _Row, names: Sequence[tuple[str, str]]) -> None:
        size = sum(len(turn.text) for turn in row.turns)
        if into.turns + len(row.turns) > _TURNS_IN_A_CONVERSATION:
            detail = f"more than {_TURNS_IN_A_CONVERSATION:,} turns; is the column right?"
            raise BadRecord(Reason.TOO_MANY_TURNS, detail)
        if into.characters + size > MOST_CHARACTERS:
            detail = f"a conversation of more than {MOST_CHARACTERS / MIB:g} million characters"
            raise BadRecord(Reason.TOO_LARGE, detail)
        into.rows.append(row)
        into.turns += len(row.turns)
        into.characters += size
        into.names |= dict.fromkeys(name for _, name in names)

    def _finish(self, identifier: str) -> Conversation:
        self._closed.add(identifier)
        return self._made(self._open.pop(identifier))

    def _made(self, gathered: _Gathered) -> Conversation:
        rows = self._in_order(gathered.rows)
        turns = tuple(turn for row in rows for turn in row.turns)
        spoken = [turn.speaker for turn in turns if turn.speaker in _SPOKEN]
        self._finished += 1
        self._agent_opens += spoken[:1] + spoken[-1:] == [Speaker.AGENT, Speaker.CUSTOMER]
        authors = {turn.author for turn in turns}
        names = tuple(name for name in gathered.names if name not in authors)
        return msgspec.structs.replace(gathered.conversation, turns=turns, names=names)

    def _in_order(self, rows: list[_Row]) -> list[_Row]:
        """Oldest first. A row without a time stays beside the one before it."""
        moments = [row.moment for row in rows if row.moment]
        steps = [step_between(earlier, later) for earlier, later in pairwise(moments)]
        rises, falls = any(step > 0 for step in steps), any(step < 0 for step in steps)
        self._timed += rises or falls
        newest_first = self._survey.newest_first
        if newest_first or (newest_first is None and falls and not rises):
            rows = [*reversed(rows)]
            self._turned += len(rows) > 1
        if not all(row.moment[1] for row in rows if row.moment):
            return rows  # times of day without a date: midnight may lie between
        at = float("-inf")
        keys = []
        for row in rows:
            at = row.moment[0] if row.moment else at
            keys.append(at)
        order = sorted(range(len(rows)), key=keys.__getitem__)
        self._moved += order != list(range(len(rows)))
        return [rows[each] for each in order]

    def _conversation(self, identifier: str, fields: Sequence[str]) -> Conversation:
        return Conversation(
            id=identifier,
            turns=(),
            channel=self._value(fields, "channel"),
            language=self._value(fields, "language"),
            split=self._options.split,
        )

    def _value(self, fields: Sequence[str], field: Field) -> str | None:
        at = self._columns.at.get(field)
        return None if at is None else clean_text(fields[at]) or None

    def _sent_at(self, fields: Sequence[str]) -> str | None:
        """The time as the file has it."""
        day = fields[self._columns.date].strip() if self._columns.date is not None else ""
        return f"{day} {self._value(fields, 'time') or ''}".strip() or None

    def _names(self, fields: Sequence[str]) -> list[tuple[str, str]]:
        """(side, name) of each name in the row."""
        named = ((column.side, column.name_in(fields)) for column in self._columns.names)
        return [(side, name) for side, name in named if name]

    def _turn(self, fields: Sequence[str], names: Sequence[tuple[str, str]]) -> Turn:
        text = self._survey.text(fields, "text")
        value = self._value(fields, "speaker") or ""
        speaker = self._survey.voices.who(value)
        shown_to = self._survey.visibility.of(fields)
        if shown_to in (Speaker.NOTE, Speaker.SYSTEM) or speaker is None:
            speaker = shown_to
        if speaker is None:
            detail = f"who is {quoted(value)}? say it with --map 'speaker:VALUE=customer' or =agent"
            raise BadRecord(Reason.BAD_ROLE, detail)
        return Turn(
            speaker=speaker,
            text=text,
            author=self._value(fields, "author") or _name_of(speaker, names),
            sent_at=self._sent_at(fields),
        )

    def _pair(self, fields: Sequence[str], names: Sequence[tuple[str, str]]) -> tuple[Turn, ...]:
        sent_at = self._sent_at(fields)
        asked, answered = self._survey.text(fields, "question"), self._survey.text(fields, "answer")
        answers = self._survey.visibility.of(fields) or Speaker.AGENT
        return (
            Turn(Speaker.CUSTOMER, asked, _name_of(Speaker.CUSTOMER, names), sent_at),
            Turn(answers, answered, _name_of(Speaker.AGENT, names), sent_at),
        )


_SPOKEN = frozenset({Speaker.CUSTOMER, Speaker.AGENT, Speaker.BOT})


def _name_of(speaker: Speaker, names: Sequence[tuple[str, str]]) -> str | None:
    """The name in the row that belongs to a speaker's side."""
    side = {Speaker.CUSTOMER: "customer", Speaker.AGENT: "agent", Speaker.NOTE: "agent"}.get(
        speaker
    )
    return " ".join(name for each, name in names if each == side) or None


def _listed(table: _Opened) -> str:
    """Which column was taken for what."""
    columns = table.columns
    parts = [f"{field}={table.headers[at]}" for field, at in columns.at.items()]
    if columns.date is not None:
        parts.append(f"date={table.headers[columns.date]}")
    parts += [
        f"{'name' if column.side == 'either' else f'{column.side}_name'}={table.headers[column.at]}"
        for column in columns.names
    ]
    return ", ".join(parts)


def _headers(fields: Sequence[str]) -> list[str]:
    return [field.strip().strip('"').strip() for field in fields]


def _fields(record: Record) -> list[str]:
    if record.fields is None:
        raise BadRecord(record.reason or Reason.BAD_RECORD, record.detail)
    return record.fields
