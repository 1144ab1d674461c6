"""JSON objects out of lines: one a line, or in an array or one after another over several lines.

A broken object costs itself: where the next one begins is told by its indentation.
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
    """Yield a line with one object each; ``number`` is where it begins.

    Lines with an object each are passed on as they are, but for a comma at the end.
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
        yield from _Splitter(max_bytes).split(whole) if spread else map(_alone, whole)
        return
    yield from blank


def _alone(line: Line) -> Line:
    text = (line.text or "").rstrip()
    return line._replace(text=text[:-1]) if text.endswith("},") else line


class _Splitter:
    """Cuts at the outermost braces; looks at each character once."""

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
                self._forget()
                yield line
                continue
            begins = line.text.startswith(self._indent + "{") and self._start > 0
            if self._depth and begins and self._one_a_line:
                yield self._made()
            if self._lost and not begins:
                continue
            self._lost = False
            yield from self._within(line)
        if self._depth:
            yield self._made()

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
                yield self._made()
                self._lost = True
                return
            if closed:
                self._one_a_line = self._start == line.number
                yield self._made()
            elif self._size > self._max_bytes:
                detail = f"an object longer than {self._max_bytes / MIB:g} MiB"
                yield Line(self._start, None, Reason.LINE_TOO_LONG, detail)
                self._forget()

    def _object_end(self, text: str, at: int) -> tuple[int, bool | None]:
        """Where the object ends in this line, and whether it does; False: never, a text is cut."""
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

    def _made(self) -> Line:
        made = Line(self._start, "\n".join(self._parts))
        self._parts.clear()
        self._size = self._depth = 0
        return made

    def _forget(self) -> None:
        self._lost = self._depth > 0
        self._parts.clear()
        self._size = self._depth = 0
