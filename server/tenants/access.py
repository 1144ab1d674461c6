"""Who may call what: ``Authorization: Bearer tt_...`` to a principal, and guards for handlers."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Literal

import structlog
from litestar.connection import ASGIConnection, Request
from litestar.handlers import BaseRouteHandler

from server.db.models import now
from server.db.session import Database
from server.errors import Forbidden, NotFound, ServerError, Unauthenticated
from server.tenants import keys
from server.tenants.keys import Principal
from server.tenants.schemas import Scope

log = structlog.get_logger(__name__)

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]


class Keyring:
    """Authenticates with a short memory, and notes when keys were used.

    A key revoked by another process may live on for ``remember_seconds``; one revoked through
    ``forget`` is gone at once. Times of use are written together every ``flush_seconds``, not on
    the request's path.
    """

    def __init__(
        self, database: Database, *, remember_seconds: float = 5.0, flush_seconds: float = 60.0
    ) -> None:
        self._database = database
        self._remember_seconds = remember_seconds
        self._flush_seconds = flush_seconds
        self._known: dict[bytes, tuple[float, Principal]] = {}
        self._used: dict[str, datetime] = {}

    async def authenticate(self, raw: str) -> Principal:
        """Whose key this is.

        Raises:
            Unauthenticated: nobody's, or not any more.
        """
        digest = hashlib.sha256(raw.encode()).digest()
        until, principal = self._known.get(digest, (0.0, None))
        if principal is None or until < time.monotonic() or _expired(principal):
            self._known.pop(digest, None)
            async with self._database.reading() as session:
                principal = await keys.authenticate(session, raw)
            if len(self._known) >= 10_000:  # noqa: PLR2004 - a bound, not a tuning knob
                self._known.clear()
            self._known[digest] = (time.monotonic() + self._remember_seconds, principal)
        self._used[principal.key_id] = now()
        return principal

    def forget(self) -> None:
        """Look every key up again: one was revoked, or a tenant is gone."""
        self._known.clear()

    async def flush(self) -> None:
        """Write the times of use."""
        used, self._used = self._used, {}
        if used:
            async with self._database.transaction() as session:
                await keys.mark_used(session, used)

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
        except ServerError as exc:  # times of use may be lost; requests may not
            log.warning("times of key use were not written", error=str(exc))


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

    return guard


def provide_principal(request: Request[Any, Any, Any]) -> Principal:
    """The caller that a guard has let in."""
    principal: Principal = request.state["principal"]
    return principal


def _expired(principal: Principal) -> bool:
    return principal.expires_at is not None and principal.expires_at <= now()
