"""``tenantune people``."""

import rich_click as click

from server.accounts import links, service
from server.accounts.schemas import ROLES, PersonView
from server.cli.console import (
    EXIT_USAGE,
    App,
    command,
    fail,
    json_option,
    print_json,
    print_message,
    print_secret,
    print_table,
)
from server.db.models import Role
from server.tenants import service as tenants

tenant_role_option = click.option(
    "--role",
    type=click.Choice(ROLES),
    default="viewer",
    show_default=True,
    help="What the person may do in the tenant; each includes those before it.",
)


@click.group()
def people() -> None:
    """Who may sign in to the console."""


@people.command("invite")
@click.argument("email")
@click.option("--name", default="", help="How the console calls the person.")
@click.option("--operator", is_flag=True, help="May do everything for every tenant.")
@click.option("--tenant", metavar="SLUG", help="Has a role in this tenant.")
@tenant_role_option
@json_option
@command
async def invite(
    app: App,
    email: str,
    name: str,
    operator: bool,
    tenant: str | None,
    role: Role,
    *,
    as_json: bool,
) -> None:
    """Add a person, or give one a further role; standard output has the one-time link.

    Somebody who can sign in already needs no link, and gets none.
    """
    if not operator and tenant is None:
        fail("give --tenant SLUG, --operator or both", code=EXIT_USAGE)
    async with app.transaction() as session:
        owner = await tenants.get(session, tenant) if tenant else None
        person = await service.invite(
            session, email, name=name, is_operator=operator, tenant=owner, role=role
        )
        view = await service.view(session, person)
        token = None
        if view.state == "invited":
            token = await links.make(session, person, valid=links.INVITATION)
    if token is None:
        print_json({"url": None, "person": view}) if as_json else print_message(
            (view.email, "bold"), " can sign in already and has the role from now on"
        )
        return
    _print_link(app, token, view, valid="three days", as_json=as_json)


@people.command("list")
@json_option
@command
async def list_people(app: App, *, as_json: bool) -> None:
    """Everybody, with their roles."""
    async with app.database.reading() as session:
        views = await service.list_all(session)
    if as_json:
        print_json(views)
        return
    rows = [(v.email, v.name, _roles(v), v.state, v.sessions, v.seen_at) for v in views]
    print_table("People", ("e-mail", "name", "may", "state", "sessions", "last seen"), rows)


@people.command("link")
@click.argument("email")
@json_option
@command
async def make_link(app: App, email: str, *, as_json: bool) -> None:
    """A one-time link for somebody who lost their password; standard output has it alone."""
    async with app.transaction() as session:
        person = await service.get_by_email(session, email)
        token = await links.make(session, person, valid=links.LOST_PASSWORD)
        view = await service.view(session, person)
    _print_link(app, token, view, valid="30 minutes", as_json=as_json)


@people.command("disable")
@click.argument("email")
@command
async def disable(app: App, email: str) -> None:
    """Keep a person out: sessions and links end at once."""
    async with app.transaction() as session:
        person = await service.get_by_email(session, email)
        await service.set_disabled(session, person, to=True)
    print_message(f"{person.email} is disabled and signed out everywhere")


@people.command("enable")
@click.argument("email")
@command
async def enable(app: App, email: str) -> None:
    """Let a disabled person in again, with the roles they had."""
    async with app.transaction() as session:
        person = await service.get_by_email(session, email)
        await service.set_disabled(session, person, to=False)
    print_message(f"{person.email} may sign in again")


@people.command("sign-out")
@click.argument("email")
@command
async def sign_out(app: App, email: str) -> None:
    """End all sessions of a person."""
    async with app.transaction() as session:
        person = await service.get_by_email(session, email)
        ended = await service.sign_out(session, person.id)
    print_message(f"{person.email}: {ended} sessions ended")


def _print_link(app: App, token: str, view: PersonView, *, valid: str, as_json: bool) -> None:
    url = links.url_of(app.settings, token)
    hint = f"for {view.email}; it works once, for {valid}"
    print_secret(url, {"url": url, "person": view}, hint=hint, as_json=as_json)


def _roles(person: PersonView) -> str:
    roles = ["operator"] if person.is_operator else []
    return ",".join([*roles, *(f"{one.slug}:{one.role}" for one in person.memberships)])
