"""What the JSON formats share: records, one a line or in an array, are read and counted alike."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import IO, Any, ClassVar, TypeVar

import msgspec

from connectors.conversation import Conversation, Role, Split, Turn
from connectors.importers.address_columns import is_address_header
from connectors.importers.base import (
    MAX_CONVERSATION_CHARACTERS,
    MIB,
    BadRecord,
    ImportOptions,
    Note,
    Reason,
    Rejected,
    clean_text,
    ignore_note,
)
from connectors.importers.decode import Line, peek, read_lines
from connectors.importers.json_documents import documents
from connectors.importers.mojibake import fix_mojibake
from connectors.importers.name_columns import name_column

T = TypeVar("T")


class Skipped(msgspec.Struct, frozen=True):
    """A message that is not kept while the rest of its conversation is."""

    reason: Reason
    detail: str


def read_records(
    stream: IO[bytes],
    options: ImportOptions,
    parse: Callable[[dict[str, Any], int, ImportOptions], tuple[T, list[Skipped]]],
    *,
    note: Note = ignore_note,
    spread: bool = False,
) -> Iterator[T | Rejected]:
    """Yield what ``parse`` makes of each line's object, and what was rejected.

    Args:
        stream: Read once; it may be compressed with gzip.
        options: Encoding and bounds; passed on to ``parse``.
        parse: Gets the object and its line, and raises BadRecord.
        note: Gets the encoding and the number of blank lines.
        spread: Whether the objects may also stand in an array, or take several lines.
    """
    blank = 0
    lines = read_lines(stream, options, note)
    for line in documents(lines, max_bytes=options.max_line_bytes) if spread else lines:
        if line.text is not None and not line.text.strip():
            blank += 1
            continue
        try:
            made, skipped = parse(_decode(line), line.number, options)
        except BadRecord as exc:
            yield Rejected(line.number, exc.reason, exc.detail)
            continue
        for part in skipped:
            yield Rejected(line.number, part.reason, part.detail, part=True)
        yield made
    if blank:
        note("blank lines", str(blank))


class JsonLines(ABC):
    """Base of the importers of JSON lines: a subclass turns one decoded record into turns.

    ``key`` names the list by which a record of the format is recognized. Where a record has
    several such lists, the format that was defined first counts.
    """

    name = ""
    description = ""
    key = ""
    fixes_mojibake = True
    """Whether text that was encoded twice is repaired."""
    _keys: ClassVar[list[str]] = []

    def __init_subclass__(cls) -> None:
        if cls.key and cls.key not in JsonLines._keys:
            JsonLines._keys.append(cls.key)

    def sniff(self, head: bytes, filename: str) -> bool:
        """Whether the first records hold this format's list."""
        return _key_of(peek(head), self._keys) == self.key

    def read(
        self, stream: IO[bytes], options: ImportOptions, note: Note = ignore_note
    ) -> Iterator[Conversation | Rejected]:
        """Yield a conversation a record; see ``Importer.read``."""
        repaired = 0

        def parse(
            record: dict[str, Any], number: int, options: ImportOptions
        ) -> tuple[Conversation, list[Skipped]]:
            nonlocal repaired
            conversation, skipped = self.parse(record, number, options)
            if self.fixes_mojibake:
                conversation, count = _without_mojibake(conversation)
                repaired += count
            return conversation, skipped

        yield from read_records(stream, options, parse, note=note, spread=True)
        if repaired:
            note("encoded twice", f"{repaired:,} characters, put right")

    @abstractmethod
    def turns(self, record: Mapping[str, Any], options: ImportOptions) -> Iterator[Turn | Skipped]:
        """Turn a record's list into turns; raises BadRecord."""

    def parse(
        self, record: dict[str, Any], number: int, options: ImportOptions
    ) -> tuple[Conversation, list[Skipped]]:
        """The conversation in a record of line ``number``; raises BadRecord."""
        if self.key not in record:
            raise BadRecord(Reason.BAD_RECORD, f"no {self.key!r} in the record")
        turns: list[Turn] = []
        skipped: list[Skipped] = []
        for item in self.turns(record, options):
            if isinstance(item, Turn):
                turns.append(item)
            else:
                skipped.append(item)
        if not turns:
            reason = skipped[0].reason if skipped else Reason.NO_TURNS
            why = f"no message is left: {skipped[0].detail}" if skipped else "no messages"
            raise BadRecord(reason, why)
        if sum(len(turn.text) for turn in turns) > MAX_CONVERSATION_CHARACTERS:
            detail = f"a conversation of more than {MAX_CONVERSATION_CHARACTERS / MIB:g} million characters"
            raise BadRecord(Reason.TOO_LARGE, detail)
        conversation = Conversation(
            id=identifier(record, number),
            turns=tuple(turns),
            channel=_word(record, "channel"),
            language=_word(record, "language"),
            labels=_labels(record.get("labels")),
            split=options.split or self.pinned(record),
            names=_names(
                record,
                record[self.key],
                {turn.author for turn in turns if turn.role is not Role.BOT},
            ),
            places=tuple(_places(record)),
        )
        return conversation, skipped

    def pinned(self, record: Mapping[str, Any]) -> Split | None:
        """The split that the record itself is pinned to; only our own format has one."""
        return None


def _decode(line: Line) -> dict[str, Any]:
    if line.text is None:
        raise BadRecord(line.reason or Reason.UNDECODABLE, line.detail)
    if "\0" in line.text:
        raise BadRecord(Reason.NUL_BYTE, "the line holds a NUL byte")
    try:
        record = msgspec.json.decode(line.text)
    except msgspec.DecodeError as exc:
        raise BadRecord(Reason.BAD_JSON, _why(line.text, exc)) from exc
    except (UnicodeError, RecursionError) as exc:
        raise BadRecord(Reason.BAD_JSON, "not text, or nested too deeply") from exc
    if not isinstance(record, dict):
        raise BadRecord(Reason.BAD_RECORD, "the line is not a JSON object")
    return record


def _why(text: str, error: msgspec.DecodeError) -> str:
    """What is wrong with a line; for half a surrogate pair msgspec says that the line is cut off."""
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "not valid Unicode: an escape from \\ud800 to \\udfff is half of a surrogate pair"
    except (ValueError, RecursionError):
        pass
    return str(error)


def identifier(record: Mapping[str, Any], number: int) -> str:
    """The record's own identifier, or its line."""
    for key in ("id", "conversation_id"):
        value = record.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return clean_text(str(value))
    return f"line-{number}"


def _without_mojibake(conversation: Conversation) -> tuple[Conversation, int]:
    turns = []
    total = 0
    for turn in conversation.turns:
        text, count = fix_mojibake(turn.text)
        author = fix_mojibake(turn.author)[0] if turn.author else turn.author
        total += count
        turns.append(msgspec.structs.replace(turn, text=text, author=author))
    if not total:
        return conversation, 0
    return msgspec.structs.replace(conversation, turns=tuple(turns)), total


def _names(
    record: Mapping[str, Any],
    messages: Iterable[Mapping[str, Any]],
    authors: Collection[str | None],
) -> dict[str, Role]:
    """The people whom a record or its messages name, in fields such as ``customer_name``."""
    found = {}
    for fields in (record, record.get("labels"), record.get("metadata"), *messages):
        if not isinstance(fields, dict):
            continue
        for key, value in fields.items():
            if isinstance(value, str) and (column := name_column(0, key)):
                name = column.name_in([value])
                if name and "\0" not in name and name not in authors:
                    found[name] = column.side
    return found


def _places(record: Mapping[str, Any]) -> Iterator[str]:
    """Parts of postal addresses that a record names, in fields such as ``shipping_address``."""
    for fields in (record, record.get("labels"), record.get("metadata")):
        if not isinstance(fields, dict):
            continue
        for key, value in fields.items():
            if isinstance(value, str) and "\0" not in value and is_address_header(key):
                yield value


def _word(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    return clean_text(value) or None if isinstance(value, str) else None


def _labels(value: object) -> dict[str, str]:
    """Labels as text: without nulls, numbers and booleans as in JSON."""
    if not isinstance(value, dict):
        return {}
    labels = {}
    for key, label in value.items():
        if label is not None:
            text = label if isinstance(label, str) else msgspec.json.encode(label).decode()
            labels[clean_text(key)] = clean_text(text)
    return labels


def _key_of(text: str, keys: Sequence[str]) -> str | None:
    """Which of the lists the first readable record holds; in a cut-off record, the first named."""
    lines = (Line(number, line) for number, line in enumerate(text.split("\n"), 1))
    for line in islice(documents(lines, max_bytes=len(text) + 1), 50):
        try:
            record = msgspec.json.decode(line.text or "")
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            continue
        if isinstance(record, dict):
            found = [key for key in keys if isinstance(record.get(key), list)]
            if found:
                return found[0]
    if text.lstrip().startswith(("{", "[")):
        places = {key: at for key in keys if (at := text.find(f'"{key}"')) >= 0}
        return min(places, key=lambda key: places[key], default=None)
    return None
