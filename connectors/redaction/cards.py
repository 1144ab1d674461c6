"""Payment cards: an issuer's prefix and length, and the check digit; also the code and expiry.

A number is seldom alone: an order number may stand before it, expiry and code after it. So each
issuer's lengths are tried from each group of digits, and a number ends where a group ends.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise

from connectors.redaction.recognizer import Span

_CHAIN = re.compile(r"\d+(?:[ .,/_\n-]{1,3}\d+)*")
_GROUP = re.compile(r"\d+")
_SIMPLE = re.compile(r"[ -]{1,3}")
# Prefix ranges and lengths: ISO/IEC 7812 as the card schemes publish them.
_ISSUERS = (
    (r"4", {13, 16, 19}),
    (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", {16}),
    (r"3[47]", {15}),
    (r"6011|64[4-9]|65|62|352[89]|35[3-8]", {16, 17, 18, 19}),
    (r"36|38|39|30[0-5]", {14, 16, 19}),
    (r"220[0-4]|9792", {16}),
)
_MAESTRO = re.compile(r"50|5[6-8]|6")
_ISSUER_PATTERNS = tuple((re.compile(prefix), lengths) for prefix, lengths in _ISSUERS)
_MIN_DIGITS, _MAX_DIGITS = 13, 19
_UNUSUAL = (13, 17, 18)
_FIRST_DIGITS = frozenset("234569")
_USUAL = (16, 15, 14, 19, 13, 18, 17)  # the likelier length first where two would do
# How cards are embossed and typed; anything else must stand nearly alone.
_SHAPES = frozenset(
    [
        (4, 4, 4, 4),
        (4, 6, 5),
        (4, 6, 4),
        (4, 4, 4, 4, 3),
        (4, 4, 4, 3),
        (4, 4, 4, 2),
        (8, 8),
        (6, 10),
    ]
)
_APART = re.compile(r"[ \n/,]")
_DOUBLED = str.maketrans("0123456789", "0246813579")  # twice a digit, its digits added
_BESIDE = 8  # digits: an expiry and a code; or the number before
_WORD_BEFORE = re.compile(
    r"(?:card|karte|carte|tarjeta|carta|visa|amex|mastercard|maestro|cc|no|nr|num|number|nummer)$"
)
_COUNTED = re.compile(
    r"\b(?:ean|gtin|upc|isbn|barcode|article|artikel|sku|serial|imei)\b[\s\w.:#-]{0,20}$"
)

_CODE = re.compile(
    r"(?<![A-Za-z0-9])(?:cvv2?|cvc2?|cvn2?|csc|card (?:verification|security) (?:code|number|value)"
    r"|security (?:code|number)|pr[u\u00fc]fziffer|(?:karten)?pr[u\u00fc]fnummer|sicherheitscode"
    r"|cryptogramme(?: visuel)?|code de s[e\u00e9]curit[e\u00e9]|c[o\u00f3]digo de seguran[c\u00e7]a"
    r"|c[o\u00f3]digo de seguridad|codice di sicurezza|veiligheidscode|beveiligingscode"
    r"|\u5b89\u5168\u7801|\u5b89\u5168\u78bc|\u30bb\u30ad\u30e5\u30ea\u30c6\u30a3\u30b3\u30fc\u30c9)"
    r"[\s:=#.]{0,3}(?:(?:number|code|is|ist|est|es|e|nr|no)[\s:=.]{1,3}){0,2}(?P<value>\d{3,4})(?![\w]|[.,/-]\d)",
    re.IGNORECASE,
)
_EXPIRY = re.compile(
    r"(?<![A-Za-z])(?:exp(?:iry|ires?|iring|iration|\.)?(?: date| on)?|exp\.? ?date"
    r"|valid (?:thru|through|until|till|to)|good thru|g[u\u00fc]ltig bis|abl[a\u00e4]uf\w*|ablaufdatum"
    r"|verf[a\u00e4]llt|(?:date d')?expiration|expire(?: le)?|valable jusqu'au|caduca(?: en)?|caducidad"
    r"|vence|vencimiento|v[a\u00e1]lid[ao] (?:hasta|at[e\u00e9])|scade|scadenza|vervalt|vervaldatum"
    r"|geldig tot|\u6709\u6548\u671f|\u6709\u52b9\u671f\u9650)"
    r"[\s:=.]{0,3}(?:(?:is|ist|est|es|on|date|am|le|el)[\s:=.]{1,3}){0,2}"
    r"(?P<value>(?:0?[1-9]|1[0-2]) ?[/.-] ?(?:20)?\d{2}|(?:0[1-9]|1[0-2])\d{2})(?![\w]|[.,/-]\d)",
    re.IGNORECASE,
)
_CARD_PLACEHOLDER = re.compile(r"\[CARD_\d+\]")
_NEAR = 80  # characters between a card and its expiry


class CardRecognizer:
    """Card numbers, in groups or not, and the code and expiry of a card.

    A code counts where it is called one. An expiry counts near a card that was replaced before.
    Bare numbers behind a card (``[CARD_1] 04/27 123``) stay: without the card's number they say
    nothing, and as often as not they are an amount, a date or a count of something else.
    """

    supported_entities = ("CARD", "CARD_CODE", "CARD_EXPIRY")

    def analyze(self, text: str, context: str = "") -> Iterator[Span]:
        """See ``Recognizer.analyze``."""
        yield from _numbers(text)
        yield from _details(text)


def _numbers(text: str) -> Iterator[Span]:
    """Card numbers, with other numbers before and behind."""
    for chain in _CHAIN.finditer(text):
        if chain.end() - chain.start() < _MIN_DIGITS:
            continue
        groups = [found.span() for found in _GROUP.finditer(text, *chain.span())]
        sizes = [end - start for start, end in groups]
        total = sum(sizes)
        if total < _MIN_DIGITS:
            continue
        at = 0
        while at < len(groups):
            used = 0
            if text[groups[at][0]] in _FIRST_DIGITS:
                used = _groups_of_card(text, groups, sizes, at, total)
            if used:
                start, end = groups[at][0], groups[at + used - 1][1]
                yield Span(start, end, "CARD", "".join(_GROUP.findall(text, start, end)))
            at += used or 1


def _groups_of_card(
    text: str, groups: list[tuple[int, int]], sizes: list[int], at: int, total: int
) -> int:
    """How many groups from the given one on are a card; 0 for none."""
    tried: dict[int, int] = {}  # length: groups
    if _MIN_DIGITS <= sizes[at] <= _MAX_DIGITS:
        tried[sizes[at]] = 1
    for count in (2, 3, 4, 5):
        shape = tuple(sizes[at : at + count])
        if shape in _SHAPES:
            tried[sum(shape)] = len(shape)
    free = {}
    if total <= _MAX_DIGITS + _BESIDE:  # nearly alone: in groups of any size
        length = 0
        for count, size in enumerate(sizes[at:], start=1):
            length += size
            if length not in tried and _MIN_DIGITS <= length <= _MAX_DIGITS:
                free[length] = count
    if not (tried or free) or not _may_begin(text, groups[at][0]):
        return 0
    for length in _USUAL:
        count = tried.get(length, 0)
        if not count and _stands_apart(text, groups, at, free.get(length, 0)):
            count = free[length]
        if count and _is_card(text, groups[at : at + count], whole=length == total):
            return count
    return 0


def _stands_apart(text: str, groups: list[tuple[int, int]], at: int, count: int) -> bool:
    """Whether there are only blanks and hyphens inside, and more than a hyphen around it."""
    if not count:
        return False
    if not all(
        _SIMPLE.fullmatch(text, a, b) for (_, a), (b, _) in pairwise(groups[at : at + count])
    ):
        return False
    return all(
        _APART.search(text, groups[border][1], groups[border + 1][0])
        for border in (at - 1, at + count - 1)
        if 0 <= border < len(groups) - 1
    )


def _is_card(text: str, groups: list[tuple[int, int]], *, whole: bool) -> bool:
    start, end = groups[0][0], groups[-1][1]
    behind = text[end : end + 1]
    if behind.isascii() and (behind.isalnum() or behind == "_"):
        return False
    digits = "".join([text[a:b] for a, b in groups])
    if not _is_issued(digits, whole=whole) or not _has_check_digit(digits):
        return False
    unusual = len(digits) in _UNUSUAL
    return not (unusual and _COUNTED.search(text[max(0, start - 40) : start].casefold()))


def _may_begin(text: str, start: int) -> bool:
    if start == 0:
        return True
    before = text[start - 1]
    if before in ".," and start > 1 and text[start - 2].isdigit():
        return False  # the decimals of something
    if before == "+":
        return False
    if before.isascii() and (before.isalnum() or before == "_"):
        return _WORD_BEFORE.search(text[max(0, start - 12) : start].casefold()) is not None
    return True


def _has_check_digit(digits: str) -> bool:
    """Luhn's; takes a tenth of the time of the library's, which counts for hostile texts."""
    return sum(map(int, digits[-1::-2] + digits[-2::-2].translate(_DOUBLED))) % 10 == 0


def _is_issued(digits: str, *, whole: bool) -> bool:
    if any(len(digits) in lengths and prefix.match(digits) for prefix, lengths in _ISSUER_PATTERNS):
        return True
    # Maestro's prefixes and lengths fit one number in ten: only where nothing stands beside it.
    return whole and _MAESTRO.match(digits) is not None


def _details(text: str) -> Iterator[Span]:
    """What is named as a card's code, and as the expiry of a card that was found nearby."""
    for found in _CODE.finditer(text):
        yield Span(*found.span("value"), "CARD_CODE", found["value"])
    cards_at = [found.start() for found in _CARD_PLACEHOLDER.finditer(text)]
    if cards_at:
        for found in _EXPIRY.finditer(text):
            next_card = bisect_left(cards_at, found.start() - _NEAR)
            if next_card < len(cards_at) and cards_at[next_card] < found.end() + _NEAR:
                yield Span(*found.span("value"), "CARD_EXPIRY", re.sub(r"\s", "", found["value"]))
