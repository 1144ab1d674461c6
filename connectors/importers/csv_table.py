"""Tables: one turn a row (conversation, speaker, text), or one question with its answer a row."""

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import BinaryIO

from connectors.conversation import Conversation, Speaker, Turn
from connectors.errors import BadMapping
from connectors.importers.base import (
    BadRecord,
    ImportOptions,
    Note,
    Reason,
    Rejected,
    clean_text,
    ignore_note,
    quoted,
)
from connectors.importers.columns import Columns, Field, choose_columns, speaker_named
from connectors.importers.csv_records import Record, delimiter_of, read_records
from connectors.importers.decode import peek, read_lines

_EXCEL_DELIMITER = re.compile(r"sep=(.)", re.IGNORECASE)
_EPOCH_SECONDS = re.compile(r"\d{10}(\.\d+)?")

# Rows of one conversation need not stand together (exports sorted by time), but memory is
# bounded: the conversation untouched for longest is closed when more than this many are open.
_OPEN_CONVERSATIONS = 20_000
_TURNS_IN_A_CONVERSATION = 2_000  # more is a wrong conversation column, not a conversation


class CsvTable:
    """CSV, TSV and the like; the columns are guessed from the headers or given."""

    name = "csv"
    description = "tables with a header: conversation, speaker, text (or question, answer)"

    def sniff(self, head: bytes, filename: str) -> bool:
        """Whether the first line is a header we can read, or the name ends in .csv or .tsv."""
        text = peek(head).lstrip()
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
        lines = read_lines(stream, options, note)
        first = next((line for line in lines if line.text is None or line.text.strip()), None)
        if first is None:
            return
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
        columns = choose_columns(headers, options.mapping)
        note("columns", ", ".join(f"{f}={headers[at]}" for f, at in columns.at.items()))
        table = _Table(columns, options)
        for record in records:
            try:
                yield from table.add(record.line, _fields(record, len(headers)))
            except BadRecord as exc:
                yield Rejected(record.line, exc.reason, exc.detail)
        yield from table.close()


class _Table:
    """Gathers rows into conversations."""

    def __init__(self, columns: Columns, options: ImportOptions) -> None:
        self._columns = columns
        self._options = options
        self._open: OrderedDict[str, Conversation] = OrderedDict()
        self._turns: dict[str, list[Turn]] = {}
        self._closed: set[str] = set()

    def add(self, line: int, fields: Sequence[str]) -> Iterator[Conversation]:
        """Take a row; yields the conversations that close. Raises BadRecord."""
        identifier = self._value(fields, "conversation")
        if identifier is None and "conversation" in self._columns.at:
            raise BadRecord(Reason.BAD_RECORD, "the conversation column is empty")
        turns = self._pair(fields) if self._columns.pairs else [self._turn(fields)]
        if identifier is None:
            yield self._conversation(f"line-{line}", fields, tuple(turns))
            return
        if identifier in self._closed:
            detail = (
                f"a row of an earlier conversation, after {_OPEN_CONVERSATIONS:,} others; "
                "sort the file by conversation"
            )
            raise BadRecord(Reason.CONVERSATION_REAPPEARS, detail)
        if identifier not in self._open:
            self._open[identifier] = self._conversation(identifier, fields, ())
            self._turns[identifier] = []
        elif len(self._turns[identifier]) >= _TURNS_IN_A_CONVERSATION:
            detail = f"more than {_TURNS_IN_A_CONVERSATION:,} turns; is the column right?"
            raise BadRecord(Reason.TOO_MANY_TURNS, detail)
        self._open.move_to_end(identifier)
        self._turns[identifier] += turns
        if len(self._open) > _OPEN_CONVERSATIONS:
            yield self._finish(next(iter(self._open)))

    def close(self) -> Iterator[Conversation]:
        """Yield what is still open, in the order of the last row seen."""
        for identifier in list(self._open):
            yield self._finish(identifier)

    def _finish(self, identifier: str) -> Conversation:
        self._closed.add(identifier)
        conversation = self._open.pop(identifier)
        turns = _in_time_order(self._turns.pop(identifier))
        return Conversation(
            id=identifier,
            turns=tuple(turns),
            channel=conversation.channel,
            language=conversation.language,
            split=conversation.split,
        )

    def _conversation(
        self, identifier: str, fields: Sequence[str], turns: tuple[Turn, ...]
    ) -> Conversation:
        return Conversation(
            id=identifier,
            turns=turns,
            channel=self._value(fields, "channel"),
            language=self._value(fields, "language"),
            split=self._options.split,
        )

    def _value(self, fields: Sequence[str], field: Field) -> str | None:
        at = self._columns.at.get(field)
        return None if at is None else clean_text(fields[at]) or None

    def _text(self, fields: Sequence[str], field: Field) -> str:
        text = self._value(fields, field)
        if text is None:
            raise BadRecord(Reason.EMPTY_TEXT, f"the {field} column is empty")
        return text

    def _turn(self, fields: Sequence[str]) -> Turn:
        value = self._value(fields, "speaker") or ""
        speaker = speaker_named(value, self._options.speakers)
        if speaker is None:
            detail = f"who is {quoted(value)}? say it with --map 'speaker:VALUE=customer' or =agent"
            raise BadRecord(Reason.BAD_ROLE, detail)
        return Turn(
            speaker=speaker,
            text=self._text(fields, "text"),
            author=self._value(fields, "author"),
            sent_at=self._value(fields, "time"),
        )

    def _pair(self, fields: Sequence[str]) -> list[Turn]:
        sent_at = self._value(fields, "time")
        return [
            Turn(speaker=Speaker.CUSTOMER, text=self._text(fields, "question"), sent_at=sent_at),
            Turn(speaker=Speaker.AGENT, text=self._text(fields, "answer"), sent_at=sent_at),
        ]


def _headers(fields: Sequence[str]) -> list[str]:
    return [field.strip().strip('"').strip() for field in fields]


def _fields(record: Record, columns: int) -> list[str]:
    if record.fields is None:
        raise BadRecord(record.reason or Reason.BAD_RECORD, record.detail)
    if len(record.fields) != columns:
        detail = f"{len(record.fields)} columns, the header has {columns}"
        raise BadRecord(Reason.WRONG_COLUMNS, detail)
    return record.fields


def _in_time_order(turns: list[Turn]) -> list[Turn]:
    """Oldest first where every time can be read (ISO 8601 or epoch seconds), else as they came."""
    times = []
    for turn in turns:
        time = _time(turn.sent_at)
        if time is None:
            return turns
        times.append(time)
    order = sorted(range(len(turns)), key=times.__getitem__)
    return [turns[at] for at in order]


def _time(text: str | None) -> datetime | None:
    """A time without zone counts as UTC: within one file they compare alike."""
    if text is None:
        return None
    try:
        if _EPOCH_SECONDS.fullmatch(text):
            return datetime.fromtimestamp(float(text), tz=UTC)
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
