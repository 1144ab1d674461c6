"""Signing in through the organisation's OpenID Connect issuer: there and back."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec
from litestar import Controller, Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.accounts.oidc import Flow, Issuer
from server.accounts.signing_in import SigningIn
from server.errors import Forbidden, NotFound, Unavailable
from server.settings import Settings
from server.web.console.forms import address_of, agent_of, see_other
from server.web.console.pages.sign_in import enter, sign_in_form
from server.web.console.session import (
    AnyConnection,
    cookie_name,
    from_anonymous_form,
    make_cookie,
    safe_next,
    session_token,
)

COOKIE = "tt-flow"
FLOW_SECONDS = 600  # how long somebody may take at their organisation


class IssuerController(Controller):
    """There, and back with a code. Both are visits, not forms: ``state`` ties one to the other."""

    include_in_schema = False
    guards = [from_anonymous_form]  # noqa: RUF012 - Litestar's own

    @get("/console/sign-in/oidc")
    async def begin(
        self, request: Request[Any, Any, Any], issuer: NamedDependency[Issuer | None]
    ) -> Response[Any]:
        """Go to the issuer."""
        return await _begin(request, issuer, next=safe_next(request.query_params.get("next", "")))

    @get("/console/link/{token:str}/oidc")
    async def begin_with_link(
        self,
        request: Request[Any, Any, Any],
        token: FromPath[str],
        issuer: NamedDependency[Issuer | None],
    ) -> Response[Any]:
        """Go to the issuer with a one-time link, instead of choosing a password."""
        return await _begin(request, issuer, link=token)

    @get("/console/sign-in/oidc/callback")
    async def finish(
        self,
        request: Request[Any, Any, Any],
        issuer: NamedDependency[Issuer | None],
        signing_in: NamedDependency[SigningIn],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Come back, and be signed in."""
        target = "/console"
        try:
            flow = _flow_of(request)
            target = safe_next(flow.next)
            identity = await _require(issuer).finish(flow, dict(request.query_params))
            token = await signing_in.with_identity(
                identity,
                domains=settings.oidc_domains,
                link=flow.link,
                address=address_of(request),
                agent=agent_of(request),
                replaces=session_token(request),
            )
        except (Forbidden, NotFound, Unavailable) as exc:
            answer = await sign_in_form(request, exc, next=target, has_issuer=issuer is not None)
        else:
            answer = enter(request, token, target)
        answer.set_cookie(make_cookie(request, COOKIE, "", max_age=0))
        return answer


async def _begin(
    request: Request[Any, Any, Any],
    issuer: Issuer | None,
    *,
    next: str = "",  # noqa: A002 - Flow's
    link: str = "",
) -> Response[Any]:
    try:
        url, flow = await _require(issuer).begin(next=next, link=link)
    except Unavailable as exc:
        return await sign_in_form(request, exc, next=next, has_issuer=True)
    value = urlsafe_b64encode(msgspec.json.encode(flow)).decode()
    return see_other(url, cookies=[make_cookie(request, COOKIE, value, max_age=FLOW_SECONDS)])


def _require(issuer: Issuer | None) -> Issuer:
    if issuer is None:
        raise NotFound("People sign in with a password here.", code="no_single_sign_on")
    return issuer


def _flow_of(connection: AnyConnection) -> Flow:
    """What the browser kept when it began.

    Raises:
        Forbidden: nothing, or nothing that can be read.
    """
    try:
        value = urlsafe_b64decode(connection.cookies.get(cookie_name(connection, COOKIE), ""))
        return msgspec.json.decode(value, type=Flow)
    except (ValueError, msgspec.MsgspecError) as exc:
        raise Forbidden(
            "Signing in took too long, or began in another browser: begin again."
        ) from exc
