"""Who may call what: ``Authorization: Bearer tt_...`` to a principal, and guards for handlers."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Literal

import structlog
from litestar.connection import ASGIConnection, Request
from litestar.handlers import BaseRouteHandler
from sqlalchemy.exc import SQLAlchemyError

from server.auth import keys
from server.auth.keys import Principal
from server.db.models import now
from server.db.session import Database
from server.db.versioned_cache import Remembered
from server.errors import Forbidden, NotFound, Unauthenticated
from server.tenants.schemas import Scope

log = structlog.get_logger(__name__)

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]


class Keyring:
    """Authenticates, and notes when keys were used.

    A key that was revoked, or has expired, or whose tenant is gone, is refused from that moment on
    every copy of the server: what is remembered is only used while nobody has committed anything
    to the database, and where that cannot be told (PostgreSQL) every request asks, one query by an
    index. A database that does not answer lets nobody in. Answers that are under way go on.

    Times of use are written together every ``flush_seconds``, not on the request's path.
    """

    def __init__(self, database: Database, *, flush_seconds: float = 60.0) -> None:
        self._database = database
        self._flush_seconds = flush_seconds
        self._known: Remembered[bytes, Principal] = Remembered(database)
        self._used: dict[str, datetime] = {}

    async def authenticate(self, raw: str) -> Principal:
        """Whose key this is.

        Raises:
            Unauthenticated: nobody's, or not any more.
        """

        async def read() -> Principal:
            async with self._database.reading() as session:
                return await keys.authenticate(session, raw)

        principal = await self._known.get(hashlib.sha256(raw.encode()).digest(), read)
        if _expired(principal):
            principal = await read()  # says so, in the words for all keys that are no good
        self._used[principal.key_id] = now()
        return principal

    def close(self) -> None:
        """Let go of what is held open."""
        self._known.close()

    async def flush(self) -> None:
        """Write the times of use. What could not be written stays and is tried again."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with self._database.transaction() as session:
                await keys.mark_used(session, used)
        except BaseException:
            self._used = used | self._used
            raise

    async def run(self) -> None:
        """Flush every now and then until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(self._flush_seconds)
                await self._try_flush()
        finally:
            await self._try_flush()

    async def _try_flush(self) -> None:
        try:
            await self.flush()
        except (SQLAlchemyError, OSError) as exc:
            log.warning("times of key use were not written; trying again", error=str(exc))


def bearer(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The raw key of a request.

    Raises:
        Unauthenticated: the header is missing or of another kind.
    """
    kind, _, raw = connection.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not raw.strip():
        raise Unauthenticated(
            "You didn't provide an API key. Send it as 'Authorization: Bearer tt_...'.",
            code="missing_api_key",
        )
    return raw.strip()


def needs(scope: Scope | Literal["operator"]) -> Guard:
    """A guard: authenticates, checks the scope, and keeps a tenant to its own ``{slug}``.

    To a tenant's key another tenant's slug answers exactly like one that does not exist.
    """

    async def guard(
        connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler
    ) -> None:
        keyring: Keyring = connection.app.state.keyring
        principal = await keyring.authenticate(bearer(connection))
        connection.state["principal"] = principal
        slug = connection.path_params.get("slug")
        if not principal.is_operator and slug is not None and slug != principal.slug:
            raise NotFound(f"There is no tenant '{slug}'.", code="tenant_not_found")
        if scope != "operator":
            keys.require(principal, scope)
        elif not principal.is_operator:
            raise Forbidden("This needs the operator's key (tt_admin_...).")

    guard.scope = scope  # type: ignore[attr-defined] # the OpenAPI document tells it
    return guard


def provide_principal(request: Request[Any, Any, Any]) -> Principal:
    """The caller that a guard has let in."""
    principal: Principal = request.state["principal"]
    return principal


def _expired(principal: Principal) -> bool:
    return principal.expires_at is not None and principal.expires_at <= now()
