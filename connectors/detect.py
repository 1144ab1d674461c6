"""Finds personal data in text by form and checksum: offline, no model, no downloads.

Names and postal addresses have no form; names are found only where the transcript's own metadata
tells them (see ``redact``). Each detector yields spans of the text it is given.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from stdnum import iban, luhn


class Finding(NamedTuple):
    """``text[start:end]`` is of ``kind``; equal ``key`` means the same thing written otherwise.

    ``keep`` is put before the placeholder (a URL's scheme and host).
    """

    start: int
    end: int
    kind: str
    key: str
    keep: str = ""


PLACEHOLDER = re.compile(r"\[[A-Z][A-Z0-9_]*_[1-9]\d*\]")

_EMAIL = re.compile(
    r"(?<![\w.+%-])[A-Za-z0-9_][\w.+%'-]{0,63}\s?@\s?"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,24}(?![\w-])"
)
_URL = re.compile(
    r"(?:\b[a-z][a-z0-9+.-]{1,20}://|\bwww\.|(?<![\w@.-])(?:[a-z0-9-]{1,63}\.){1,6}[a-z]{2,24}(?=[/?]))"
    r"[^\s<>\"'`]+",
    re.IGNORECASE,
)
_SECRET_KEY = re.compile(
    r"token|secret|passw|pwd|api_?key|^key$|^k$|auth(?!or)|signature|^sig$|session|^sid$|jwt|otp|^code$"
    r"|^state$|nonce|credential|invite|magic|reset|ticket|hash|hmac|access|^pin$|^u?uid$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w~+/=.-]{20,}")
_SECRET_SEGMENT = re.compile(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[A-Za-z0-9_~=.-]{24,}")
_WORDS = re.compile(r"[a-z]{2,}(?:[-_.][a-z0-9]{1,20})+", re.IGNORECASE)
_CARD = re.compile(r"(?<![\w.])\d(?:[ \u00a0-]?\d){12,18}(?![\w])")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ \u00a0-]?[A-Za-z0-9]){11,30}")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_VERSION = re.compile(
    r"(?:\bv|version|release|build|firmware|update|driver)[\s:.]*$", re.IGNORECASE
)
_IPV6 = re.compile(
    r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])"
)

_SHORTEST_SECRET = 4  # "otp=1234" is one, "reset=yes" is none
# The whole length of an IBAN, by country (SWIFT's registry).
_IBAN_LENGTHS = {
    item[:2]: int(item[2:])
    for item in [
        "AD24",
        "AE23",
        "AL28",
        "AT20",
        "AZ28",
        "BA20",
        "BE16",
        "BG22",
        "BH22",
        "BI27",
        "BR29",
        "BY28",
        "CH21",
        "CR22",
        "CY28",
        "CZ24",
        "DE22",
        "DJ27",
        "DK18",
        "DO28",
        "EE20",
        "EG29",
        "ES24",
        "FI18",
        "FK18",
        "FO18",
        "FR27",
        "GB22",
        "GE22",
        "GI23",
        "GL18",
        "GR27",
        "GT28",
        "HN28",
        "HR21",
        "HU28",
        "IE22",
        "IL23",
        "IQ23",
        "IS26",
        "IT27",
        "JO30",
        "KW30",
        "KZ20",
        "LB28",
        "LC32",
        "LI21",
        "LT20",
        "LU20",
        "LV21",
        "LY25",
        "MC27",
        "MD24",
        "ME22",
        "MK19",
        "MN20",
        "MR27",
        "MT31",
        "MU30",
        "NI28",
        "NL18",
        "NO15",
        "OM23",
        "PK24",
        "PL28",
        "PS29",
        "PT25",
        "QA29",
        "RO24",
        "RS22",
        "RU33",
        "SA24",
        "SC31",
        "SD18",
        "SE24",
        "SI19",
        "SK24",
        "SM27",
        "SO23",
        "ST25",
        "SV28",
        "TL23",
        "TN24",
        "TR26",
        "UA29",
        "VA22",
        "VG24",
        "XK20",
        "YE30",
    ]
}


def emails(text: str) -> Iterator[Finding]:
    """E-mail addresses, a blank round the @ allowed."""
    if "@" in text:
        for found in _EMAIL.finditer(text):
            key = re.sub(r"\s", "", found[0]).casefold()
            yield Finding(found.start(), found.end(), "EMAIL", key)


def urls(text: str) -> Iterator[Finding]:
    """URLs that carry a secret: credentials, tokens in the query, the fragment or the path."""
    if "/" not in text and "?" not in text:
        return
    for found in _URL.finditer(text):
        url = found[0].rstrip(".,;:!?)]}\u2026")
        if url.count("[") > url.count("]") and found[0].startswith(f"{url}]"):
            url += "]"
        has_scheme = "://" in url
        try:
            parts = urlsplit(url if has_scheme else f"//{url}")
            host = parts.hostname or ""
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            continue
        if (
            parts.password
            or (parts.username and has_scheme)
            or _has_secret(parts.path, parts.query, parts.fragment)
        ):
            scheme = f"{parts.scheme}://" if has_scheme else ""
            start = found.start()
            yield Finding(start, start + len(url), "URL", url, keep=f"{scheme}{host}{port}/")


def _has_secret(path: str, query: str, fragment: str) -> bool:
    pairs = parse_qsl(query, keep_blank_values=False) + parse_qsl(fragment)
    if any(_secret_pair(key, value) for key, value in pairs):
        return True
    return any(
        _SECRET_SEGMENT.fullmatch(segment) and not _WORDS.fullmatch(segment)
        for segment in path.split("/")
    )


def _secret_pair(key: str, value: str) -> bool:
    if PLACEHOLDER.fullmatch(value):
        return False
    named = _SECRET_KEY.search(key) and len(value) >= _SHORTEST_SECRET and value != "false"
    return bool(named or _SECRET_VALUE.fullmatch(value))


def cards(text: str) -> Iterator[Finding]:
    """Payment cards: an issuer's prefix and length, and the Luhn check digit."""
    for found in _CARD.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        if _is_issued(digits) and luhn.is_valid(digits):
            yield Finding(found.start(), found.end(), "CARD", digits)


# Prefix ranges and lengths: ISO/IEC 7812 as the card schemes publish them.
_ISSUERS = (
    (r"4", {13, 16, 19}),
    (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", {16}),
    (r"3[47]", {15}),
    (r"6011|64[4-9]|65|62|352[89]|35[3-8]", {16, 17, 18, 19}),
    (r"36|38|39|30[0-5]", {14, 16, 19}),
    (r"50|5[6-8]|6", {12, 13, 14, 15, 16, 17, 18, 19}),
)
_ISSUER_PATTERNS = tuple((re.compile(prefix), lengths) for prefix, lengths in _ISSUERS)


def _is_issued(digits: str) -> bool:
    return any(
        len(digits) in lengths and prefix.match(digits) for prefix, lengths in _ISSUER_PATTERNS
    )


def ibans(text: str) -> Iterator[Finding]:
    """IBANs, in groups or not; the words after one are not swallowed."""
    at = 0
    while found := _IBAN.search(text, at):
        end = _iban_end(found[0])
        if end:
            key = re.sub(r"[^A-Za-z0-9]", "", found[0][:end]).upper()
            yield Finding(found.start(), found.start() + end, "IBAN", key)
        at = found.start() + (end or 2)


def _iban_end(candidate: str) -> int:
    """How many characters of the candidate are an IBAN; 0 for none."""
    length = _IBAN_LENGTHS.get(candidate[:2].upper(), 0)
    places = [at for at, character in enumerate(candidate) if character.isalnum()]
    if not 0 < length <= len(places):
        return 0
    end = places[length - 1] + 1
    ends_there = end == len(candidate) or not candidate[end].isalnum()
    plain = "".join(candidate[at] for at in places[:length])
    return end if ends_there and iban.is_valid(plain, check_country=False) else 0


def ip_addresses(text: str) -> Iterator[Finding]:
    """IPv4 and IPv6; not loopback, unspecified, netmasks, or version numbers."""
    for found in _IPV4.finditer(text):
        before = text[max(0, found.start() - 16) : found.start()]
        if not _VERSION.search(before):
            yield from _address(found)
    if text.count(":") > 1:
        for found in _IPV6.finditer(text):
            yield from _address(found)


def _address(found: re.Match[str]) -> Iterator[Finding]:
    try:
        address = ipaddress.ip_address(found[0])
    except ValueError:
        return
    netmask = address.version == 4 and found[0].startswith(("255.", "0."))  # noqa: PLR2004
    if not (address.is_loopback or address.is_unspecified or netmask):
        yield Finding(found.start(), found.end(), "IP", address.compressed)
