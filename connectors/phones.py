"""Phone numbers, told from order numbers by form and by the words around them.

Validity alone is not enough: a ten-digit order number is a valid number somewhere. So a number
counts when it is in international form; or is valid and written in groups as a phone number of
its country is; or begins with a trunk 0 and is in groups; or stands after words such as "call". A word such as "order" or
"invoice" right before it speaks against, unless a phone word stands nearer.
"""

import re
from collections.abc import Iterator

import phonenumbers
from phonenumbers import Leniency, PhoneNumberFormat, PhoneNumberMatcher

from connectors.detect import Finding

_ENOUGH_DIGITS = re.compile(r"(?:\d[^\dA-Za-z\n]{0,3}){7}")
_NORTH_AMERICAN = re.compile(r"(?<![\w-])(?:\(\d{3}\)\s?|\d{3}[-. ])\d{3}[-. ]\d{4}(?![\w-])")
_BEFORE = 60

_FOR = re.compile(
    r"\b(?:tele)?phone|\bphoned?\b|\bcall(?:ed|ing|s)?\b|\bcell(?:phone|ular)?\b|\bmobile\b|\btel\b"
    r"|\bring\b|\btext me\b|\bsms\b|\bwhats ?app\b|\breach (?:me|us)\b|\bcontact(?: number| me)?\b"
    r"|\blandline\b|\bfax\b|\bdial\b|\bhotline\b|\bhandy|\btelefon|\brückruf|\banruf|\berreich"
    r"|\bnummer ist\b|\bt[ée]l[ée](?:fono|phone)|\bm[óo]vil\b|\bportable\b|\bappel|\bll[aá]m",
    re.IGNORECASE,
)
_AGAINST = re.compile(
    r"\border|\bpurchase|\binvoice|\bref(?:erence)?\b|\bticket|\btracking|\bbooking|\bparcel"
    r"|\bshipment|\baccount|\bacct\b|\bcase\b|\bclaim|\bpolicy|\bcustomer (?:no|num|id)|\bserial"
    r"|\bsku\b|\bitem\b|\bproduct|\bvoucher|\bcoupon|\bcode\b|\bpin\b|\bcard\b|\bmember|\bisbn\b"
    r"|\bimei\b|\bvin\b|\bid\b|\bbestell|\brechnung|\bkunden|\bauftrag|\bsendung|\bcommande"
    r"|\bfacture|\bpedido|\bfactura|#",
    re.IGNORECASE,
)
_SPOKEN = re.compile(
    r"(?<![\w.,/-])(?P<number>\+?\(?\d(?:[ \u00a0().\-/]{0,2}\d){6,14})(?![\w]|[.,/-]\d)"
)
_DATE_OR_TIME = re.compile(
    r"\b\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\b|\b\d{1,2}[.:]\d{2}\s?(?:-|\u2013|to|bis)\s?\d{1,2}[.:]\d{2}\b"
)
_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d{4}")
# The national form of most countries: the trunk 0, an area, and groups.
_TRUNK_ZERO = re.compile(r"\(?0[1-9]\d{0,4}\)?(?:[ \u00a0().\-/]{1,2}\d{2,8}){1,5}")
_FEW_WORDS = 4
_SHORT = 80
_ASKED = 400  # characters of the turn before


def phones(text: str, *, before: str, regions: tuple[str, ...]) -> Iterator[Finding]:
    """Phone numbers in ``text``.

    ``before`` is the turn that came before: it is asked what the number is when the text is
    hardly more than a number.
    """
    if not _ENOUGH_DIGITS.search(text):
        return
    taken = bytearray(len(text))  # 1 where a number was found
    tried = regions if "US" in regions or not _NORTH_AMERICAN.search(text) else (*regions, "US")
    for region in tried:
        for match in PhoneNumberMatcher(text, region, leniency=Leniency.VALID):
            start, end = match.start, match.end
            if 1 not in taken[start:end] and _is_phone(text, match, before, region):
                taken[start:end] = b"\1" * (end - start)
                key = phonenumbers.format_number(match.number, PhoneNumberFormat.E164)
                yield Finding(start, end, "PHONE", key)
    for found in _SPOKEN.finditer(text):
        start, end = found.span("number")
        if 1 not in taken[start:end] and _is_spoken(text, found, before):
            yield Finding(start, end, "PHONE", re.sub(r"\D", "", found["number"]))


def _is_phone(text: str, match: phonenumbers.PhoneNumberMatch, before: str, region: str) -> bool:
    raw = match.raw_string
    if raw.lstrip("(").startswith("+"):
        return True
    verdict = _context(text, match.start, before)
    if verdict is not None:
        return verdict
    if raw.startswith("00"):
        return True
    grouped = re.search(r"\d\D+\d", raw) is not None
    return grouped and PhoneNumberMatcher(raw, region, Leniency.STRICT_GROUPING).has_next()


def _is_spoken(text: str, found: re.Match[str], before: str) -> bool:
    """Whether it is a number of another country: so called, or with a trunk 0 and in groups."""
    number = found["number"]
    if _DATE_OR_TIME.search(number):
        return False
    digits = sum(character.isdigit() for character in number)
    local = re.fullmatch(r"\d{3}[- .]\d{4}", number) is not None
    long_enough = digits >= 9 or (digits >= 7 and number[0] in "0(+")  # noqa: PLR2004
    said = _context(text, found.start("number"), before)
    if said is None:
        return _TRUNK_ZERO.fullmatch(number) is not None and 9 <= digits <= 11  # noqa: PLR2004
    return (local or long_enough) and said


def _context(text: str, start: int, before: str) -> bool | None:
    """What the words before say: a phone number, something else, or nothing."""
    window = text[max(0, start - _BEFORE) : start]
    said = _nearest(window)
    if said is None and len(text) <= _SHORT and len(_WORD.findall(text)) <= _FEW_WORDS:
        return _nearest(before[-_ASKED:])
    return said


def _nearest(window: str) -> bool | None:
    speaks_for = max((found.end() for found in _FOR.finditer(window)), default=-1)
    # "order 1234567, my number is ...": a number in between has used up what speaks against.
    used_up = max((found.end() for found in _NUMBER.finditer(window)), default=0)
    speaks_against = max((found.end() for found in _AGAINST.finditer(window, used_up)), default=-1)
    if speaks_for == speaks_against:
        return None
    return speaks_for > speaks_against
