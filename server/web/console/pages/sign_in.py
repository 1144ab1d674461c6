"""Signing in and out, and one-time links."""

import math
from http import HTTPStatus
from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.accounts import links, sessions
from server.accounts.oidc import Issuer
from server.accounts.passwords import MIN_LENGTH
from server.accounts.schemas import Viewer
from server.accounts.signing_in import SigningIn
from server.db.session import Database
from server.errors import Conflict, Forbidden, Invalid, NotFound, ServerError, TooMany, Unavailable
from server.web.console.forms import address_of, agent_of, read_form, see_other
from server.web.console.rendering import page
from server.web.console.session import (
    FORM_COOKIE,
    SIGN_IN,
    anonymous_form,
    from_anonymous_form,
    make_cookie,
    safe_next,
    session_cookie,
    session_token,
    signed_in,
)


class SignInController(Controller):
    """The form for those who have a password."""

    include_in_schema = False
    path = SIGN_IN
    guards = [from_anonymous_form]  # noqa: RUF012 - Litestar's own

    @get()
    async def show(
        self,
        request: Request[Any, Any, Any],
        database: NamedDependency[Database],
        issuer: NamedDependency[Issuer | None],
    ) -> Response[Any]:
        """The form; who is signed in already goes on."""
        target = safe_next(request.query_params.get("next", ""))
        async with database.reading() as session:
            if await sessions.find(session, session_token(request)) is not None:
                return see_other(target)
        return await sign_in_form(request, next=target, has_issuer=issuer is not None)

    @post()
    async def sign_in(
        self,
        request: Request[Any, Any, Any],
        signing_in: NamedDependency[SigningIn],
        issuer: NamedDependency[Issuer | None],
    ) -> Response[Any]:
        """Sign in; an earlier session of this browser ends."""
        form = await read_form(request)
        email, target = form.get("email", ""), safe_next(form.get("next", ""))
        try:
            token = await signing_in.with_password(
                email,
                form.get("password", ""),
                address=address_of(request),
                agent=agent_of(request),
                replaces=session_token(request),
            )
        except (Invalid, TooMany, Unavailable) as exc:
            has_issuer = issuer is not None
            return await sign_in_form(request, exc, email=email, next=target, has_issuer=has_issuer)
        return enter(request, token, target)


class SignOutController(Controller):
    """The end of a session."""

    include_in_schema = False
    path = "/console/sign-out"

    @post(guards=[signed_in()])
    async def sign_out(
        self,
        request: Request[Any, Any, Any],
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Sign this browser out."""
        async with database.transaction() as session:
            await sessions.end(session, viewer.session_id, person_id=viewer.person_id)
        cookies = [session_cookie(request, "")]
        return see_other(SIGN_IN, cookies=cookies)


class LinkController(Controller):
    """A one-time link: looking at it does not use it, since mail programs look at links."""

    include_in_schema = False
    path = "/console/link/{token:str}"
    guards = [from_anonymous_form]  # noqa: RUF012 - Litestar's own

    @get()
    async def show(
        self,
        request: Request[Any, Any, Any],
        token: FromPath[str],
        database: NamedDependency[Database],
        issuer: NamedDependency[Issuer | None],
    ) -> Response[Any]:
        """The form that asks for a name and a password."""
        async with database.reading() as session:
            try:
                link = await links.find(session, token)
            except NotFound as exc:
                return await _gone(request, exc)
        return await _link_form(request, link, has_issuer=issuer is not None)

    @post()
    async def use(
        self,
        request: Request[Any, Any, Any],
        token: FromPath[str],
        database: NamedDependency[Database],
        signing_in: NamedDependency[SigningIn],
        issuer: NamedDependency[Issuer | None],
    ) -> Response[Any]:
        """Set name and password, and sign in."""
        form = await read_form(request)
        try:
            made = await signing_in.with_link(
                token,
                email=form.get("email", ""),
                name=form.get("name", ""),
                password=form.get("password", ""),
                address=address_of(request),
                agent=agent_of(request),
                replaces=session_token(request),
            )
        except (NotFound, Conflict) as exc:
            return await _gone(request, exc)
        except (Invalid, Unavailable) as exc:
            async with database.reading() as session:
                link = await links.find(session, token)
            given = {"email": form.get("email", ""), "name": form.get("name", "")}
            has_issuer = issuer is not None
            return await _link_form(request, link, exc, has_issuer=has_issuer, **given)
        return enter(request, made, "/console")


def enter(request: Request[Any, Any, Any], token: str, target: str) -> Response[Any]:
    """Go on to a page with a new session."""
    cookies = [session_cookie(request, token), make_cookie(request, FORM_COOKIE, "", max_age=0)]
    return see_other(target, cookies=cookies)


async def sign_in_form(
    request: Request[Any, Any, Any],
    error: ServerError | None = None,
    /,
    *,
    next: str,  # noqa: A002 - the field's name
    has_issuer: bool,
    email: str = "",
) -> Response[Any]:
    """The sign-in page, with what went wrong."""
    csrf_token, cookie = anonymous_form(request)
    answer = await page(
        request,
        "sign_in.html",
        status=_status_of(error),
        headers=_retry_after(error),
        csrf_token=csrf_token,
        errors={"email": error.message} if error else {},
        email=email,
        next=next,
        has_issuer=has_issuer,
    )
    if cookie is not None:
        answer.set_cookie(cookie)
    return answer


async def _link_form(
    request: Request[Any, Any, Any],
    link: links.OpenLink,
    error: ServerError | None = None,
    *,
    has_issuer: bool,
    email: str = "",
    name: str = "",
) -> Response[Any]:
    csrf_token, cookie = anonymous_form(request)
    answer = await page(
        request,
        "link.html",
        status=_status_of(error),
        headers=_retry_after(error),
        csrf_token=csrf_token,
        errors={error.param or "": error.message} if error else {},
        is_first=link.person_id is None,
        email=email or link.email,
        name=name or link.name,
        min_length=MIN_LENGTH,
        token=request.path_params["token"],
        has_issuer=has_issuer,
    )
    if cookie is not None:
        answer.set_cookie(cookie)
    return answer


async def _gone(request: Request[Any, Any, Any], exc: ServerError) -> Response[Any]:
    status = HTTPStatus.CONFLICT if isinstance(exc, Conflict) else HTTPStatus.NOT_FOUND
    return await page(request, "link_gone.html", status=status, text=exc.message)


def _status_of(error: ServerError | None) -> int:
    match error:
        case None:
            return HTTPStatus.OK
        case Forbidden() | NotFound():
            return HTTPStatus.FORBIDDEN
        case TooMany():
            return HTTPStatus.TOO_MANY_REQUESTS
        case Unavailable():
            return HTTPStatus.SERVICE_UNAVAILABLE
        case _:
            return HTTPStatus.UNPROCESSABLE_ENTITY


def _retry_after(error: ServerError | None) -> dict[str, str]:
    match error:
        case (
            TooMany(retry_after_seconds=float() as seconds)
            | Unavailable(retry_after_seconds=seconds)
        ):
            return {"retry-after": str(max(1, math.ceil(seconds)))}
        case _:
            return {}
