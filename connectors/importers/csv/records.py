"""Lines to table records. Unlike with the csv module, an unclosed quote costs one record, not the file.

A quoted field may span lines. When it turns out never to close (end of file, record too large,
or text right after what should have been the closing quote), only the line where the record
began is rejected and reading goes on with the next line.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from connectors.importers.base import MIB, Reason
from connectors.importers.decode import Line

DELIMITERS = (",", ";", "\t", "|")
_INSIDE_QUOTES = re.compile(r'[^"]*(?:""[^"]*)*')
_QUOTED = re.compile(r'"[^"]*"')


class Record(NamedTuple):
    """One record; ``fields`` is None where ``reason`` says why. ``line`` is its first line."""

    line: int
    fields: list[str] | None
    reason: Reason | None = None
    detail: str = ""


def delimiter_of(header: str) -> str:
    """The most frequent delimiter of a header line; a comma where there is none."""
    bare = _QUOTED.sub("", header)
    return max(DELIMITERS, key=bare.count)


def read_records(lines: Iterable[Line], delimiter: str, *, max_bytes: int) -> Iterator[Record]:
    """Yield every record that is not blank.

    Args:
        lines: The lines of the file.
        delimiter: One character.
        max_bytes: The most for one record; a quoted field that goes on longer is not closed.
    """
    source = iter(lines)
    again: deque[Line] = deque()
    while line := (again.popleft() if again else next(source, None)):
        if line.text is None:
            yield Record(line.number, None, line.reason, line.detail)
            continue
        if not line.text.strip():
            continue
        parser = _Parser(delimiter)
        state = parser.feed(line.text)
        held: list[Line] = []
        size = len(line.text)
        while state == "open":
            more = again.popleft() if again else next(source, None)
            if more is None:
                break
            held.append(more)
            size += len(more.text or "")
            if more.text is None or size > max_bytes:
                break
            state = parser.feed(more.text)
        if state == "done":
            yield _checked(line.number, parser.fields)
            continue
        again.extendleft(reversed(held))
        yield _broken(line.number, state, spans=bool(held), max_bytes=max_bytes)


def _checked(line: int, fields: list[str]) -> Record:
    if any("\0" in field for field in fields):
        return Record(line, None, Reason.NUL_BYTE, "the record holds a NUL byte")
    return Record(line, fields)


def _broken(line: int, state: str, *, spans: bool, max_bytes: int) -> Record:
    if state == "stray" and not spans:
        detail = "text after a closing quote; a quote inside a quoted field must be doubled"
        return Record(line, None, Reason.STRAY_QUOTE, detail)
    detail = f"a quoted field that begins here does not end properly within {max_bytes / MIB:g} MiB"
    return Record(line, None, Reason.UNCLOSED_QUOTE, detail)


class _Parser:
    """RFC 4180, line by line; keeps its state, so that no line is scanned twice."""

    def __init__(self, delimiter: str) -> None:
        self.fields: list[str] = []
        self._delimiter = delimiter
        self._quoted: list[str] | None = None

    def feed(self, text: str) -> Literal["done", "open", "stray"]:
        """Take one line: the record is done, goes on, or has text after a closing quote."""
        at = 0
        while True:
            if self._quoted is None:
                if not text.startswith('"', at):
                    end = text.find(self._delimiter, at)
                    if end < 0:
                        self.fields.append(text[at:])
                        return "done"
                    self.fields.append(text[at:end])
                    at = end + 1
                    continue
                self._quoted = []
                at += 1
            inside = _INSIDE_QUOTES.match(text, at)
            end = inside.end() if inside else at
            self._quoted.append(text[at:end])
            if end == len(text):
                return "open"
            self.fields.append("\n".join(self._quoted).replace('""', '"'))
            self._quoted = None
            rest = text[end + 1 :]
            at = end + 1 + len(rest) - len(rest.lstrip(" "))
            if at == len(text):
                return "done"
            if text[at] != self._delimiter:
                return "stray"
            at += 1
