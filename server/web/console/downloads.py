"""Tables of the console as files."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

from litestar import Response
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.session import Database
from server.web.headers import console_headers

T = TypeVar("T")
BATCH = 500
"""Rows that a table is read by."""
Read = Callable[[AsyncSession, int, T | None], Awaitable[Sequence[T]]]
"""At most so many rows, from behind this one on; from the beginning where it is None."""


async def csv_of_all(
    database: Database, read: Read[T], to_csv: Callable[[Sequence[T]], bytes], name: str
) -> Stream:
    """All rows of a list that goes on behind a row, sent as they are read.

    Each batch is read by itself, so that a long table holds neither memory nor a connection of the
    database. What goes wrong with the first one is an answer of its own; later the connection breaks,
    by which a browser knows that it has not got all.

    Args:
        database: what is read.
        read: the rows of a list.
        to_csv: rows as CSV, with a line of names before them.
        name: of the file, as the browser saves it.

    Example:
        return await csv_of_all(
            database,
            lambda session, limit, last: list_keys(session, limit=limit, after=last and last.id),
            listing.to_csv,
            "keys.csv",
        )
    """

    async def batch_behind(last: T | None) -> Sequence[T]:
        async with database.reading() as session:
            return await read(session, BATCH, last)

    first = await batch_behind(None)

    async def lines() -> AsyncGenerator[bytes]:
        yield to_csv(first)
        rows = first
        while len(rows) == BATCH:
            rows = await batch_behind(rows[-1])
            if rows:
                yield to_csv(rows).partition(b"\n")[2]

    return Stream(lines(), media_type="text/csv", headers=_headers(name))


def csv_file(data: bytes, name: str) -> Response[bytes]:
    """A CSV that the browser saves under this name."""
    return Response(data, media_type="text/csv", headers=_headers(name))


def _headers(name: str) -> dict[str, str]:
    return {**console_headers(), "content-disposition": f'attachment; filename="{name}"'}
