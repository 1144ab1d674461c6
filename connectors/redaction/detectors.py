"""Finds personal data in text by form and checksum: offline, no model, no downloads.

Names and postal addresses have no form; names are found only where the transcript's own metadata
tells them (see ``redact``). Each detector yields spans of the text it is given.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple

from stdnum import iban

from connectors.redaction.folding import folded_words


class Span(NamedTuple):
    """``text[start:end]`` is of ``kind``; equal ``key`` means the same thing written otherwise.

    ``keep`` is put before the placeholder (a URL's scheme and host).
    """

    start: int
    end: int
    kind: str
    key: str
    prefix: str = ""


PLACEHOLDER = re.compile(r"\[[A-Z][A-Z0-9_]*_[1-9]\d*\]")

_IBAN = re.compile(
    r"(?:(?<![a-z0-9])|(?<=iban))[a-z]{2}[ .-]{0,3}\d[ .-]?\d(?:[ .,/\n-]{0,3}[a-z0-9]){11,30}",
    re.ASCII | re.IGNORECASE,
)
_IPV4 = re.compile(r"(?<![A-Za-z0-9_.])(?:\d{1,3}\.){3}\d{1,3}(?![A-Za-z0-9_]|\.\d)")
_VERSION = re.compile(
    r"(?:\bv|version|release|build|firmware|update|driver)[\s:.]*$", re.IGNORECASE
)
_IPV6 = re.compile(
    r"(?<![A-Za-z0-9_:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:(?:\d{1,3}\.){3}\d{1,3})?(?![A-Za-z0-9_:])"
)

# The whole length of an IBAN, by country (SWIFT's registry).
_IBAN_LENGTHS = {
    item[:2].upper(): int(item[2:])
    for item in folded_words("""
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22
    DJ27 DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28
    HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25
    MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29
    RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29
    VA22 VG24 XK20 YE30
    """)
}


def ibans(text: str) -> Iterator[Span]:
    """IBANs, in groups or not; the words after one are not swallowed."""
    at = 0
    while found := _IBAN.search(text, at):
        end = _iban_end(found[0])
        if end:
            key = re.sub(r"[^A-Za-z0-9]", "", found[0][:end]).upper()
            yield Span(found.start(), found.start() + end, "IBAN", key)
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


def ip_addresses(text: str) -> Iterator[Span]:
    """IPv4 and IPv6; not loopback, unspecified, netmasks, or version numbers."""
    for found in _IPV4.finditer(text):
        before = text[max(0, found.start() - 16) : found.start()]
        if not _VERSION.search(before):
            yield from _address(found)
    if text.count(":") > 1:
        for found in _IPV6.finditer(text):
            yield from _address(found)


def _address(found: re.Match[str]) -> Iterator[Span]:
    try:
        address = ipaddress.ip_address(found[0])
    except ValueError:
        return
    netmask = address.version == 4 and found[0].startswith(("255.", "0."))  # noqa: PLR2004
    if not (address.is_loopback or address.is_unspecified or netmask):
        yield Span(found.start(), found.end(), "IP", address.compressed)
