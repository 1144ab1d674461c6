"""The page "People": who may sign in, and what they may do. For operators."""

from http import HTTPStatus
from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts import links, service, sessions
from server.accounts.schemas import ROLES
from server.db.models import Role
from server.db.session import Database
from server.errors import Conflict, Invalid, NotFound, ServerError
from server.settings import Settings
from server.tenants import service as tenants
from server.web.console.downloads import csv_file
from server.web.console.forms import browser_name, read_form, see_other
from server.web.console.pages.account import status_of
from server.web.console.rendering import page
from server.web.console.session import signed_in

PATH = "/console/people"
OPERATOR_CHOICE = "*"  # no slug
DONE = {
    "role": "The role is changed. The person signs in again and then has it.",
    "operator": "Changed. The person signs in again, and it holds.",
    "sessions": "The person is signed out everywhere.",
    "disabled": "The person is signed out and cannot sign in any more.",
    "enabled": "The person may sign in again.",
}
ROLE_TEXTS: dict[Role, str] = {
    "viewer": "Viewer: reads everything of the tenant",
    "reviewer": "Reviewer: also votes, corrects and answers",
    "admin": "Admin: also uploads, trains, releases, changes settings and keys",
}


class PeopleController(Controller):
    """Everybody who may sign in."""

    include_in_schema = False
    path = PATH
    guards = [signed_in("operator")]  # noqa: RUF012 - Litestar's own

    @get()
    async def list_people(
        self, request: Request[Any, Any, Any], database: NamedDependency[Database]
    ) -> Response[Any]:
        """Everybody, by e-mail address."""
        async with database.reading() as session:
            people = await service.list_all(session)
        return await page(request, "people/list.html", people=people)

    @get("/people.csv")
    async def csv(self, database: NamedDependency[Database]) -> Response[bytes]:
        """Everybody, a line each."""
        async with database.reading() as session:
            people = await service.list_all(session)
        return csv_file(service.to_csv(people), "people.csv")

    @get("/new")
    async def new(
        self, request: Request[Any, Any, Any], database: NamedDependency[Database]
    ) -> Response[Any]:
        """The form for an invitation."""
        return await _new(request, database)

    @post()
    async def invite(
        self,
        request: Request[Any, Any, Any],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Add a person; the page shows their link, this once."""
        form = await read_form(request)
        token = None
        try:
            async with database.transaction() as session:
                slug = form.get("tenant", "")
                is_operator = slug == OPERATOR_CHOICE
                tenant = None if is_operator or not slug else await tenants.get(session, slug)
                person = await service.invite(
                    session,
                    form.get("email", ""),
                    name=form.get("name", ""),
                    is_operator=is_operator,
                    tenant=tenant,
                    role=_role(form.get("role", "")) or "viewer",
                )
                view = await service.view(session, person)
                if view.state == "invited":
                    token = await links.make(session, person, valid=links.INVITATION)
        except (Invalid, Conflict, NotFound) as exc:
            field = exc.param or ("tenant" if isinstance(exc, NotFound) else "email")
            return await _new(request, database, form, {field: exc.message}, exc)
        if token is None:
            return _to(person.id, "role")
        return await page(
            request,
            "people/link.html",
            status=HTTPStatus.CREATED,
            person=view,
            url=links.url_of(settings, token),
            valid="three days",
        )

    @get("/{person_id:str}")
    async def show(
        self,
        request: Request[Any, Any, Any],
        person_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """One person."""
        return await _show(request, database, person_id)

    @post("/{person_id:str}/role")
    async def set_role(
        self,
        request: Request[Any, Any, Any],
        person_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Give or take a role in a tenant."""
        form = await read_form(request)
        async with database.transaction() as session:
            person = await service.get(session, person_id)
            tenant = await tenants.get(session, form.get("tenant", ""))
            await service.set_role(session, person, tenant, _role(form.get("role", "")))
        return _to(person_id, "role")

    @post("/{person_id:str}/operator")
    async def set_operator(
        self,
        request: Request[Any, Any, Any],
        person_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Make a person an operator, or no longer one."""
        to = (await read_form(request)).get("to") == "yes"
        try:
            async with database.transaction() as session:
                person = await service.get(session, person_id)
                await service.set_operator(session, person, to=to)
        except Conflict as exc:
            return await _show(request, database, person_id, exc)
        return _to(person_id, "operator")

    @post("/{person_id:str}/link")
    async def make_link(
        self,
        request: Request[Any, Any, Any],
        person_id: FromPath[str],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """A link for somebody who lost their password, or their first one."""
        try:
            async with database.transaction() as session:
                person = await service.get(session, person_id)
                view = await service.view(session, person)
                invited = view.state == "invited"
                valid = links.INVITATION if invited else links.LOST_PASSWORD
                token = await links.make(session, person, valid=valid)
        except Conflict as exc:
            return await _show(request, database, person_id, exc)
        return await page(
            request,
            "people/link.html",
            status=HTTPStatus.CREATED,
            person=view,
            url=links.url_of(settings, token),
            valid="three days" if invited else "30 minutes",
        )

    @post("/{person_id:str}/sign-out")
    async def sign_out(
        self, person_id: FromPath[str], database: NamedDependency[Database]
    ) -> Response[Any]:
        """Sign a person out everywhere."""
        async with database.transaction() as session:
            await service.sign_out(session, person_id)
        return _to(person_id, "sessions")

    @post("/{person_id:str}/disable")
    async def disable(
        self,
        request: Request[Any, Any, Any],
        person_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Keep a person out."""
        try:
            async with database.transaction() as session:
                person = await service.get(session, person_id)
                await service.set_disabled(session, person, to=True)
        except Conflict as exc:
            return await _show(request, database, person_id, exc)
        return _to(person_id, "disabled")

    @post("/{person_id:str}/enable")
    async def enable(
        self, person_id: FromPath[str], database: NamedDependency[Database]
    ) -> Response[Any]:
        """Let a person in again."""
        async with database.transaction() as session:
            await service.set_disabled(session, await service.get(session, person_id), to=False)
        return _to(person_id, "enabled")


def _role(text: str) -> Role | None:
    return next((role for role in ROLES if role == text), None)


async def _choices(session: AsyncSession) -> list[dict[str, str]]:
    return [
        {"value": tenant.slug, "name": f"{tenant.name} ({tenant.slug})"}
        for tenant in await tenants.list_all(session)
    ]


async def _new(
    request: Request[Any, Any, Any],
    database: Database,
    form: dict[str, str] | None = None,
    errors: dict[str, str] | None = None,
    exc: ServerError | None = None,
) -> Response[Any]:
    async with database.reading() as session:
        choices = await _choices(session)
    return await page(
        request,
        "people/new.html",
        status=status_of(exc) if exc else HTTPStatus.OK,
        choices=[*choices, {"value": OPERATOR_CHOICE, "name": "All tenants, as an operator"}],
        roles=[{"value": role, "name": ROLE_TEXTS[role]} for role in ROLES],
        form=form or {},
        errors=errors or {},
    )


async def _show(
    request: Request[Any, Any, Any],
    database: Database,
    person_id: str,
    exc: ServerError | None = None,
) -> Response[Any]:
    async with database.reading() as session:
        person = await service.view_of(session, person_id)
        own = await sessions.list_for(session, person_id)
        choices = await _choices(session)
    taken = {membership.slug for membership in person.memberships}
    return await page(
        request,
        "people/person.html",
        status=HTTPStatus.CONFLICT if exc else HTTPStatus.OK,
        person=person,
        sessions=[(row, browser_name(row.agent)) for row in own],
        choices=[choice for choice in choices if choice["value"] not in taken],
        roles=[{"value": role, "name": ROLE_TEXTS[role]} for role in ROLES],
        errors={"": exc.message} if exc else {},
        done=DONE.get(request.query_params.get("done", ""), ""),
    )


def _to(person_id: str, done: str) -> Response[Any]:
    return see_other(f"{PATH}/{person_id}?done={done}")
