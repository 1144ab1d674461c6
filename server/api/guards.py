"""Who may call what: a bearer token to a principal, and guards for handlers."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from litestar.connection import ASGIConnection, Request
from litestar.handlers import BaseRouteHandler

from server.audit.actors import Actor, act_as
from server.auth import keys
from server.auth.keyring import Keyring
from server.auth.keys import Principal
from server.auth.schemas import Scope
from server.db.models import ActorKind
from server.errors import Forbidden, NotFound, Unauthenticated

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]


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

    With a tenant's key another tenant's slug answers exactly like one that does not exist.
    """

    async def guard(
        connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler
    ) -> None:
        keyring: Keyring = connection.app.state.keyring
        principal = await keyring.authenticate(bearer(connection))
        connection.state["principal"] = principal
        kind: ActorKind = "operator_key" if principal.is_operator else "key"
        act_as(Actor(kind, principal.key_id, principal.label, principal.is_operator))
        slug = connection.path_params.get("slug")
        if not principal.is_operator and slug is not None and slug != principal.slug:
            raise NotFound(f"There is no tenant '{slug}'.", code="tenant_not_found")
        if scope != "operator":
            keys.require(principal, scope)
        elif not principal.is_operator:
            raise Forbidden("This needs the operator's key (tt_admin_...).")

    guard.scope = scope  # type: ignore[attr-defined] # for the OpenAPI document
    return guard


def provide_principal(request: Request[Any, Any, Any]) -> Principal:
    """The caller that a guard has let in."""
    principal: Principal = request.state["principal"]
    return principal
