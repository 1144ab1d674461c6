"""A first look at a whole table: what no row tells by itself.

Who "User" is, whether the day or the month comes first, whether the newest turn does, whether ids
were rounded and texts are HTML: each is settled once a file, and told in the report.
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

# As spreadsheets write a number of more than eleven figures, in a column that is not text.
_ROUNDED = re.compile(r"[+-]?\d(?:[.,]\d+)?E\+\d{2,3}|#{3,}", re.IGNORECASE)
_FIGURES = 15  # that a spreadsheet keeps of a number
_LOST_FIGURES = 4  # zeros in the place of further ones, in all long ids: no chance
_NO_VALUES = (
    *("null", "(null)", "none", "nan", "nil", "n/a", "na", "undefined", "-", "\\n"),
    *("#n/a", "#ref!", "#value!", "#name?", "#div/0!"),
)
_MAX_IDS = 1000


class _Open(msgspec.Struct):
    """What was seen of a conversation."""

    words: set[str]
    times: list[ParsedTimestamp]


class TableProfile:
    """Call ``see`` for each row, then ``settle``; afterwards it knows how to read the file."""

    def __init__(
        self, columns: Columns, headers: Sequence[str], options: ImportOptions, *, max_open: int
    ) -> None:
        self.columns = columns
        self._headers = headers
        self._options = options
        self._max_open = max_open
        at = columns.at
        self.roles = RoleResolver(headers[at["speaker"]] if "speaker" in at else "", options.roles)
        self.visibility = VisibilityResolver(columns.flags, private_values(options.mapping))
        self.month_first = False
        self.newest_first: bool | None = None
        self._dates = DateOrderDetector()
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._notes: dict[str, str] = {}
        self._times = 0
        self._strange: list[tuple[int, str]] = []
        self._strange_count = 0
        self._long_ids: set[str] = set()
        self._exact_id = False
        self._texts = self._html_texts = 0
        self._ids_rounded = False
        self.html_texts = 0

    def observe(self, line: int, fields: Sequence[str]) -> None:
        """Take a row of the right number of fields."""
        self.visibility.observe(fields)
        identifier = self._identifier(fields)
        word = ""
        if "speaker" in self.columns.at:
            word = self.roles.observe(self._value(fields, "speaker") or "")
        for field in ("text", "question", "answer"):
            if text := self._value(fields, field):
                self._texts += 1
                self._html_texts += is_html(text)
        seen = self._open.setdefault(identifier, _Open(set(), []))
        self._open.move_to_end(identifier)
        seen.words.add(word)
        if text := self._value(fields, "time"):
            self._times += 1
            reading = self._parsed_time(fields)
            if reading is None:
                self._strange_count += 1
                self._strange = self._strange or [(line, text)]
            else:
                self._dates.observe(line, text, reading)
                if len(seen.times) < MAX_TURNS:
                    seen.times.append(reading)
        if len(self._open) > self._max_open:
            self._close(next(iter(self._open)))

    def resolve(self, note: Note) -> None:
        """Decide; raises BadMapping where the file does not tell what its meaning depends on."""
        for identifier in list(self._open):
            self._close(identifier)
        self.roles.resolve()
        self.visibility.resolve()
        if not self.columns.certain and not self.roles.has_participants:
            raise missing_columns_error(self._headers, ["speaker"])
        lost = sum(len(each) - _FIGURES for each in self._long_ids)
        self._ids_rounded = not self._exact_id and lost >= _LOST_FIGURES
        self.month_first, known = self._dates.resolve(self._options.dates)
        if known:
            note("dates", known)
        self.newest_first = self._dates.newest_first(month_first=self.month_first)
        if self._options.order:
            self.newest_first = self._options.order == "newest-first"
        if said := str(self.roles):
            note("speakers", said)
        if self._strange_count:
            line, text = self._strange[0]
            note(
                "times",
                f"{self._strange_count:,} of {self._times:,} are not understood, such as "
                f"{quoted(text)} in line {line}; those turns keep their place in the file",
            )

    def identifier(self, fields: Sequence[str]) -> str | None:
        """The row's conversation; None where the table has no such column. Raises BadRecord."""
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
        reading = self._parsed_time(fields)
        return (
            (reading.seconds(month_first=self.month_first), reading.has_date) if reading else None
        )

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
        if identifier.isdecimal() and len(identifier) > _FIGURES:
            if not _is_rounded(identifier):
                self._exact_id = True
            elif len(self._long_ids) < _MAX_IDS:
                self._long_ids.add(identifier)
        return identifier

    def _parsed_time(self, fields: Sequence[str]) -> ParsedTimestamp | None:
        text = self._value(fields, "time")
        reading = parse_timestamp(text) if text else None
        if self.columns.date is not None and (reading is None or not reading.has_date):
            day = fields[self.columns.date].strip()
            return parse_timestamp(f"{day} {text or ''}".strip()) or reading
        return reading

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
        len(identifier) > _FIGURES
        and identifier.isdecimal()
        and not identifier[_FIGURES:].strip("0")
    )
