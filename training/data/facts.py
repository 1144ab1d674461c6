"""The facts of a text: numbers, amounts, dates, times, links, in one notation.

Names of products are facts as well, but no rule reads them from one text: see `training.data.products`.

Two replies may be worded alike and still say different things: 14 days or 30, 9:00 or 10:00. Facts are
read by rules, not by a model, so that what was found can be shown and checked::

    sorted(map(str, facts_of("Refunds take 3-5 working days, at most 1.000,00 EUR.")))
    # ['1000 EUR', '3 working day', '5 working day']
    facts_of("We open at 9am") == facts_of("We open at 09:00")  # True
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from decimal import Decimal
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from connectors.redaction.folding import fold
from connectors.redaction.placeholders import PLACEHOLDER
from training.data.fact_words import (
    CENTS,
    COUNTS,
    CURRENCIES,
    MONTHS,
    MULTIPLES,
    SHORT_UNITS,
    SHORT_WEEKDAYS,
    UNITS,
    WEEKDAYS,
)

FactKind = Literal[
    "amount",
    "quantity",
    "number",
    "code",
    "date",
    "time",
    "weekday",
    "phone",
    "link",
    "email",
    "product",
]


class Fact(NamedTuple):
    """One fact; equal where two texts say the same thing.

    ========  =============================================  ==================
    kind      value                                          unit
    ========  =============================================  ==================
    amount    a decimal number without grouping: ``1000.5``  ISO 4217: ``EUR``
    quantity  the same                                       ``working day``, ``kg``, ``percent``
    number    the same: a number without a unit
    code      letters and digits in capitals: ``ORD-77``
    date      ISO 8601; ``--03-05`` without a year, ``2026-03`` without a day
    time      ``HH:MM`` of 24 hours, or ``24/7``
    weekday   1 (Monday) to 7, or a span of days: ``1-5``
    phone     digits, with ``+`` where it was written
    link      host and path, without ``www.`` and query
    email     the address in lower case
    product   the name in lower case
    ========  =============================================  ==================

    ``05/03/2026`` may be either day: its value has both readings, ``2026-03-05|2026-05-03``.
    """

    kind: FactKind
    value: str
    unit: str = ""

    def __str__(self) -> str:
        """As a person reads it: ``30 working day``, ``19.99 EUR``."""
        return f"{self.value} {self.unit}".strip()


def facts_of(text: str) -> frozenset[Fact]:
    """All facts of a text; placeholders such as ``[EMAIL_1]`` and the numbers of a list are none.

    A part of the text belongs to one fact: the day of a date is not a number too. A single
    separator before three digits groups thousands: ``1.000`` and ``1,000`` are a thousand, ``1.5``
    and ``1,5`` one and a half.
    """
    return facts_in(readable(text))


def readable(text: str) -> str:
    """The text as facts are read from it: folded, and `USED` where placeholders and numbers of lists are."""
    return _blank(fold(text).text, PLACEHOLDER, _TEMPLATE, _LIST_MARKER)


def facts_in(rest: str) -> frozenset[Fact]:
    """What `facts_of` finds, in a text that is `readable` already."""
    found: set[Fact] = set()
    for needed, pattern, read in _RULES:
        if not needed.search(rest):
            continue
        spans = []
        for match in pattern.finditer(rest):
            facts = list(read(match))
            if facts:
                found.update(facts)
                spans.append(match.span())
        rest = _without(rest, spans)
    return frozenset(found)


_TEMPLATE = re.compile(r"\{\{[^{}]{0,80}\}\}|<[A-Za-z_ ]{1,40}>")
USED = "\x00"
"""In place of what was read already: no word, no blank, so that nothing is read across it."""


def _blank(text: str, *patterns: re.Pattern[str]) -> str:
    for pattern in patterns:
        text = pattern.sub(lambda match: USED * len(match[0]), text)
    return text


def _without(text: str, spans: Iterable[tuple[int, int]]) -> str:
    parts = []
    at = 0
    for start, end in spans:
        parts += [text[at:start], USED * (end - start)]
        at = end
    return "".join([*parts, text[at:]])


def _either(words: Iterable[str]) -> str:
    """The longest first, so that "business day" wins over "b"; a blank may be several."""
    longest = sorted(words, key=lambda word: (-len(word), word))
    return "|".join(re.escape(word).replace(r"\ ", " +") for word in longest)


_LIST_MARKER = re.compile(
    rf"^[ ]{{0,8}}\d{{1,2}}[.)](?=[ ])(?! (?:{_either(MONTHS)})(?!\w))",
    re.MULTILINE | re.IGNORECASE,
)
_DIGITS = (
    r"(?:\d{1,3}(?:,\d{3}){1,8}(?:\.\d{1,2})?|\d{1,3}(?:\.\d{3}){1,8}(?:,\d{1,2})?"
    r"|\d{1,3}(?:[ ']\d{3}){1,8}(?:[.,]\d{1,2})?|\d{1,2}(?:,\d{2}){1,8},\d{3}|\d{1,40}(?:[.,]\d{1,6})?)"
    r"(?![\d'])(?![.,]\d)"
)
_NUMBER = rf"(?<![\w.,]){_DIGITS}"
_TO = r"(?: ?- ?| (?:to|bis|through|or|oder|ou|and|und|et|y|o|a|à|até|tot) )"


def _decimal(written: str) -> str:
    """``1.000,00`` -> ``1000``."""
    plain = written.replace(" ", "").replace("'", "")
    separators = [character for character in plain if character in ".,"]
    if len(set(separators)) == 2:  # noqa: PLR2004 - both: the last one is the decimal separator
        last = separators[-1]
        plain = plain.replace("," if last == "." else ".", "").replace(last, ".")
    elif separators:
        before, _, after = plain.rpartition(separators[0])
        grouped = len(separators) > 1 or (len(after) == 3 and len(before) <= 3 and before[0] != "0")  # noqa: PLR2004
        plain = before.replace(separators[0], "") + ("" if grouped else ".") + after
    return _plain(Decimal(plain))


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _key(written: str) -> str:
    return " ".join(written.casefold().split())


# Links and e-mail addresses.

_EMAIL = re.compile(r"[\w.+%'-]{1,64}@(?:[\w-]{1,63}\.){1,6}[^\W\d_]{2,24}(?![\w-])")
# Top-level domains that are also words ("is", "it", "at") need a scheme, "www." or a path.
_BARE_TLD = (
    "com|org|net|eu|io|co|app|dev|shop|store|info|biz|online|example|test|ai|tv|uk|de|fr|nl|ch|pt|pl|se"
    "|dk|fi|cz|ie|ca|au|nz|jp|br|mx|cn|kr|ua|gr|hu|ro|tr"
)
_LINK = re.compile(
    r"(?:https?://|(?<![\w@.-])www\.)[^\s<>\"'`\x00]+"
    r"|(?<![\w@.-])(?:[a-z0-9-]{1,63}\.){1,5}"
    rf"(?:(?:{_BARE_TLD})(?![\w-]|\.\w)(?:/[^\s<>\"'`\x00]*)?|[a-z]{{2,24}}/[^\s<>\"'`\x00]*)",
    re.IGNORECASE,
)


def _read_email(match: re.Match[str]) -> Iterator[Fact]:
    yield Fact("email", match[0].casefold())


def _read_link(match: re.Match[str]) -> Iterator[Fact]:
    url = match[0].rstrip(".,;:!?)]}\u2026")
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
    except ValueError:  # "http://[" is no address
        return
    host = (parts.hostname or "").removeprefix("www.")
    if host:
        yield Fact("link", f"{host}{parts.path.rstrip('/')}")


# Dates.

_DAY = r"(?<![\w.,])(\d{1,2})"
_ORDINAL = r"(?:st|nd|rd|th|er|e|\.|º|ª)?"
_MONTH = rf"({_either(MONTHS)})"
_YEAR = r"((?:19|20)\d\d)"
_ISO = re.compile(rf"(?<![\w-]){_YEAR}([-/])(\d\d)\2(\d\d)(?:T(?=\d\d:)|(?![\w-]))")
_NUMERIC = re.compile(r"(?<![\w./-])(\d{1,2})([./-])(\d{1,2})\2((?:19|20)?\d\d)(?![\w/-]|[.,]\d)")
_GERMAN = re.compile(
    r"\b(?:am|ab|vom|bis|zum|seit|dem|der) (\d{1,2})\.(\d{1,2})\.(?!\d)", re.IGNORECASE
)
_DAY_MONTH = re.compile(
    rf"(?:{_DAY}{_ORDINAL}{_TO})?{_DAY}{_ORDINAL}(?: (?:of|de))? ?{_MONTH}(?!\w)\.?(?:(?:,| de)? ?{_YEAR})?(?!\d)",
    re.IGNORECASE,
)
_MONTH_DAY = re.compile(
    rf"(?<!\w){_MONTH}\.? (\d{{1,2}})(?:st|nd|rd|th)?(?:{_TO}(\d{{1,2}})(?:st|nd|rd|th)?)?(?![\w:%]|[.,]\d)(?:,? {_YEAR}(?!\d))?",
    re.IGNORECASE,
)
_MONTH_YEAR = re.compile(rf"(?<!\w){_MONTH}\.?(?: de)? {_YEAR}(?!\d)", re.IGNORECASE)
_WORDS_TOO = frozenset({"may", "mar"})
_CENTURY = 2000


def _read_iso(match: re.Match[str]) -> Iterator[Fact]:
    yield from _dates(match[1], (match[3], match[4]))


def _read_numeric(match: re.Match[str]) -> Iterator[Fact]:
    first, second, year = match[1], match[3], match[4]
    readings = [(second, first)]
    if match[2] != ".":
        readings.append((first, second))
    yield from _dates(str(_CENTURY + int(year)) if len(year) == 2 else year, *readings)  # noqa: PLR2004


def _read_german(match: re.Match[str]) -> Iterator[Fact]:
    yield from _dates(None, (match[2], match[1]))


def _read_day_month(match: re.Match[str]) -> Iterator[Fact]:
    if _is_month(match[3], match[4]):
        for day in filter(None, (match[1], match[2])):
            yield from _dates(match[4], (str(MONTHS[match[3].casefold()]), day))


def _read_month_day(match: re.Match[str]) -> Iterator[Fact]:
    if _is_month(match[1], match[4]):
        for day in filter(None, (match[2], match[3])):
            yield from _dates(match[4], (str(MONTHS[match[1].casefold()]), day))


def _read_month_year(match: re.Match[str]) -> Iterator[Fact]:
    yield Fact("date", f"{match[2]}-{MONTHS[match[1].casefold()]:02}")


def _is_month(word: str, year: str | None) -> bool:
    """In "5 may apply" it is none; in "5 May" and "5 may 2026" it is."""
    return bool(year) or word.casefold() not in _WORDS_TOO or word[0].isupper()


def _dates(year: str | None, *readings: tuple[str, str]) -> Iterator[Fact]:
    """One fact for the readings (month, day) that are days of the calendar."""
    valid = set()
    for month, day in readings:
        try:
            found = date(int(year or 2000), int(month), int(day))  # 2000 had a 29 February
        except ValueError:
            continue
        valid.add(found.isoformat() if year else f"--{found:%m-%d}")
    if valid:
        yield Fact("date", "|".join(sorted(valid)))


# Times and days of the week.

_AM_PM = r"(?:[ap]\.? ?m\b\.?)"
_CLOCK = rf"(\d{{1,2}})(?:[:.h](\d\d))?(?::\d\d)? ?({_AM_PM}|uhr\b|o'clock\b)"
_COLON = r"(\d{1,2})[:h](\d\d)(?::\d\d)?(?!\d)"
_UNTIL = r" ?(?:-|to|until|till|and|bis|und|à|et|a|y) ?"
_ALWAYS = re.compile(r"(?<![\w/])24/7(?![\w/])|(?<!\w)24x7(?!\w)")
_CLOCK_SPAN = re.compile(
    rf"(?<![\w.,:$£€¥])(\d{{1,2}})(?:[:.h](\d\d))? ?({_AM_PM}|uhr)?{_UNTIL}{_CLOCK}",
    re.IGNORECASE,
)
_CLOCK_TIME = re.compile(rf"(?<![\w.,:]){_CLOCK}", re.IGNORECASE)
_COLON_TIME = re.compile(rf"(?<![\w.,:]){_COLON}", re.IGNORECASE)
# "à 21 h" is a time of day; "48 h" without such a word is a length.
_FRENCH_TIME = re.compile(
    r"(?<!\w)(?:à|de|et|dès|vers|avant|après|jusqu'à|a las) (\d{1,2}) ?h(?!\w)", re.IGNORECASE
)
_NOONS = {"noon": "12:00", "midday": "12:00", "midnight": "00:00", "mitternacht": "00:00"}
_NOON = re.compile(rf"(?:12 )?\b({_either(_NOONS)})\b", re.IGNORECASE)
_HOURS, _MINUTES, _HALF_DAY = 24, 60, 12
_WEEKDAY = rf"({_either(WEEKDAYS)})"
_WEEKDAY_SPAN = re.compile(
    rf"(?<!\w){_WEEKDAY}(?: ?- ?| (?:to|through|till|until|bis|à|au|a|al|tot) ){_WEEKDAY}(?!\w)",
    re.IGNORECASE,
)
_SHORT_SPAN = re.compile(
    rf"(?<!\w)({_either(SHORT_WEEKDAYS)})\.? ?- ?({_either(SHORT_WEEKDAYS)})(?!\w)", re.IGNORECASE
)
_ONE_WEEKDAY = re.compile(rf"(?<!\w){_WEEKDAY}(?!\w)", re.IGNORECASE)


def _time(hour: str, minute: str | None, suffix: str = "") -> Iterator[Fact]:
    hours, minutes = int(hour), int(minute or 0)
    half = suffix[:1].casefold()
    if half in {"a", "p"}:
        if not 1 <= hours <= _HALF_DAY:
            return
        hours = hours % _HALF_DAY + (_HALF_DAY if half == "p" else 0)
    if hours == _HOURS and minutes == 0:
        hours = 0
    if hours < _HOURS and minutes < _MINUTES:
        yield Fact("time", f"{hours:02}:{minutes:02}")


def _read_always(_: re.Match[str]) -> Iterator[Fact]:
    yield Fact("time", "24/7")


def _read_clock_span(match: re.Match[str]) -> Iterator[Fact]:
    """In "9-5pm" the first is in the morning, in "2-5pm" in the afternoon."""
    first, last = match[3], match[6]
    if not first and last[0].casefold() in {"a", "p"}:
        wraps = int(match[1]) % _HALF_DAY > int(match[4]) % _HALF_DAY
        first = {"a": "p", "p": "a"}[last[0].casefold()] if wraps else last
    yield from _time(match[1], match[2], first or "")
    yield from _time(match[4], match[5], last)


def _read_clock(match: re.Match[str]) -> Iterator[Fact]:
    yield from _time(match[1], match[2], match[3])


def _read_colon(match: re.Match[str]) -> Iterator[Fact]:
    yield from _time(match[1], match[2])


def _read_french(match: re.Match[str]) -> Iterator[Fact]:
    yield from _time(match[1], None)


def _read_noon(match: re.Match[str]) -> Iterator[Fact]:
    yield Fact("time", _NOONS[match[1].casefold()])


def _read_weekdays(match: re.Match[str]) -> Iterator[Fact]:
    yield Fact("weekday", f"{WEEKDAYS[match[1].casefold()]}-{WEEKDAYS[match[2].casefold()]}")


def _read_short_weekdays(match: re.Match[str]) -> Iterator[Fact]:
    first, last = (SHORT_WEEKDAYS[match[group].casefold()] for group in (1, 2))
    yield Fact("weekday", f"{first}-{last}")


def _read_weekday(match: re.Match[str]) -> Iterator[Fact]:
    yield Fact("weekday", str(WEEKDAYS[match[1].casefold()]))


# Telephone numbers: with a country's or a trunk prefix, or grouped as in North America.

_PHONE = re.compile(
    r"(?<![\w.,/+-])(?:\+\d?|\(?00?[1-9])[\d ()/-]{5,20}\d(?![\w/]|[.,]\d)"
    r"|(?<![\w.,/+-])(?:1[ -])?(?:\(\d{3}\) ?|\d{3}-)\d{3}[ -]\d{4}(?![\w/-])"
)
_MIN_PHONE_DIGITS, _MAX_PHONE_DIGITS = 7, 15


def _read_phone(match: re.Match[str]) -> Iterator[Fact]:
    digits = re.sub(r"\D", "", match[0])
    if _MIN_PHONE_DIGITS <= len(digits) <= _MAX_PHONE_DIGITS:
        plus = match[0].startswith(("+", "00"))
        yield Fact("phone", f"+{digits.removeprefix('00')}" if plus else digits)


# Amounts of money, quantities, what is left.

_MULTIPLE = rf"(?: ?({_either(MULTIPLES)})(?!\w))?"
_SIGN = rf"(?<![^\W\d_])(?:{_either(word for word in CURRENCIES if not word.isalpha())})"
_CODE_LENGTH = 3  # names that stand in front of a number: EUR, Rs
_CURRENCY_CODE = rf"(?<!\w)(?:{_either(word for word in CURRENCIES if word.isalpha() and len(word) <= _CODE_LENGTH)})"
_CURRENCY = rf"(?:{_either([*CURRENCIES, *CENTS])})(?!\w)"
_UNIT = rf"(?:{_either(UNITS)})(?!\w)"
_COUNT = rf"(?<!\w)(?:{_either(COUNTS)})(?!\w)"
_PRICE_DASH = r"(?:[.,]-{1,2})?"  # 12,-
_AMOUNT_BEHIND = re.compile(
    rf"({_SIGN}|{_CURRENCY_CODE}) ?({_DIGITS}){_MULTIPLE}"
    rf"(?:(?: ?- ?| (?:to|bis|à|a|tot) )(?:{_SIGN})? ?({_DIGITS}){_MULTIPLE}(?! ?-? ?{_UNIT}))?{_PRICE_DASH}"
    rf"(?: ?({_CURRENCY_CODE})(?!\w))?",
    re.IGNORECASE,
)
_AMOUNT_BEFORE = re.compile(
    rf"({_NUMBER}|{_COUNT}){_MULTIPLE}(?:{_TO}({_DIGITS}|{_COUNT}){_MULTIPLE})?{_PRICE_DASH} ?({_CURRENCY})",
    re.IGNORECASE,
)
_QUANTITY = re.compile(
    rf"({_NUMBER}|{_COUNT}){_MULTIPLE}(?:{_TO}({_DIGITS}|{_COUNT}){_MULTIPLE})?(?:\)? ?-? ?)({_UNIT})",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"(?<![\w-])(?=[A-Z-]*\d)(?=[\d-]*[A-Z])[A-Z\d]{1,40}(?:-[A-Z\d]{1,40}){0,8}(?![\w-])"
)
_BARE_NUMBER = re.compile(rf"{_NUMBER}(?!\w)")
_ARTICLE_UNITS = frozenset({"hour", "day", "working day", "week", "month", "year"})
_ONE = "1"
_HUNDRED = 100
_MIN_NUMBERED = 5  # digits


def _value(written: str, multiple: str | None) -> str:
    plain = COUNTS.get(written.casefold()) or _decimal(written)
    return _plain(Decimal(plain) * MULTIPLES[multiple.casefold()]) if multiple else plain


def _values(match: re.Match[str], first: int) -> Iterator[str]:
    """The number in group ``first``, and the end of the span in the group two further."""
    for group in (first, first + 2):
        if match[group]:
            yield _value(match[group], match[group + 1])


def _read_amount_behind(match: re.Match[str]) -> Iterator[Fact]:
    currency = CURRENCIES[_key(match[6] or match[1])]
    for value in _values(match, 2):
        yield Fact("amount", value, currency)


def _read_amount_before(match: re.Match[str]) -> Iterator[Fact]:
    name = _key(match[5])
    for value in _values(match, 1):
        if name in CENTS:
            yield Fact("amount", _plain(Decimal(value) / _HUNDRED), CENTS[name])
        else:
            yield Fact("amount", value, CURRENCIES[name])


def _read_quantity(match: re.Match[str]) -> Iterator[Fact]:
    """An article counts only with lengths of time: "eine Woche", and not "eine Person"."""
    name = _key(match[5])
    word = match[1].casefold()
    article = COUNTS.get(word) == _ONE and word != "one"
    if (name in SHORT_UNITS and word in COUNTS) or (article and UNITS[name] not in _ARTICLE_UNITS):
        return
    for value in _values(match, 1):
        yield Fact("quantity", value, UNITS[name])


def _read_code(match: re.Match[str]) -> Iterator[Fact]:
    yield Fact("code", match[0])


def _read_number(match: re.Match[str]) -> Iterator[Fact]:
    """A number of an order keeps its leading zeros."""
    numbered = match[0].isdigit() and match[0][0] == "0" and len(match[0]) >= _MIN_NUMBERED
    yield Fact("number", match[0] if numbered else _decimal(match[0]))


_AT, _DOT, _DASH = re.compile("@"), re.compile(r"\."), re.compile("-")
_DIGIT, _ANYTHING = re.compile(r"\d"), re.compile("")

# What comes first takes its part of the text.
# The first pattern is a quick look whether the second can match at all.
_RULES: tuple[
    tuple[re.Pattern[str], re.Pattern[str], Callable[[re.Match[str]], Iterator[Fact]]], ...
] = (
    (_AT, _EMAIL, _read_email),
    (_DOT, _LINK, _read_link),
    (_DIGIT, _ISO, _read_iso),
    (_DIGIT, _NUMERIC, _read_numeric),
    (_DIGIT, _GERMAN, _read_german),
    (_DIGIT, _DAY_MONTH, _read_day_month),
    (_DIGIT, _MONTH_DAY, _read_month_day),
    (_DIGIT, _MONTH_YEAR, _read_month_year),
    (_DIGIT, _ALWAYS, _read_always),
    (_DIGIT, _CLOCK_SPAN, _read_clock_span),
    (_DIGIT, _CLOCK_TIME, _read_clock),
    (_DIGIT, _COLON_TIME, _read_colon),
    (_DIGIT, _FRENCH_TIME, _read_french),
    (_ANYTHING, _NOON, _read_noon),
    (_ANYTHING, _WEEKDAY_SPAN, _read_weekdays),
    (_DASH, _SHORT_SPAN, _read_short_weekdays),
    (_ANYTHING, _ONE_WEEKDAY, _read_weekday),
    (_DIGIT, _PHONE, _read_phone),
    (_DIGIT, _AMOUNT_BEHIND, _read_amount_behind),
    (_ANYTHING, _AMOUNT_BEFORE, _read_amount_before),
    (_ANYTHING, _QUANTITY, _read_quantity),
    (_DIGIT, _CODE, _read_code),
    (_DIGIT, _BARE_NUMBER, _read_number),
)
