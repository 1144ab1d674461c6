"""Finds JSON objects in lines: one a line, or over several lines in an array or one after another.

A broken object costs only itself: the next one is found by its indentation.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from connectors.importers.base import MIB, Reason
from connectors.importers.decode import Line

_BETWEEN = re.compile(r"[\s,\[\]]*")
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|["{}\[\]]')
_SPREAD = "if it is one JSON array, make it lines with: jq -c '.[]' FILE > FILE.jsonl"


def documents(lines: Iterable[Line], *, max_bytes: int) -> Iterator[Line]:
    """Yield lines that hold one object each; ``number`` is where it begins.

    Lines that hold an object each already are passed on, without a comma at the end.

    Args:
        lines: The lines of the file.
        max_bytes: The most for one object; a longer one is rejected.
    """
    source = iter(lines)
    blank: list[Line] = []
    for line in source:
        if line.text is not None and not line.text.strip():
            blank.append(line)
            continue
        start = (line.text or "").lstrip()
        spread = start.startswith("[") or start.rstrip() == "{"
        first = line
        if line.reason is Reason.LINE_TOO_LONG:
            first = line._replace(detail=f"{line.detail}; {_SPREAD}")
        whole = chain(blank, [first], source)
        yield from _Splitter(max_bytes).split(whole) if spread else map(_without_comma, whole)
        return
    yield from blank


def _without_comma(line: Line) -> Line:
    text = (line.text or "").rstrip()
    return line._replace(text=text[:-1]) if text.endswith("},") else line


class _Splitter:
    """Cuts at the outermost braces, in one pass over the characters."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[str] = []
        self._size = 0
        self._depth = 0
        self._start = 0
        self._indent = ""
        self._one_a_line = False
        self._lost = False  # after a broken object, until the next one begins

    def split(self, lines: Iterable[Line]) -> Iterator[Line]:
        for line in lines:
            if line.text is None:
                self._discard()
                yield line
                continue
            begins = line.text.startswith(self._indent + "{") and self._start > 0
            if self._depth and begins and self._one_a_line:
                yield self._finish()
            if self._lost and not begins:
                continue
            self._lost = False
            yield from self._within(line)
        if self._depth:
            yield self._finish()

    def _within(self, line: Line) -> Iterator[Line]:
        text = line.text or ""
        at = 0
        while at < len(text):
            if not self._depth:
                between = _BETWEEN.match(text, at)
                at = between.end() if between else at
                if at == len(text):
                    return
                if text[at] != "{":
                    end = text.find("{", at)
                    end = len(text) if end < 0 else end
                    yield Line(line.number, text[at:end].rstrip(" ,]\t"))
                    at = end
                    continue
                self._start = line.number
                self._indent = text[:at] if not text[:at].strip() else ""
            end, closed = self._object_end(text, at)
            self._parts.append(text[at:end])
            self._size += end - at
            at = end
            if closed is False:
                yield self._finish()
                self._lost = True
                return
            if closed:
                self._one_a_line = self._start == line.number
                yield self._finish()
            elif self._size > self._max_bytes:
                detail = f"an object longer than {self._max_bytes / MIB:g} MiB"
                yield Line(self._start, None, Reason.LINE_TOO_LONG, detail)
                self._discard()

    def _object_end(self, text: str, at: int) -> tuple[int, bool | None]:
        """Where the object ends in this line, and whether it does; False where a string is cut off."""
        for token in _TOKEN.finditer(text, at):
            if token[0] in "{[":
                self._depth += 1
            elif token[0] in "}]":
                self._depth -= 1
                if not self._depth:
                    return token.end(), True
            elif token[0] == '"':
                return len(text), False
        return len(text), None

    def _finish(self) -> Line:
        whole = Line(self._start, "\n".join(self._parts))
        self._parts.clear()
        self._size = self._depth = 0
        return whole

    def _discard(self) -> None:
        self._lost = self._depth > 0
        self._parts.clear()
        self._size = self._depth = 0
