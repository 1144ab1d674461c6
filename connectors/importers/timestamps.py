"""Parses times as exports write them.

Supported are ISO 8601, numbers (epoch seconds to nanoseconds, a spreadsheet's days), dates in digits
with the year first or last, and dates with a month's name in the languages of ``_MONTHS``; with a
time of 12 or 24 hours and a zone. A time without a zone counts as UTC, which does not
change the order within a file. ``03/04/2024`` is ambiguous by itself: ``DateOrderDetector`` decides
for the whole file.
"""

import re
import unicodedata
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple

_MONTHS = (
    "january januar janvier enero gennaio janeiro januari stycznia styczen ledna leden ocak "
    "январь января січня ianuarie",
    "february februar fevrier febrero febbraio fevereiro februari lutego luty unora unor subat "
    "февраль февраля лютого februarie",
    "march maerz marz mrz mars marzo marco maart marts marca marzec brezna brezen mart март марта "
    "березня martie",
    "april avril abril aprile kwietnia kwiecien dubna duben nisan апрель апреля квітня aprilie",
    "may mai mayo maggio maio mei maj maja kvetna kveten mayis май мая травня",
    "june juni juin junio giugno junho czerwca czerwiec cervna cerven haziran июнь июня червня "
    "iunie",
    "july juli juillet julio luglio julho lipca lipiec cervence cervenec temmuz июль июля липня "
    "iulie",
    "august aout agosto augustus augusti sierpnia sierpien srpna srpen agustos август августа "
    "серпня",
    "september septembre septiembre settembre setembro wrzesnia wrzesien zari eylul сентябрь "
    "сентября вересня septembrie",
    "october oktober octobre octubre ottobre outubro oktober pazdziernika pazdziernik rijna rijen "
    "ekim октябрь октября жовтня octombrie",
    "november novembre noviembre novembro listopada listopad listopadu kasim ноябрь ноября "
    "листопада noiembrie",
    "december dezember decembre diciembre dicembre dezembro desember grudnia grudzien prosince "
    "prosinec aralik декабрь декабря грудня decembrie",
)
_ZONES = {
    "utc": 0, "gmt": 0, "z": 0, "wet": 0, "bst": 1, "west": 1, "cet": 1, "mez": 1, "met": 1,
    "cest": 2, "mesz": 2, "eet": 2, "sast": 2, "eest": 3, "msk": 3, "ist": 5.5, "sgt": 8, "hkt": 8,
    "awst": 8, "jst": 9, "kst": 9, "aest": 10, "aedt": 11, "nzst": 12, "nzdt": 13, "brt": -3,
    "edt": -4, "est": -5, "cdt": -5, "cst": -6, "mdt": -6, "mst": -7, "pdt": -7, "pst": -8,
}  # fmt: skip

_LETTERS = str.maketrans({"\u0131": "i", "ł": "l", "ø": "o", "đ": "d", "\u2212": "-"})
_NUMBER = re.compile(
    r"(?P<s>\d{9,10}(?:\.\d{1,9})?)|(?P<ms>\d{12,13}(?:\.\d+)?)|(?P<us>\d{15,16})|(?P<ns>\d{18,19})"
)
_WHOLE_FLOAT = re.compile(r"\d\.\d{9,15}e\+?09|\d\.\d{12,15}e\+?12")
_DOTNET = re.compile(r"/?date\((\d{9,13})(?:[+-]\d{4})?\)/?")
_SHEET_DAYS = re.compile(r"[2-7]\d{4}(?:[.,]\d{1,12})?")  # 1954 to 2119
_COMPACT = re.compile(r"((?:19|20)\d\d)(\d\d)(\d\d)[ t_-]?(\d\d)(\d\d)(\d\d)?")
_YEAR_FIRST = re.compile(
    r"(?<!\d)((?:19|20)\d\d)\s?[-/.년年]\s?(\d{1,2})\s?[-/.월月]\s?(\d{1,2})(?!\d)\s?[일日.]?"
)
_YEAR_LAST = re.compile(
    r"(?<![\d:])(\d{1,2})(?:\s?([-/.])\s?(\d{1,2})\s?\2\s?((?:19|20)\d\d)"
    r"|([-/.])(\d{1,2})\5'?(\d\d))(?![\d:])"
)
_WORD = re.compile(r"[^\W\d_]{3,}")
_DAY_BEFORE = re.compile(
    r"(?<!\d)(\d{1,2})(?:st|nd|rd|th|er|te|o|a|e)?[\s.,/-]*(?:of|de|di|den)?[\s.-]*$"
)
_DAY_AFTER = re.compile(r"[\s./-]*(\d{1,2})(?:st|nd|rd|th)?(?![\d:])")
_YEAR_AFTER = re.compile(
    r"[\s.,/-]*(?:of|del?|do|di)?\s*'?(?P<year>(?:19|20)\d\d(?!\d)|\d\d(?![\d:h.]))"
    r"(?:\s?\u0433\b\.?)?"
)
_LONG_YEAR_AFTER = re.compile(r"[\s.,/-]*(?:of|del?|do|di)?\s*(?P<year>(?:19|20)\d\d)(?!\d)")
_YEAR_BEFORE = re.compile(r"(?<!\d)(?P<year>(?:19|20)\d\d)[\s.,/-]*$")
_YEAR_AT_END = re.compile(r"(?<![\d+-])(?P<year>(?:19|20)\d\d)\s*$")
_HALF = r"[ap]\s?\.?\s?m\b\.?"
_CLOCK = re.compile(
    r"(?P<before>上午|下午|午前|午後|午后|오전|오후|\b[ap]m\b)?\s*"
    r"(?<!\d)(?P<h>\d{1,2})\s?[:.h時时点시]\s?(?P<m>\d\d)"
    r"(?:\s?[:.분分]\s?(?P<s>\d\d)(?:[.,:](?P<f>\d{1,9}))?)?\s?[秒초분分]?(?!\d)"
    rf"\s*(?P<half>{_HALF})?"
)
_HOUR = re.compile(rf"(?<!\d)(?P<h>\d{{1,2}})\s?(?:(?P<half>{_HALF})|uhr\b|h\b|時|时|시)")
_AFTERNOON = {"pm", "下午", "午後", "午后", "오후"}
_OFFSET = re.compile(r"(?:utc|gmt)?\s?([+-])(\d{1,2}):?(\d\d)?(?!\d)")
_MAX_LENGTH = 120  # characters; JavaScript's take 70
_FIRST_YEAR, _LAST_YEAR = 1970, 2199
_CENTURY = 69  # years 00 to 68 are of this century, as POSIX has it
_NOON, _MIDNIGHT = 12, 24
_LEAP_SECOND = 60


Timestamp = tuple[float, bool]
"""Seconds since 1970, and whether there was a date."""


class ParsedTimestamp(NamedTuple):
    """A time in seconds since 1970, for both orders of day and month.

    The two are equal where the order makes no difference. One is None where only the other order
    gives a date. ``has_date`` is false for a time of day alone, which counts from 1 January 1970.
    """

    day_first: float | None
    month_first: float | None
    has_date: bool = True

    @property
    def ambiguous(self) -> bool:
        """Whether the order of day and month makes a difference."""
        both = self.day_first is not None and self.month_first is not None
        return both and self.day_first != self.month_first

    def seconds(self, *, month_first: bool) -> float:
        """The seconds for one order; for the other where this one gives no date."""
        wanted, other = self.day_first, self.month_first
        if month_first:
            wanted, other = other, wanted
        return wanted if wanted is not None else other or 0.0


def parse_timestamp(text: str) -> ParsedTimestamp | None:
    """Parse a value of a time column; None where it is not understood."""
    return _parse(text) if len(text) <= _MAX_LENGTH else None


@lru_cache(maxsize=4096)
def _parse(text: str) -> ParsedTimestamp | None:
    try:
        return _certain(datetime.fromisoformat(text.strip()))
    except ValueError:
        pass
    plain = _folded(text)
    try:
        return _number(plain) or _words(plain)
    except (ValueError, OverflowError, OSError):
        return None


def _folded(text: str) -> str:
    """Lower case without accents, direction marks and unusual blanks; digits as ASCII."""
    if text.isascii():
        return text.lower().strip()
    parts = unicodedata.normalize("NFKD", text).casefold()
    kept = (
        str(unicodedata.decimal(c)) if c.isdecimal() else c
        for c in parts
        if unicodedata.category(c) not in {"Mn", "Cf"}
    )
    return unicodedata.normalize("NFC", "".join(kept)).translate(_LETTERS).strip()


def _certain(moment: datetime) -> ParsedTimestamp:
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return ParsedTimestamp(seconds, seconds)


def _number(text: str) -> ParsedTimestamp | None:
    found = _COMPACT.fullmatch(text)
    if found:
        year, month, day, *clock = (int(part or 0) for part in found.groups())
        try:
            hour, minute, second = clock
            return _certain(datetime(year, month, day, hour, minute, second, tzinfo=UTC))
        except ValueError:
            pass
    if _WHOLE_FLOAT.fullmatch(text):  # "1.714557700E+09", with no digit lost
        text = f"{float(text):f}".rstrip("0").rstrip(".")
    dotnet = _DOTNET.fullmatch(text)
    number = _NUMBER.fullmatch(dotnet[1] if dotnet else text)
    if number:
        unit = number.lastgroup or "s"
        seconds = float(number[unit]) / {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
        return ParsedTimestamp(seconds, seconds)
    if _SHEET_DAYS.fullmatch(text):
        days = timedelta(days=float(text.replace(",", ".")))
        return _certain(datetime(1899, 12, 30, tzinfo=UTC) + days)
    return None


class _Date(NamedTuple):
    """Year, month, day in each order; None where that is no date. ``rest`` is the remaining text."""

    day_first: tuple[int, int, int] | None
    month_first: tuple[int, int, int] | None
    rest: str


def _words(text: str) -> ParsedTimestamp | None:
    date = _date(text)
    rest = date.rest if date else text
    clock = _CLOCK.search(rest) or _HOUR.search(rest)
    if clock is None and date is None:
        return None
    since_midnight = 0.0
    before, after = rest, ""
    if clock:
        since_midnight = _seconds(clock.groupdict())
        before, after = rest[: clock.start()], rest[clock.end() :]
        zone, after = _zone(after)
        since_midnight -= zone
    if re.search(r"\d", before + after):  # more digits than a time has: something else
        return None
    if date is None:
        if re.search(r"[^\W_]{4}", before + after):  # "yesterday": no time of day alone
            return None
        return ParsedTimestamp(since_midnight, since_midnight, has_date=False)
    return ParsedTimestamp(
        _midnight(date.day_first) + since_midnight if date.day_first else None,
        _midnight(date.month_first) + since_midnight if date.month_first else None,
    )


def _date(text: str) -> _Date | None:
    if found := _YEAR_FIRST.search(text):
        day = _valid(int(found[1]), int(found[2]), int(found[3]))
        return _Date(day, day, _without(text, found)) if day else None
    if found := _YEAR_LAST.search(text):
        a, b = int(found[1]), int(found[3] or found[6])
        year = int(found[4]) if found[4] else _four_digits(found[7])
        day_first, month_first = _valid(year, b, a), _valid(year, a, b)
        if day_first and "." in (found[2], found[5]):
            month_first = day_first  # with dots the day is first everywhere
        if day_first is None and month_first is None:
            return None
        return _Date(day_first, month_first, _without(text, found))
    for word in reversed(list(_WORD.finditer(text))):  # "mar. 3 fevr.": the last is the month
        month = _MONTH_OF.get(word[0])
        found_date = _named(text, word, month) if month else None
        if found_date:
            return found_date
    return None


def _named(text: str, word: re.Match[str], month: int) -> _Date | None:
    """The date around a month's name: the day beside it, the year beside that, before, or last."""
    before, after = text[: word.start()], text[word.end() :]
    if day := _DAY_BEFORE.search(before):
        before = before[: day.start()]
        year = _YEAR_AFTER.match(after) or _YEAR_AT_END.search(after)
    elif day := _DAY_AFTER.match(after):
        after = after[day.end() :]
        year = _LONG_YEAR_AFTER.match(after) or _YEAR_AT_END.search(after)
    else:
        return None
    if year:
        after = _without(after, year)
    elif year := _YEAR_BEFORE.search(before):
        before = _without(before, year)
    else:
        return None
    digits = year["year"]
    valid = _valid(int(digits) if len(digits) > 2 else _four_digits(digits), month, int(day[1]))  # noqa: PLR2004
    return _Date(valid, valid, f"{before} {after}") if valid else None


def _valid(year: int, month: int, day: int) -> tuple[int, int, int] | None:
    try:
        datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return None
    return (year, month, day) if _FIRST_YEAR <= year <= _LAST_YEAR else None


def _midnight(date: tuple[int, int, int]) -> float:
    year, month, day = date
    return datetime(year, month, day, tzinfo=UTC).timestamp()


def _four_digits(year: str) -> int:
    return int(year) + (2000 if int(year) < _CENTURY else 1900)


def _without(text: str, found: re.Match[str]) -> str:
    return f"{text[: found.start()]} {text[found.end() :]}"


def _seconds(clock: dict[str, str | None]) -> float:
    """Seconds since midnight. Raises ValueError where it is no time of day."""
    hour, minute, second = (int(clock.get(part) or 0) for part in "hms")
    time(hour % _MIDNIGHT, minute, min(second, _LEAP_SECOND - 1))  # checks
    if hour > _MIDNIGHT or second > _LEAP_SECOND:
        raise ValueError
    half = (clock.get("half") or "")[:1]
    if clock.get("before"):
        half = "p" if clock["before"] in _AFTERNOON else "a"
    if half and hour <= _NOON:
        hour = hour % _NOON + (_NOON if half == "p" else 0)
    return hour * 3600 + minute * 60 + second + float(f"0.{clock.get('f') or 0}")


def _zone(text: str) -> tuple[float, str]:
    """The offset from UTC in seconds (east is positive) in the text after a time, and the rest."""
    if found := _OFFSET.search(text):
        seconds = int(found[2]) * 3600 + int(found[3] or 0) * 60
        return (-seconds if found[1] == "-" else seconds), _without(text, found)
    for word in re.findall(r"[a-z]+", text):
        if word in _ZONES:
            return _ZONES[word] * 3600, text
    return 0, text


def _months() -> dict[str, int]:
    """Each name, and its beginnings of three letters or more that no other month has."""
    words: dict[str, set[int]] = {}
    full: dict[str, int] = {}
    for month, names in enumerate(_MONTHS, 1):
        for name in map(_folded, names.split()):
            full[name] = month
            for end in range(3, len(name)):
                words.setdefault(name[:end], set()).add(month)
    known = {word: months.pop() for word, months in words.items() if len(months) == 1}
    return known | full


_MONTH_OF = _months()
