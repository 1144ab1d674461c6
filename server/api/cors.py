"""Cross-origin requests (CORS): which web pages may read this server's answers.

Off until origins are allowed. Keys travel in a header that a page sets itself, never in a cookie, so
credentials are not allowed: an allowed page can do what a key that it already has can do, no more.
"""

import re
from collections.abc import Iterable

from litestar.config.cors import CORSConfig
from litestar.datastructures import MutableScopeHeaders
from litestar.types import BeforeMessageSendHookHandler, Message, Scope

from server.origins import EVERY_ORIGIN

MAX_AGE_SECONDS = 600  # how long a browser keeps a preflight's answer; Chromium: at most 7,200
# what scripts may read beside the body: the Fetch standard hides every other header from them
EXPOSED_HEADERS = (
    "content-disposition",
    "idempotent-replayed",
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-request-id",
    "x-should-retry",
)


def config_of(allowed: Iterable[str]) -> CORSConfig | None:
    """Litestar's settings for these origins; None where there are none."""
    allowed = list(allowed)
    if not allowed:
        return None
    return CORSConfig(
        allow_origins=allowed, expose_headers=list(EXPOSED_HEADERS), max_age=MAX_AGE_SECONDS
    )


def vary_by_origin(allowed: Iterable[str]) -> list[BeforeMessageSendHookHandler]:
    """Hooks by which caches learn that answers differ by origin, also where there is none."""
    if not (chosen := set(allowed)) or EVERY_ORIGIN in chosen:
        return []

    async def add_vary(message: Message, _scope: Scope) -> None:
        if message["type"] == "http.response.start":
            headers = MutableScopeHeaders.from_message(message)
            said = headers.get("vary", "")
            if "origin" not in re.split(r"[\s,]+", said.lower()):
                headers["vary"] = f"{said}, Origin" if said else "Origin"

    return [add_vary]
