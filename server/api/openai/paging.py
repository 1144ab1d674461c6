"""Lists with a cursor, as OpenAI pages them."""

from typing import Generic, Literal, TypeVar

import msgspec

T = TypeVar("T")
MAX_LIMIT = 100


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One page. ``first_id`` and ``last_id`` are cursors, null where the page is empty."""

    data: list[T]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None
    object: Literal["list"] = "list"


def page_of(found: list[T], ids: list[str], *, limit: int) -> Page[T]:
    """A page of at most ``limit`` from a query that asked for ``limit + 1`` rows."""
    shown = ids[:limit]
    return Page(
        data=found[:limit],
        has_more=len(found) > limit,
        first_id=shown[0] if shown else None,
        last_id=shown[-1] if shown else None,
    )
