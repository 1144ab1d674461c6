"""A tenant's own patterns (order or policy numbers): regular expressions, checked before they run.

Python's matcher backtracks, so a careless pattern can take hours on one message. The patterns
allowed here are bounded instead: no nested repetition, no back references, and an open-ended ``+``
or ``*`` means at most 32 repetitions. So the work at one place of a text is at most ``_MAX_WAYS``
steps, and the whole is linear in the text.
"""

import re
from collections.abc import Iterator, Mapping

from connectors.errors import BadPattern
from connectors.redaction.recognizer import Span

_MAX_REPETITIONS = 32
_MAX_WAYS = 33 * 33  # two open-ended parts; at worst some 45 us a character (measured)
_MAX_PATTERNS = 20
_MAX_PATTERN_LENGTH = 200
_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z][A-Z0-9]*)*")
_MAX_NAME_LENGTH = 30
_REPEAT = re.compile(r"\{(\d*)(?:(,)(\d*))?\}")
_GROUP = re.compile(r"\((?:\?(?:[:=!]|<[=!]|P<\w+>))?")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]")


class CustomPatternRecognizer:
    """What a tenant's own patterns match. Case is ignored.

    Args:
        patterns: Name -> regular expression, ``{"order": "ORD-[0-9]+"}``. At most 20, of at most 200
            characters each. The name in capitals becomes the entity type.
        reserved: Entity types that no pattern may be named after.

    Raises:
        BadPattern: says which pattern and why.
    """

    def __init__(self, patterns: Mapping[str, str], *, reserved: frozenset[str]) -> None:
        self._patterns = _compiled(patterns, reserved)

    @property
    def supported_entities(self) -> tuple[str, ...]:
        """The patterns' names, in capitals."""
        return tuple(self._patterns)

    def analyze(self, text: str, context: str = "") -> Iterator[Span]:
        """See ``Recognizer.analyze``."""
        for name, pattern in self._patterns.items():
            for found in pattern.finditer(text):
                if found[0].strip():
                    yield Span(found.start(), found.end(), name, found[0].casefold())


def _compiled(patterns: Mapping[str, str], reserved: frozenset[str]) -> dict[str, re.Pattern[str]]:
    if len(patterns) > _MAX_PATTERNS:
        raise BadPattern(f"{len(patterns)} custom patterns; at most {_MAX_PATTERNS}")
    compiled = {}
    for given, pattern in patterns.items():
        name = given.strip().upper().replace("-", "_").replace(" ", "_")
        if not _NAME.fullmatch(name) or len(name) > _MAX_NAME_LENGTH or name in reserved:
            raise BadPattern(
                f"custom pattern {given!r}: the name must be words of letters and digits, "
                f"and none of {', '.join(sorted(reserved))}"
            )
        compiled[name] = _compile(given, pattern)
    return compiled


def _compile(name: str, pattern: str) -> re.Pattern[str]:
    if len(pattern) > _MAX_PATTERN_LENGTH:
        raise BadPattern(f"custom pattern {name!r} is longer than {_MAX_PATTERN_LENGTH} characters")
    try:
        re.compile(pattern)
        found = re.compile(_Bounded(pattern).text(), re.IGNORECASE)
    except re.error as exc:
        raise BadPattern(f"custom pattern {name!r} is no regular expression: {exc}") from exc
    except _UnsafeError as exc:
        raise BadPattern(f"custom pattern {name!r}: {exc}") from exc
    if found.search(""):
        raise BadPattern(f"custom pattern {name!r} matches nothing at all; make a part required")
    return found


class _UnsafeError(Exception):
    pass


class _Bounded:
    """Walks a pattern that compiles and rewrites its open ends; raises _UnsafeError."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._out: list[str] = []
        self._ways = 1
        # For each open group: whether something inside may match in more than one way.
        self._varies: list[bool] = [False]

    def text(self) -> str:
        at = 0
        while at < len(self._pattern):
            at = self._step(at)
        if self._ways > _MAX_WAYS:
            raise _UnsafeError("too many parts of open length; say how long they are, as in {4,8}")
        return "".join(self._out)

    def _step(self, at: int) -> int:
        pattern = self._pattern
        match pattern[at]:
            case "(":
                opening = _GROUP.match(pattern, at)
                if opening is None or (pattern.startswith("(?", at) and opening.end() == at + 1):
                    raise _UnsafeError(f"{pattern[at : at + 4]!r} is not supported")
                self._varies.append(False)
                self._out.append(opening[0])
                return opening.end()
            case ")":
                varies = self._varies.pop()
                self._varies[-1] = self._varies[-1] or varies
                self._out.append(")")
                return self._quantifier(at + 1, varies=varies)
            case "|":
                self._varies[-1] = True
                self._ways *= 2
                self._out.append("|")
                return at + 1
            case "\\":
                if pattern[at + 1].isdigit() and pattern[at + 1] != "0":
                    raise _UnsafeError("back references are not supported")
                end = at + 2
            case "[":
                bracket = _CLASS.match(pattern, at)
                end = bracket.end() if bracket else at + 1
            case _:
                end = at + 1
        self._out.append(pattern[at:end])
        return self._quantifier(end, varies=False)

    def _quantifier(self, at: int, *, varies: bool) -> int:
        """Read the repetition that follows an item, if any, and write its bounded form."""
        low, high, end = self._repetition(at)
        if end == at:
            return at
        if varies and high > 1:
            raise _UnsafeError("a repeated group must not hold repetitions or alternatives")
        if high > _MAX_REPETITIONS:
            raise _UnsafeError(f"more than {_MAX_REPETITIONS} repetitions")
        lazy = self._pattern[end : end + 1]
        if lazy in ("?", "+"):
            end += 1
        self._out.append(f"{{{low},{high}}}{'?' if lazy == '?' else ''}")
        self._ways *= high - low + 1
        self._varies[-1] = self._varies[-1] or high > low
        return end

    def _repetition(self, at: int) -> tuple[int, int, int]:
        match self._pattern[at : at + 1]:
            case "?":
                return 0, 1, at + 1
            case "*":
                return 0, _MAX_REPETITIONS, at + 1
            case "+":
                return 1, _MAX_REPETITIONS, at + 1
            case "{":
                found = _REPEAT.match(self._pattern, at)
                if found and (found[1] or found[2]):
                    low = int(found[1] or 0)
                    high = int(found[3]) if found[3] else _MAX_REPETITIONS if found[2] else low
                    return low, high, found.end()
        return 1, 1, at
