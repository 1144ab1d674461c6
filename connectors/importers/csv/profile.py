"""The profile of a table: what only the whole file can show.

What "User" means, whether the day or the month comes first, whether the newest turn is first,
whether ids were rounded and texts are HTML: each is decided once a file, and the report says how.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from connectors.importers.base import (
    MAX_TURNS,
    BadRecord,
    ImportOptions,
    Note,
    Reason,
    clean_text,
    quoted,
)
from connectors.importers.csv.columns import Columns, missing_columns_error, private_values
from connectors.importers.csv.headers import Field
from connectors.importers.date_order import DateOrderDetector
from connectors.importers.html_text import has_markup, is_html, text_of
from connectors.importers.roles import RoleResolver
from connectors.importers.timestamps import ParsedTimestamp, Timestamp, parse_timestamp
from connectors.importers.visibility import VisibilityResolver

# As spreadsheets write a number of more than eleven digits, in a column that is not text.
_ROUNDED = re.compile(r"[+-]?\d(?:[.,]\d+)?E\+\d{2,3}|#{3,}", re.IGNORECASE)
_KEPT_DIGITS = 15  # that a spreadsheet keeps of a number
_LOST_DIGITS = 4  # zeros in the place of further digits, in all long ids: no coincidence
_NO_VALUES = (
    *("null", "(null)", "none", "nan", "nil", "n/a", "na", "undefined", "-", "\\n"),
    *("#n/a", "#ref!", "#value!", "#name?", "#div/0!"),
)
_MAX_IDS = 1000


class _Observed(msgspec.Struct):
    """The role words and times of a conversation."""

    words: set[str]
    times: list[ParsedTimestamp]


class TableProfile:
    """Call ``observe`` for each row and then ``resolve``; the other methods then read a row.

    Args:
        columns: The columns to read.
        headers: The table's header.
        options: What the operator said.
        max_open: How many conversations are kept in memory at a time.
    """

    def __init__(
        self, columns: Columns, headers: Sequence[str], options: ImportOptions, *, max_open: int
    ) -> None:
        self.columns = columns
        self._headers = headers
        self._options = options
        self._max_open = max_open
        at = columns.at
        self.roles = RoleResolver(headers[at["role"]] if "role" in at else "", options.roles)
        self.visibility = VisibilityResolver(columns.visibility, private_values(options.mapping))
        self.month_first = False
        self.newest_first: bool | None = None
        self._dates = DateOrderDetector()
        self._open: OrderedDict[str, _Observed] = OrderedDict()
        self._notes: dict[str, str] = {}
        self._times = 0
        self._unparsed: list[tuple[int, str]] = []
        self._unparsed_count = 0
        self._long_ids: set[str] = set()
        self._exact_id = False
        self._texts = self._html_texts = 0
        self._ids_rounded = False
        self.html_texts = 0

    def observe(self, line: int, fields: Sequence[str]) -> None:
        """Take a row with as many fields as there are headers."""
        self.visibility.observe(fields)
        identifier = self._identifier(fields)
        word = ""
        if "role" in self.columns.at:
            word = self.roles.observe(self._value(fields, "role") or "")
        for field in ("text", "question", "answer"):
            if text := self._value(fields, field):
                self._texts += 1
                self._html_texts += is_html(text)
        seen = self._open.setdefault(identifier, _Observed(set(), []))
        self._open.move_to_end(identifier)
        seen.words.add(word)
        if text := self._value(fields, "time"):
            self._times += 1
            time = self._parsed_time(fields)
            if time is None:
                self._unparsed_count += 1
                self._unparsed = self._unparsed or [(line, text)]
            else:
                self._dates.observe(line, text, time)
                if len(seen.times) < MAX_TURNS:
                    seen.times.append(time)
        if len(self._open) > self._max_open:
            self._close(next(iter(self._open)))

    def resolve(self, note: Note) -> None:
        """Decide, and note why; raises BadMapping where the file leaves open what must be known."""
        for identifier in list(self._open):
            self._close(identifier)
        self.roles.resolve()
        self.visibility.resolve()
        if not self.columns.certain and not self.roles.has_participants:
            raise missing_columns_error(self._headers, ["role"])
        lost = sum(len(each) - _KEPT_DIGITS for each in self._long_ids)
        self._ids_rounded = not self._exact_id and lost >= _LOST_DIGITS
        self.month_first, known = self._dates.resolve(self._options.dates)
        if known:
            note("dates", known)
        self.newest_first = self._dates.newest_first(month_first=self.month_first)
        if self._options.order:
            self.newest_first = self._options.order == "newest-first"
        if said := str(self.roles):
            note("roles", said)
        if self._unparsed_count:
            line, text = self._unparsed[0]
            note(
                "times",
                f"{self._unparsed_count:,} of {self._times:,} are not understood, such as "
                f"{quoted(text)} in line {line}; those turns keep their place in the file",
            )

    def identifier(self, fields: Sequence[str]) -> str | None:
        """The id of the row's conversation; None where the table has no such column.

        Raises:
            BadRecord: it is empty, or a spreadsheet has rounded it.
        """
        if "conversation" not in self.columns.at:
            return None
        identifier = self._identifier(fields)
        if not identifier:
            raise BadRecord(Reason.BAD_RECORD, "the conversation column is empty")
        if _ROUNDED.fullmatch(identifier) or (self._ids_rounded and _is_rounded(identifier)):
            detail = (
                f"a spreadsheet has rounded the conversation's id to {quoted(identifier)}, which "
                "strangers share; export it again with that column as text"
            )
            raise BadRecord(Reason.ROUNDED_ID, detail)
        return identifier

    def timestamp(self, fields: Sequence[str]) -> Timestamp | None:
        """The row's time in seconds, and whether it has a date; None where it has no time."""
        time = self._parsed_time(fields)
        return (time.seconds(month_first=self.month_first), time.has_date) if time else None

    def text(self, fields: Sequence[str], field: Field) -> str:
        """The row's text without markup, where it is HTML. Raises BadRecord where it is empty."""
        text = self._value(fields, field)
        if text and (is_html(text) or (self._mostly_html and has_markup(text))):
            self.html_texts += 1
            text = clean_text(text_of(text))
        if not text:
            raise BadRecord(Reason.EMPTY_TEXT, f"the {field} column is empty")
        return text

    @property
    def _mostly_html(self) -> bool:
        return 2 * self._html_texts >= self._texts > 0

    def _identifier(self, fields: Sequence[str]) -> str:
        identifier = self._value(fields, "conversation") or ""
        if identifier.casefold() in _NO_VALUES:
            return ""
        if identifier.isdecimal() and len(identifier) > _KEPT_DIGITS:
            if not _is_rounded(identifier):
                self._exact_id = True
            elif len(self._long_ids) < _MAX_IDS:
                self._long_ids.add(identifier)
        return identifier

    def _parsed_time(self, fields: Sequence[str]) -> ParsedTimestamp | None:
        text = self._value(fields, "time")
        time = parse_timestamp(text) if text else None
        if self.columns.date is not None and (time is None or not time.has_date):
            day = fields[self.columns.date].strip()
            return parse_timestamp(f"{day} {text or ''}".strip()) or time
        return time

    def _close(self, identifier: str) -> None:
        seen = self._open.pop(identifier)
        if identifier:  # rows without one belong to no conversation
            self.roles.observe_conversation(seen.words)
            self._dates.observe_conversation(seen.times)

    def _value(self, fields: Sequence[str], field: Field) -> str | None:
        at = self.columns.at.get(field)
        return None if at is None else fields[at].strip() or None


def _is_rounded(identifier: str) -> bool:
    return (
        len(identifier) > _KEPT_DIGITS
        and identifier.isdecimal()
        and not identifier[_KEPT_DIGITS:].strip("0")
    )
