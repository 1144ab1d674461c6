"""Tables of the console as files."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from litestar import Response

from server.web.headers import console_headers

T = TypeVar("T")
BATCH = 500
"""Rows that a table is read by."""
MAX_ROWS = 100_000
"""Rows of a file: some 20 MB. The newest ones, as they come first in lists."""


async def read_all(read: Callable[[int, T | None], Awaitable[Sequence[T]]]) -> list[T]:
    """All rows of a list that goes on behind a row, ``MAX_ROWS`` at most.

    Args:
        read: at most so many rows, from behind this one on; from the beginning where it is None.

    Example:
        await read_all(lambda limit, last: list_keys(session, limit=limit, after=last and last.id))
    """
    found: list[T] = []
    while batch := await read(min(BATCH, MAX_ROWS - len(found)), found[-1] if found else None):
        found += batch
        if len(found) >= MAX_ROWS:
            break
    return found


def csv_file(data: bytes, name: str) -> Response[bytes]:
    """A CSV that the browser saves under this name."""
    return Response(
        data,
        media_type="text/csv",
        headers={
            **console_headers(),
            "content-disposition": f'attachment; filename="{name}"',
        },
    )
