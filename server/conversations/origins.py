"""Which sites may show a widget: their origins, and the header that browsers enforce.

An origin is written as browsers send it (``https://shop.example``), or with a star for its subdomains
(``https://*.shop.example``), or as ``*`` for every site, which nobody gets by accident.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from server.errors import Invalid
from server.origins import EVERY_ORIGIN, origins

MAX_ORIGINS = 50
MAX_ORIGIN_LENGTH = 255
LOCAL = tuple(
    f"{scheme}://{host}" for host in ("localhost", "127.0.0.1") for scheme in ("http", "https")
)
_STAR = "://*."


def normal(text: str) -> str:
    """An origin in the form that browsers send.

    Raises:
        Invalid: it is none that a page can have; says what would do.
    """
    text = text.strip()
    starred = _STAR in text
    if len(text) > MAX_ORIGIN_LENGTH:
        raise Invalid("An origin has 255 characters at most.", param="origin")
    try:
        found = origins(text.replace(_STAR, "://", 1) if starred else text)
    except ValueError as exc:
        raise Invalid(f"{exc}.", param="origin") from exc
    if len(found) != 1:
        raise Invalid("Name one origin, as https://shop.example.com.", param="origin")
    [origin] = found
    if origin == EVERY_ORIGIN:
        return origin
    scheme, _, rest = origin.partition("://")
    if scheme not in ("http", "https"):
        raise Invalid("An origin begins with https:// or http://.", param="origin")
    if not starred:
        return origin
    if "." not in rest or rest.replace(".", "").replace(":", "").isdigit() or rest[0] == "[":
        raise Invalid("A star stands for the subdomains of a name with a dot.", param="origin")
    return f"{scheme}{_STAR}{rest}"


def frame_ancestors(allowed: Iterable[str], *, localhost: bool) -> str:
    """The CSP directive of the panel: the allowed sites, and this server's own console.

    ``localhost`` allows every port of the visitor's own machine.
    """
    local = [f"{origin}:*" for origin in LOCAL] if localhost else []
    return " ".join(["frame-ancestors 'self'", *allowed, *local])


def allows(allowed: Iterable[str], origin: str, *, localhost: bool) -> bool:
    """Whether ``frame_ancestors`` lets a page of this origin show the widget."""
    if localhost and origin.rpartition(":")[0] in LOCAL:
        return True
    return (localhost and origin in LOCAL) or any(_matches(each, origin) for each in allowed)


def of_page(url: str) -> str | None:
    """The origin of a page's address, as the header ``Referer`` has it; None where it has none."""
    try:
        parts = urlsplit(url)
        return normal(f"{parts.scheme}://{parts.netloc}")
    except (Invalid, ValueError):
        return None


def _matches(pattern: str, origin: str) -> bool:
    if pattern in (EVERY_ORIGIN, origin):
        return True
    if _STAR not in pattern:
        return False
    scheme, _, rest = pattern.partition(_STAR)
    return origin.startswith(f"{scheme}://") and origin.endswith(f".{rest}")
