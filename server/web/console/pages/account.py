"""The page "Your account": one's own name, password and sessions."""

from http import HTTPStatus
from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.accounts import service, sessions
from server.accounts.passwords import MIN_LENGTH
from server.accounts.schemas import Viewer
from server.accounts.signing_in import SigningIn
from server.db.session import Database
from server.errors import Invalid, ServerError, TooMany
from server.web.console.forms import address_of, agent_of, browser_name, read_form, see_other
from server.web.console.rendering import page
from server.web.console.session import session_cookie, signed_in

PATH = "/console/account"
DONE = {
    "name": "Your name is changed.",
    "password": "Your password is changed, and all other browsers are signed out.",
    "session": "That browser is signed out.",
    "sessions": "All other browsers are signed out.",
}


class AccountController(Controller):
    """What everybody may change about themselves."""

    include_in_schema = False
    path = PATH
    guards = [signed_in()]  # noqa: RUF012 - Litestar's own

    @get()
    async def show(
        self,
        request: Request[Any, Any, Any],
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """The page."""
        return await _show(request, viewer, database)

    @post("/name")
    async def rename(
        self,
        request: Request[Any, Any, Any],
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Change one's name."""
        form = await read_form(request)
        try:
            async with database.transaction() as session:
                await service.rename(session, viewer.person_id, form.get("name", ""))
        except Invalid as exc:
            return await _show(request, viewer, database, {"name": exc.message})
        return _done("name")

    @post("/password")
    async def change_password(
        self,
        request: Request[Any, Any, Any],
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        signing_in: NamedDependency[SigningIn],
    ) -> Response[Any]:
        """Change one's password; this browser gets a new session, all others are signed out."""
        form = await read_form(request)
        try:
            token = await signing_in.change_password(
                viewer.person_id,
                current=form.get("current", ""),
                new=form.get("password", ""),
                address=address_of(request),
                agent=agent_of(request),
            )
        except Invalid as exc:
            return await _show(request, viewer, database, {exc.param or "": exc.message})
        except TooMany as exc:
            return await _show(request, viewer, database, {"current": exc.message}, status_of(exc))
        answer = _done("password")
        answer.set_cookie(session_cookie(request, token))
        return answer

    @post("/sign-out-others")
    async def sign_out_others(
        self, viewer: NamedDependency[Viewer], database: NamedDependency[Database]
    ) -> Response[Any]:
        """Sign all other browsers out."""
        async with database.transaction() as session:
            await service.sign_out(session, viewer.person_id, but=viewer.session_id)
        return _done("sessions")

    @post("/sessions/{session_id:str}/end")
    async def sign_out_one(
        self,
        session_id: FromPath[str],
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Sign one of one's browsers out."""
        async with database.transaction() as session:
            await sessions.end(session, session_id, person_id=viewer.person_id)
        return _done("session")


def status_of(exc: ServerError) -> int:
    """The status of a page that comes back with what was wrong."""
    if isinstance(exc, TooMany):
        return HTTPStatus.TOO_MANY_REQUESTS
    return HTTPStatus.UNPROCESSABLE_ENTITY


async def _show(
    request: Request[Any, Any, Any],
    viewer: Viewer,
    database: Database,
    errors: dict[str, str] | None = None,
    status: int | None = None,
) -> Response[Any]:
    async with database.reading() as session:
        person = await service.view_of(session, viewer.person_id)
        own = await sessions.list_for(session, viewer.person_id)
    return await page(
        request,
        "account.html",
        status=status or (HTTPStatus.UNPROCESSABLE_ENTITY if errors else HTTPStatus.OK),
        person=person,
        sessions=[(row, browser_name(row.agent)) for row in own],
        errors=errors or {},
        done=DONE.get(request.query_params.get("done", ""), ""),
        min_length=MIN_LENGTH,
    )


def _done(what: str) -> Response[Any]:
    return see_other(f"{PATH}?done={what}")
