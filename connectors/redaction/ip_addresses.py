"""IPv4 and IPv6 addresses."""

import ipaddress
import re
from collections.abc import Iterator

from connectors.redaction.recognizer import Span

_IPV4 = re.compile(r"(?<![A-Za-z0-9_.])(?:\d{1,3}\.){3}\d{1,3}(?![A-Za-z0-9_]|\.\d)")
_VERSION = re.compile(
    r"(?:\bv|version|release|build|firmware|update|driver)[\s:.]*$", re.IGNORECASE
)
_IPV6 = re.compile(
    r"(?<![A-Za-z0-9_:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:(?:\d{1,3}\.){3}\d{1,3})?(?![A-Za-z0-9_:])"
)


class IpAddressRecognizer:
    """IP addresses, except loopback, unspecified ones, netmasks and version numbers."""

    supported_entities = ("IP",)

    def analyze(self, text: str, context: str = "") -> Iterator[Span]:
        """See ``Recognizer.analyze``."""
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
