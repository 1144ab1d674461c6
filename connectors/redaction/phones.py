"""Phone numbers, distinguished from order numbers by form and by the words around them.

Validity alone is not enough: a ten-digit order number is a valid phone number somewhere. So a number
counts when it has the international form, or has words such as "call" or "my number is" near it, or
is a valid mobile number of the region as dialled there, or is grouped as a phone number of its
country. A word such as "order" or "invoice" rules out all but the first.

The numbering plans are those of ``phonenumbers``. Its own matcher takes a millisecond for each number
that it tries, so the plans are applied here.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate, product
from typing import NamedTuple

import phonenumbers
from phonenumbers import PhoneMetadata

from connectors.redaction.phone_words import NumberContext, PhoneWords
from connectors.redaction.recognizer import Span

_CHAIN = re.compile(r"\d+(?:[ ().\-/]{1,3}\d+)*")
_GROUP = re.compile(r"\d+")
_ENOUGH_DIGITS = re.compile(r"(?:\d[^\dA-Za-z\n]{0,3}){7}")
_MIN_DIGITS, _MAX_DIGITS = 7, 15  # digits; 15 is E.164's most
_WHOLE = 9  # digits of a number that needs no other group
_AMERICAN = (3, 3, 4)
_MAX_GROUPS = 8  # "+33 (0) 6 12 34 56 78"
_MAX_NATIONAL_GROUPS = 6  # "0033 6 12 34 56 78"
_EXTENSION = re.compile(
    r",?\s?(?:ext(?:ension|n)?\.?|x|extension|durchwahl|poste|anexo|int\.?|\u0434\u043e\u0431\.?)\s?:?\s?\d{1,6}(?!\w)",
    re.IGNORECASE,
)
_DATE_OR_TIME = re.compile(
    r"(?<![\d./-])(?:\d{1,2}[./-]\d{1,2}[./-](?:19|20)?\d\d|(?:19|20)\d\d[./-]\d{1,2}[./-]\d{1,2})(?![./-]?\d)"
    r"|(?<!\d)\d{1,2}[.:]\d{2}\s?(?:-|to|bis)\s?\d{1,2}[.:]\d{2}(?!\d)"
    r"|(?<!\d)(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{4}|\d{6})?(?!\d)"
)
_NORTH_AMERICAN = re.compile(r"(?:\(\d{3}\)\s?|\d{3}[-. ])\d{3}[-. ]\d{4}")
# The national form of most countries: the trunk 0, an area, and groups.
_TRUNK_ZERO = re.compile(r"\(?0[1-9]\d{0,4}\)?(?:[ ().\-/]{1,2}\d{2,8}){1,5}")
_LOCAL = re.compile(r"\d{3}[- .]\d{4}")
_MONEY_BEFORE = re.compile(
    r"[$\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9]\s?$|(?:usd|eur|gbp|chf|inr|rs\.?)\s?$", re.IGNORECASE
)
_MONEY_BEHIND = re.compile(
    r"\s?(?:[$\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9%]|(?:usd|eur|gbp|chf|kr|kč|zł|руб|円|元|원)\b)",
    re.IGNORECASE,
)
_PHONE_LINK = re.compile(r"(?:wa\.me/|phone=|tel=|mobile=|tel:|callto:|sms:)\+?$", re.IGNORECASE)
_ABROAD = re.compile(r"00[ ().\-/]{0,3}[1-9]")
_PARTS = re.compile(r"\s|\) ?\(")  # what separates two numbers, not only the groups of one
_PART = re.compile(r"\(\\d(?:\{(\d+)(?:,(\d+))?\})?\)")  # of a format: (\d), (\d{3}), (\d{3,4})
_WORD_AND_STROKE = re.compile(r"(?<![\w./])[^\W\d_]+/$")  # "mobile/07...": no path
_PLUS = re.compile(r"\(?\+ ?\(?$")
# Ofcom's mobile numbers for drama: in no numbering plan, but often used in tests.
_DRAMA = {"GB": r"7700900\d{3}"}
_FEW_WORDS = 6
_SHORT = 80
_ASKED = 400  # characters of the turn before


class PhoneRecognizer:
    """Phone numbers: international ones, and the national ones of one region.

    Args:
        region: ISO 3166 code of the country whose national numbers are expected: ``"GB"``. An
            unknown one has no national numbers.
    """

    supported_entities = ("PHONE",)

    def __init__(self, region: str) -> None:
        self._region = region

    def analyze(self, text: str, context: str = "") -> Iterator[Span]:
        """See ``Recognizer.analyze``.

        ``context`` is what a text of little more than a number answers: "your order number?".
        """
        if not _ENOUGH_DIGITS.search(text):
            return
        plan = _plan(self._region)
        search = _Search(text, context, (plan,) if plan else ())
        for chain in _CHAIN.finditer(text):
            if chain.end() - chain.start() >= _MIN_DIGITS:
                yield from search.chain(*chain.span())


class _Plan(NamedTuple):
    """A region's numbering plan; patterns are of national numbers without the trunk prefix."""

    code: str
    trunk: str
    valid: re.Pattern[str]
    mobile: re.Pattern[str] | None  # None where a mobile number looks like any other
    fixed: re.Pattern[str]
    lengths: frozenset[int]  # of national numbers
    mobile_lengths: frozenset[int]  # as written, so with the trunk where it is due
    shapes: frozenset[tuple[int, ...]]  # the sizes of the groups that numbers are written in
    needs_trunk: bool  # a mobile number is always written with it
    formats: tuple[tuple[re.Pattern[str], re.Pattern[str] | None, bool], ...]

    def national(self, digits: str) -> str | None:
        """The national number of digits that were dialled in the region; None where it is not valid."""
        if self.trunk and digits.startswith(self.trunk):
            number = digits[len(self.trunk) :]
            if len(number) in self.lengths and self.valid.fullmatch(number):
                return number
        if len(digits) in self.lengths and self.valid.fullmatch(digits):
            return digits
        return None

    def looks_mobile(self, digits: str) -> bool:
        """Whether the digits are a mobile number as dialled in the region."""
        if self.mobile is None:
            return False
        dialled = self.trunk and digits.startswith(self.trunk)
        if dialled and self.mobile.fullmatch(digits, len(self.trunk)):
            return True
        return not self.needs_trunk and self.mobile.fullmatch(digits) is not None

    def is_mobile(self, digits: str, number: str) -> bool:
        """Whether it is a mobile number and no other kind, with the trunk prefix where it is due."""
        if self.mobile is None or (self.needs_trunk and digits == number):
            return False
        return self.mobile.fullmatch(number) is not None and not self.fixed.fullmatch(number)

    def is_grouped(self, digits: str, number: str, borders: set[int]) -> bool:
        """Whether it is split only where the region splits its numbers, with the trunk prefix if due."""
        for pattern, leading, needs_trunk in self.formats:
            if leading is not None and not leading.match(number):
                continue
            if parts := pattern.fullmatch(number):
                complete = digits != number or not needs_trunk
                return complete and borders <= set(accumulate(map(len, parts.groups())))
        return False


class _Search:
    """The search for the numbers of one text."""

    def __init__(self, text: str, before: str, plans: tuple[_Plan, ...]) -> None:
        self._text = text
        self._plans = plans
        self._words = PhoneWords(text)
        short = len(text) <= _SHORT and self._words.words <= _FEW_WORDS
        self._asked = PhoneWords(before[-_ASKED:]).last() if short else None
        self._context_before: NumberContext | None = None  # of the number that is looked at
        self._known_shapes: dict[
            tuple[tuple[int, ...], bool], tuple[tuple[int, ...], tuple[int, ...]]
        ] = {}

    def chain(self, first: int, last: int) -> Iterator[Span]:
        """Find numbers among groups of digits with only signs and blanks between them.

        At each group this is the longest number in a plan, or else the longest that may be foreign.
        """
        text = self._text
        groups = [found.span() for found in _GROUP.finditer(text, first, last)]
        sizes = tuple([end - start for start, end in groups])
        at = 0
        while at < len(groups):
            start = groups[at][0]
            lead = text[max(0, start - 3) : start]
            plus = _PLUS.search(lead) if "+" in lead else None
            if plus:
                counts = _counts(sizes[at : at + _MAX_GROUPS])
            else:
                counts = self._national_counts(groups, sizes, at)
            found, used = None, 1
            if counts and self._may_begin(groups, at):
                found, used = self._longest(groups, at, counts, plus[0] if plus else "")
            if found:
                yield found
            at += used

    def _national_counts(
        self, groups: list[tuple[int, int]], sizes: tuple[int, ...], at: int
    ) -> tuple[int, ...]:
        """How many groups a number may have, by the words around it or by its form."""
        start = groups[at][0]
        near = self._words.any_at_all and self._words.any_round(start)
        self._context_before = self._words.before(start) if near else None
        if self._in_link(start):
            self._context_before = NumberContext.PHONE
        if self._context_before is NumberContext.OTHER:
            return ()
        every = _counts(sizes[at : at + _MAX_NATIONAL_GROUPS])
        if self._context_before or self._asked:
            return every
        evident = self._evident(groups, sizes, at)
        if not near:
            return evident
        return tuple(
            count
            for count in every
            if count in evident or self._words.behind(groups[at + count - 1][1])
        )

    def _longest(
        self, groups: list[tuple[int, int]], at: int, counts: Iterable[int], plus: str
    ) -> tuple[Span | None, int]:
        """The best number with one of these counts of groups, and how many groups are used up."""
        abroad: tuple[Span | None, int] = (None, 1)
        for count in counts:
            if not self._may_end(groups, at + count - 1):
                continue
            tried = groups[at : at + count]
            digits = "".join([self._text[a:b] for a, b in tried])
            found, known = (
                self._dialled(plus, tried, digits) if plus else self._national(tried, digits)
            )
            if found and known:
                return found, count
            if found and abroad[0] is None:
                abroad = found, count
        return abroad

    def _evident(
        self, groups: list[tuple[int, int]], sizes: tuple[int, ...], at: int
    ) -> tuple[int, ...]:
        """How many groups a number may have where no word is near it; mostly none."""
        start = groups[at][0]
        zero = self._text[start] == "0"
        shape = sizes[at : at + _MAX_NATIONAL_GROUPS]
        if zero and _ABROAD.match(self._text, start):
            return _counts(shape)
        key = (shape, zero)
        known = self._known_shapes.get(key)
        if known is None:
            known = self._known_shapes[key] = self._by_shape(shape, zero=zero)
        sure, mobile = known
        if mobile:
            for count in mobile:
                digits = "".join([self._text[a:b] for a, b in groups[at : at + count]])
                if any(plan.looks_mobile(digits) for plan in self._plans):
                    return tuple(sorted({*sure, count}, reverse=True))
        return sure

    def _by_shape(
        self, sizes: tuple[int, ...], *, zero: bool
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The counts of groups that make a number anywhere, and those that may make a mobile number."""
        sure, mobile = [], []
        for count in _counts(sizes):
            shape = sizes[:count]
            total = sum(shape)
            trunk = zero and 9 <= total <= 11 and min(shape[1:], default=0) > 1  # noqa: PLR2004
            if trunk or shape == _AMERICAN or any(shape in plan.shapes for plan in self._plans):
                sure.append(count)
            elif any(total in plan.mobile_lengths for plan in self._plans):
                mobile.append(count)
        return tuple(sure), tuple(mobile)

    def _may_begin(self, groups: list[tuple[int, int]], at: int) -> bool:
        start = groups[at][0]
        if at and not self._parted(groups[at - 1], groups[at]):
            return False
        if start == 0:
            return True
        before = self._text[start - 1]
        if before.isascii() and (before.isalnum() or before == "_"):
            return False
        if at == 0 and before in ".,-/:" and start > 1 and self._text[start - 2].isdigit():
            return False
        if (
            at == 0
            and before in "/=&?%"
            and not _WORD_AND_STROKE.search(self._text, max(0, start - 20), start)
        ):
            return self._in_link(start)
        return True

    def _in_link(self, start: int) -> bool:
        linked = start and self._text[start - 1] in "/=:+"
        return bool(linked and _PHONE_LINK.search(self._text, max(0, start - 8), start))

    def _parted(self, one: tuple[int, int], other: tuple[int, int]) -> bool:
        """Whether two groups may belong to two numbers."""
        between = self._text[one[1] : other[0]]
        if between == " " or _PARTS.search(between):
            return True
        return between == "/" and min(one[1] - one[0], other[1] - other[0]) >= _WHOLE

    def _may_end(self, groups: list[tuple[int, int]], at: int) -> bool:
        end = groups[at][1]
        if at + 1 < len(groups):
            return self._parted(groups[at], groups[at + 1])
        behind = self._text[end : end + 2]
        if behind[:1].isascii() and (behind[:1].isalnum() or behind[:1] == "_"):
            return _EXTENSION.match(self._text, end) is not None
        return not (len(behind) == 2 and behind[0] in ".,/-:" and behind[1].isdigit())  # noqa: PLR2004

    def _dialled(
        self, sign: str, groups: list[tuple[int, int]], digits: str
    ) -> tuple[Span | None, bool]:
        """The number behind a plus, and whether the country has such numbers."""
        start, end = groups[0][0] - len(sign), groups[-1][1]
        if key := _international(digits):
            return self._found(start, end, key), True
        possible = (
            _MIN_DIGITS < len(digits) <= _MAX_DIGITS and digits[0] != "0" and digits[1:4] != "000"
        )
        return (self._found(start, end, f"+{digits}") if possible else None), False

    def _national(self, groups: list[tuple[int, int]], digits: str) -> tuple[Span | None, bool]:
        """The number that the groups make, and whether a country's plan has such numbers."""
        if len(digits) > _MAX_DIGITS:
            return None, False
        start, end = groups[0][0], groups[-1][1]
        if digits.startswith("00") and (key := _international(digits[2:])):
            other = self._number_context(end) is NumberContext.OTHER
            return (None if other else self._found(start, end, key)), True
        opened = self._text.endswith("(", 0, start) and ")" in self._text[start:end]
        for plan in self._plans:
            number = plan.national(digits)
            if number is None:
                continue
            meaning = self._number_context(end)
            if meaning is NumberContext.OTHER:
                return None, True
            numbered = (
                meaning is NumberContext.NUMBER and digits != number
            )  # as it is dialled at home
            if (
                meaning is NumberContext.PHONE
                or numbered
                or self._is_evident(plan, digits, number, groups)
            ):
                return self._found(start - opened, end, f"+{plan.code}{number}"), True
        return self._foreign(groups, digits, opened=opened), False

    def _is_evident(
        self, plan: _Plan, digits: str, number: str, groups: list[tuple[int, int]]
    ) -> bool:
        """Whether a valid number needs no word: it is a mobile number, or grouped as its country does."""
        start, end = groups[0][0], groups[-1][1]
        cut = len(digits) - len(number)
        borders = {border - cut for border in accumulate(b - a for a, b in groups) if border > cut}
        grouped = len(groups) > 1 and plan.is_grouped(digits, number, borders)
        if not grouped and not plan.is_mobile(digits, number):
            return False
        return not (
            _DATE_OR_TIME.search(self._text, start, end)
            or _MONEY_BEFORE.search(self._text, max(0, start - 5), start)
            or _MONEY_BEHIND.match(self._text, end)
        )

    def _foreign(self, groups: list[tuple[int, int]], digits: str, *, opened: bool) -> Span | None:
        """A number of another country: called a phone number, or with a trunk 0 and in groups."""
        start, end = groups[0][0], groups[-1][1]
        written = self._text[start - opened : end]
        american = (
            len(groups) == 3  # noqa: PLR2004
            and _NORTH_AMERICAN.fullmatch(written)
            and _america().valid.fullmatch(digits)
        )
        trunk = digits[0] == "0" and 9 <= len(digits) <= 11 and _TRUNK_ZERO.fullmatch(written)  # noqa: PLR2004
        long_enough = len(digits) >= 9 or digits[0] == "0" or opened  # noqa: PLR2004
        if not (american or trunk):
            if not (long_enough or _LOCAL.fullmatch(written)):
                return None
            if self._number_context(end) is not NumberContext.PHONE:
                return None
        elif self._number_context(end) is NumberContext.OTHER:
            return None
        if _DATE_OR_TIME.search(written):
            return None
        return self._found(start - opened, end, f"+1{digits}" if american else digits)

    def _found(self, start: int, end: int, key: str) -> Span:
        if extension := _EXTENSION.match(self._text, end):
            end = extension.end()
        return Span(start, end, "PHONE", key)

    def _number_context(self, end: int) -> NumberContext | None:
        """What the words around the number say about it; None where they say nothing."""
        return self._context_before or self._words.behind(end) or self._asked


def _counts(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """How many of the groups may make a number together, the most first."""
    totals = list(accumulate(sizes))
    most = _MAX_DIGITS + 2  # with "00" or "(0)"
    return tuple(
        at + 1 for at in range(len(totals) - 1, -1, -1) if _MIN_DIGITS <= totals[at] <= most
    )


@lru_cache(maxsize=64)
def _plan(region: str) -> _Plan | None:
    known = PhoneMetadata.metadata_for_region(region, None)
    if known is None:
        return None
    code = known.country_code or 0
    # Guernsey's mobile numbers are dialled in Britain as Britain's are. North America's 25 are too
    # many for one pattern.
    sharing = {
        region,
        *(("US", "CA") if code == 1 else phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code]),
    }
    plans = list(
        filter(None, (PhoneMetadata.metadata_for_region(name, None) for name in sorted(sharing)))
    )
    drama = [_DRAMA[region]] if region in _DRAMA else []
    mobile = _either((plan.mobile for plan in plans), *drama)
    fixed = _either(plan.fixed_line for plan in plans)
    example = known.mobile and known.mobile.example_number
    written = next((form for form in known.number_format if _fits(form, example or "")), None)
    trunk = known.national_prefix or ""
    needs_trunk = written is not None and _needs_trunk(written, trunk)
    return _Plan(
        code=str(code),
        trunk=trunk,
        valid=_either((kind for plan in plans for kind in _kinds(plan)), *drama),
        mobile=mobile if mobile.pattern != fixed.pattern else None,
        fixed=fixed,
        lengths=frozenset(
            length
            for plan in plans
            for kind in _kinds(plan)
            if kind
            for length in kind.possible_length
        ),
        mobile_lengths=frozenset(
            length + extra
            for plan in plans
            if plan.mobile
            for length in plan.mobile.possible_length
            for extra in ({len(trunk)} if needs_trunk else {0, len(trunk)})
        ),
        shapes=frozenset(shape for form in known.number_format for shape in _shapes(form, trunk)),
        needs_trunk=needs_trunk,
        formats=tuple(
            (
                re.compile(form.pattern or "(?!)"),
                re.compile(form.leading_digits_pattern[-1])
                if form.leading_digits_pattern
                else None,
                _needs_trunk(form, trunk),
            )
            for form in known.number_format
        ),
    )


def _kinds(known: PhoneMetadata) -> Iterator[phonenumbers.PhoneNumberDesc | None]:
    yield from (known.fixed_line, known.mobile, known.toll_free, known.premium_rate)
    yield from (known.shared_cost, known.personal_number, known.voip, known.pager)
    yield from (known.uan, known.voicemail)


def _either(kinds: Iterable[phonenumbers.PhoneNumberDesc | None], *more: str) -> re.Pattern[str]:
    patterns = dict.fromkeys([*(kind.national_number_pattern for kind in kinds if kind), *more])
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns if pattern) or "(?!)")


def _needs_trunk(form: phonenumbers.NumberFormat, trunk: str) -> bool:
    rule = form.national_prefix_formatting_rule
    return (
        bool(trunk and rule and trunk in rule) and not form.national_prefix_optional_when_formatting
    )


def _shapes(form: phonenumbers.NumberFormat, trunk: str) -> Iterator[tuple[int, ...]]:
    """How many digits each group may have; neighbours may be joined."""
    ranges = [
        range(int(low or 1), int(high or low or 1) + 1)
        for low, high in _PART.findall(form.pattern or "")
    ]
    for sizes in product(*ranges):
        for merged in _merged(sizes):
            if not _needs_trunk(form, trunk):
                yield merged
            if trunk:
                yield (len(trunk) + merged[0], *merged[1:])
                yield (len(trunk), *merged)


def _merged(sizes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if len(sizes) < 2:  # noqa: PLR2004
        yield sizes
        return
    for rest in _merged(sizes[1:]):
        yield (sizes[0], *rest)
        yield (sizes[0] + rest[0], *rest[1:])


def _fits(form: phonenumbers.NumberFormat, number: str) -> bool:
    leading = form.leading_digits_pattern
    return re.fullmatch(form.pattern or "(?!)", number) is not None and (
        not leading or re.match(leading[-1], number) is not None
    )


@lru_cache(maxsize=256)
def _general(code: str) -> re.Pattern[str] | None:
    """National numbers of a calling code, of any of its regions."""
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(int(code), ())
    patterns = []
    for region in regions:
        if region == "001":
            known = PhoneMetadata.metadata_for_nongeo_region(int(code), None)
        else:
            known = PhoneMetadata.metadata_for_region(region, None)
        if known and known.general_desc and known.general_desc.national_number_pattern:
            patterns.append(known.general_desc.national_number_pattern)
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None


def _international(digits: str) -> str | None:
    """The E.164 form of the digits behind a plus, if the country has such numbers."""
    for size in (1, 2, 3):
        code, number = digits[:size], digits[size:]
        if code.startswith("0") or int(code) not in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
            continue
        general = _general(code)
        # "+44 (0)20 ...": the trunk is not dialled from abroad, and yet written.
        for national in (number, number.removeprefix("0")):
            if general and general.fullmatch(national):
                return f"+{code}{national}"
        return None
    return None


def _america() -> _Plan:
    plan = _plan("US")
    assert plan is not None  # noqa: S101 - the library has it
    return plan
