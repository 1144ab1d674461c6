"""What a request to the widget must carry: browsers' own marks, and a session."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar.connection import ASGIConnection, Request
from litestar.di import NamedDependency
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath
from sqlalchemy.ext.asyncio import AsyncSession

from server.conversations import sessions
from server.conversations.service import Caller
from server.conversations.tokens import session_expired
from server.db.session import Database
from server.errors import Forbidden
from server.webhooks.vault import Vault

_FRAMES = ("iframe", "frame")


async def from_our_frame(
    connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler
) -> None:
    """A guard: what a browser sends must come from our own document, which it says by itself.

    A client that is no browser leaves the header out; sessions and budgets are what stops it.
    """
    site = connection.headers.get("sec-fetch-site", "same-origin")
    if site != "same-origin":
        raise Forbidden("Only the widget's own frame may ask for this.", code="cross_site")


async def into_a_frame(
    connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler
) -> None:
    """A guard: a browser must ask for the panel in order to frame it."""
    if connection.headers.get("sec-fetch-dest", "iframe") not in _FRAMES:
        raise Forbidden("The panel is only shown in a frame of a page.", code="not_framed")


def session_token(request: Request[Any, Any, Any]) -> str:
    """The session that a request carries.

    Raises:
        Unauthenticated: it has none.
    """
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise session_expired()
    return token.strip()


def address(request: Request[Any, Any, Any]) -> str | None:
    """The caller's IP address; behind a proxy on this machine, the one that it names."""
    return request.client.host if request.client is not None else None


class VisitorAccess:
    """The way of one request to its visitor's rows: the database, once its session was believed.

    Whom the session names is read before a transaction begins: on SQLite there is one writer at a time,
    and who has no session must not make it wait.

    Example:
        async with access.writing() as (session, caller):
            await service.post(session, caller, data)
    """

    def __init__(
        self, request: Request[Any, Any, Any], public_key: str, database: Database, vault: Vault
    ) -> None:
        self._request = request
        self._public_key = public_key
        self._database = database
        self._vault = vault

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[tuple[AsyncSession, Caller]]:
        """A session that only reads, and who asks.

        Raises:
            NotFound: there is no such widget.
            Unauthenticated: the request has no session of this widget.
        """
        async with self._database.reading() as session:
            yield session, await self._caller(session)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[tuple[AsyncSession, Caller]]:
        """A transaction, and who asks; raises as ``reading``."""
        async with self._database.reading() as session:
            caller = await self._caller(session)
        async with self._database.transaction() as session:
            yield session, caller

    async def _caller(self, session: AsyncSession) -> Caller:
        return await sessions.caller(
            session,
            self._public_key,
            session_token(self._request),
            vault=self._vault,
            client=address(self._request),
        )


def provide_access(
    request: Request[Any, Any, Any],
    pub: FromPath[str],
    database: NamedDependency[Database],
    vault: NamedDependency[Vault],
) -> VisitorAccess:
    """The dependency ``access`` of handlers under ``/widget/{pub}``."""
    return VisitorAccess(request, pub, database, vault)
