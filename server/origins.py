"""Origins of web pages, as browsers send them in the header ``Origin``."""

import re
from ipaddress import AddressValueError, IPv6Address

EVERY_ORIGIN = "*"
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?"
)
_MAX_PORT = 65_535


def origins(text: str) -> tuple[str, ...]:
    """The origins that a setting names, separated by spaces or commas, as browsers send them.

    Raises:
        ValueError: one of them is no origin, or ``*`` stands beside others; says what would do.
    """
    found = tuple(dict.fromkeys(map(_origin, text.replace(",", " ").split())))
    if EVERY_ORIGIN in found and len(found) > 1:
        raise ValueError(f"'{EVERY_ORIGIN}' allows every origin: name it alone, or leave it out")
    return found


def _origin(text: str) -> str:
    """One origin in the form that browsers send: lower case, no default port, no path."""
    if text == EVERY_ORIGIN:
        return text
    plain = text.lower()
    match = _ORIGIN.fullmatch(plain)
    if match is None:
        raise ValueError(f"'{text}' is no origin: {_advice(plain)}")
    scheme, host, port = match["scheme"], match["host"], match["port"]
    if host.startswith("["):
        try:
            host = f"[{IPv6Address(host[1:-1])}]"
        except AddressValueError as exc:
            raise ValueError(f"'{text}' is no origin: {exc}") from exc
    if port is None or int(port) == int(_DEFAULT_PORTS.get(scheme, "-1")):
        return f"{scheme}://{host}"
    if not 0 < int(port) <= _MAX_PORT:
        raise ValueError(f"'{text}' is no origin: ports end at {_MAX_PORT}")
    return f"{scheme}://{host}:{int(port)}"


def _advice(text: str) -> str:
    form = "write scheme://host or scheme://host:port, as https://app.example.com"
    if text == "null":
        return f"any page can be of the origin 'null'; {form}"
    if EVERY_ORIGIN in text:
        return f"'{EVERY_ORIGIN}' stands alone, for every origin, or not at all; {form}"
    if (match := _ORIGIN.match(text)) and text[match.end()] in "/?#":
        return f"an origin has no path; did you mean {match[0]}?"
    if not text.isascii():
        return f"browsers send international names as punycode (xn--...); {form}"
    if "://" not in text:
        return f"the scheme is missing; did you mean https://{text}?"
    return form
