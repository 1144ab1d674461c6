"""Who is signed in: from a cookie to a ``Viewer``, and guards for the console's handlers.

    class TrainingController(Controller):
        path = "/console/t/{slug:str}/training"
        guards = [signed_in("viewer")]
        dependencies = {"viewer": Provide(provide_viewer, sync_to_thread=False), ...}

A guard refuses what another site's page sent (``Sec-Fetch-Site``, or ``Origin`` where a browser does not
send that), and a form without the token of its session. A form sends the token in the field
``csrf_token``, a script in the header ``x-csrf-token``. A form with files, whose body a guard must
not read, sends it in the header, or without a script in its address: ``?csrf_token=``.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.enums import RequestEncodingType
from litestar.handlers import BaseRouteHandler

from server.accounts import sessions
from server.accounts.schemas import Viewer
from server.accounts.tokens import form_token, new_token
from server.audit import actors
from server.db.models import Role, Tenant
from server.db.session import Database
from server.errors import Forbidden, NotFound
from server.settings import Settings
from server.tenants import service as tenants

AnyConnection = ASGIConnection[Any, Any, Any, Any]
Guard = Callable[[AnyConnection, BaseRouteHandler], Awaitable[None]]

SIGN_IN = "/console/sign-in"
COOKIE = "tt"
FORM_COOKIE = "tt-form"  # of a browser that is not signed in: ties its forms to it
FORM_FIELD = "csrf_token"
FORM_HEADER = "x-csrf-token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_NEXT = 1000  # characters of an address to go on to


class SignInRequired(Exception):
    """Nobody is signed in, and the page is for people who are."""


def signed_in(role: Role | Literal["operator"] | None = None) -> Guard:
    """A guard: somebody is signed in, and has ``role`` in the tenant of the path's ``{slug}``.

    Sets ``state["viewer"]``, and ``state["tenant"]`` where the path has a slug. A tenant in which the
    person has no role answers like one that does not exist. With None everyone who is signed in
    may pass, and in a tenant everyone who has a role in it.

    Raises:
        SignInRequired: nobody is signed in.
        NotFound: there is no such tenant for this person.
        Forbidden: the role is missing, or the request did not come from a page of this console.
    """

    async def guard(connection: AnyConnection, _handler: BaseRouteHandler) -> None:
        token = session_token(connection)
        database: Database = connection.app.state.database
        viewer = await _find(database, token) if token else None
        unsafe = connection.scope.get("method") not in SAFE_METHODS
        if unsafe:
            refuse_other_sites(connection)
        if viewer is None:
            raise SignInRequired
        if unsafe:
            await require_form_token(connection, viewer.csrf_token)
        connection.state["viewer"] = viewer
        actors.act_as(
            actors.person(
                viewer.person_id,
                name=viewer.name,
                email=viewer.email,
                is_operator=viewer.is_operator,
            )
        )
        slug = connection.path_params.get("slug")
        if slug is not None:
            connection.state["tenant"] = await _tenant(database, viewer, str(slug), role)
        elif role not in (None, "operator"):
            raise RuntimeError(f"signed_in({role!r}) needs a path with {{slug}}")
        if role == "operator" and not viewer.is_operator:
            raise Forbidden("This page is for operators of the installation.")

    guard.role = role  # type: ignore[attr-defined] # for the test that walks over all pages
    return guard


def provide_viewer(request: Request[Any, Any, Any]) -> Viewer:
    """The person that a guard has let in."""
    viewer: Viewer = request.state["viewer"]
    return viewer


def provide_tenant(request: Request[Any, Any, Any]) -> Tenant:
    """The tenant of the path, which a guard has looked up."""
    tenant: Tenant = request.state["tenant"]
    return tenant


async def may_still_read(connection: AnyConnection) -> bool:
    """Whether whom the guard let in is still signed in, and still has a role in the path's tenant.

    For answers that stay open, which a guard sees only begin. It does not count as being seen.
    """
    database: Database = connection.app.state.database
    async with database.reading() as session:
        found = await sessions.find(session, session_token(connection))
    return found is not None and found[0].may(connection.state["tenant"].id, "viewer")


def ask_to_sign_in(request: Request[Any, Any, Any], _exc: SignInRequired) -> Response[bytes]:
    """The exception handler for ``SignInRequired``: go to the sign-in page, and back afterwards."""
    page = request.url.path if request.method in ("GET", "HEAD") else ""
    if request.headers.get("hx-request"):  # a part of the page that the browser shows
        page = urlsplit(request.headers.get("hx-current-url", "")).path
        headers = {"hx-redirect": _sign_in_url(page)}
        return Response(b"", status_code=401, headers=headers)
    if page and request.url.query:
        page += f"?{request.url.query}"
    return Response(b"", status_code=303, headers={"location": _sign_in_url(page)})


def safe_next(target: str) -> str:
    """Where to go after signing in: a page of this console, whatever the link said."""
    bad = not target.startswith("/console") or len(target) > MAX_NEXT
    if bad or any(character in target for character in "\\\r\n\t") or "//" in target:
        return "/console"
    rest = target.removeprefix("/console")
    return target if rest[:1] in ("", "/", "?") else "/console"


def own_origin(connection: AnyConnection) -> str:
    """The origin of this server's pages, as browsers name it."""
    settings: Settings = connection.app.state.settings
    if settings.public_url:
        return settings.public_url.rstrip("/").lower()
    return f"{connection.url.scheme}://{connection.headers.get('host', '').lower()}"


def cookie_name(connection: AnyConnection, name: str) -> str:
    """The cookie's full name: ``__Host-`` keeps other hosts of the domain from setting it.

    Browsers take that name with https only.
    """
    return f"__Host-{name}" if own_origin(connection).startswith("https:") else name


def session_token(connection: AnyConnection) -> str:
    """What the cookie of a browser that is signed in holds; else an empty text."""
    return connection.cookies.get(cookie_name(connection, COOKIE), "")


def session_cookie(connection: AnyConnection, token: str) -> Cookie:
    """The cookie that keeps a browser signed in; an empty token removes it."""
    seconds = round(sessions.LONGEST.total_seconds()) if token else 0
    return make_cookie(connection, COOKIE, token, max_age=seconds)


def make_cookie(
    connection: AnyConnection, name: str, value: str, *, max_age: int | None = None
) -> Cookie:
    """A cookie that no script can read, and that other sites' forms do not carry."""
    return Cookie(
        key=cookie_name(connection, name),
        value=value,
        max_age=max_age,
        path="/",
        secure=own_origin(connection).startswith("https:"),
        httponly=True,
        samesite="lax",
    )


def refuse_other_sites(connection: AnyConnection) -> None:
    """Refuse what a page of another origin made the browser send.

    Raises:
        Forbidden: the browser says so, or does not say where the request is from.
    """
    site = connection.headers.get("sec-fetch-site")
    if site is not None:
        if site == "same-origin":
            return
    elif connection.headers.get("origin", "").lower() == own_origin(connection):
        return
    raise Forbidden(
        "This request did not come from a page of this console. Open the page again and repeat it "
        "there. If that does not help, TENANTUNE_PUBLIC_URL must name the address in the browser.",
        code="other_site",
    )


async def require_form_token(connection: AnyConnection, expected: str) -> None:
    """Refuse a form that was not made for this browser.

    Raises:
        Forbidden: its token is missing or another's.
    """
    given = connection.headers.get(FORM_HEADER)
    if given is None and isinstance(connection, Request):
        kind = connection.content_type[0]
        if kind == RequestEncodingType.URL_ENCODED:
            given = (await connection.form()).get(FORM_FIELD)
        elif kind == RequestEncodingType.MULTI_PART:
            given = connection.query_params.get(FORM_FIELD)
    if not hmac.compare_digest(str(given or "").encode(), expected.encode()):
        raise Forbidden(
            "This form is out of date: open the page again and repeat what you did.",
            code="form_expired",
        )


def anonymous_form(connection: AnyConnection) -> tuple[str, Cookie | None]:
    """The token for a form of a browser that is not signed in, and the cookie to set for it."""
    known = connection.cookies.get(cookie_name(connection, FORM_COOKIE))
    if known:
        return form_token(known), None
    made = new_token("")
    return form_token(made), make_cookie(connection, FORM_COOKIE, made)


async def from_anonymous_form(connection: AnyConnection, _handler: BaseRouteHandler) -> None:
    """A guard for what nobody needs to be signed in for: forms are this site's and this browser's.

    Raises:
        Forbidden: one is not.
    """
    if connection.scope.get("method") in SAFE_METHODS:
        return
    refuse_other_sites(connection)
    known = connection.cookies.get(cookie_name(connection, FORM_COOKIE), "")
    await require_form_token(connection, form_token(known) if known else new_token(""))


async def _find(database: Database, token: str) -> Viewer | None:
    async with database.reading() as session:
        found = await sessions.find(session, token)
    if found is None:
        return None
    viewer, due = found
    if due:
        async with database.transaction() as session:
            await sessions.mark_seen(session, viewer.session_id)
    return viewer


async def _tenant(
    database: Database, viewer: Viewer, slug: str, role: Role | Literal["operator"] | None
) -> Tenant:
    async with database.reading() as session:
        tenant = await tenants.get(session, slug)
    if not viewer.may(tenant.id, "viewer"):
        raise NotFound(f"There is no tenant '{slug}'.", code="tenant_not_found")
    if role is not None and role != "operator" and not viewer.may(tenant.id, role):
        raise Forbidden(f"This needs the role '{role}' in this tenant; ask one of its admins.")
    return tenant


def _sign_in_url(page: str) -> str:
    target = safe_next(page)
    return SIGN_IN if target == "/console" else f"{SIGN_IN}?next={quote(target)}"
