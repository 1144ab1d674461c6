"""``tenantune widget``."""

import rich_click as click

from server.cli.console import (
    App,
    command,
    json_option,
    overlap_option,
    print_json,
    print_message,
    print_secret,
    print_table,
    tenant_option,
)
from server.conversations import retention, widgets
from server.conversations.widgets import Site
from server.webhooks.vault import Vault


@click.group()
def widget() -> None:
    """The chat that a tenant's own site shows: one line of HTML, and where it may stand."""


@widget.command("enable")
@tenant_option
@command
async def enable(app: App, tenant: str) -> None:
    """Switch the widget on; standard output has the line of HTML for the site."""
    vault = await _vault(app)
    async with app.transaction() as session:
        await widgets.enable(session, tenant, vault=vault)
        site = await widgets.get(session, tenant)
    print(_snippet(app, site))
    if not site.widget.origins:
        print_message(
            "it is shown on this machine alone (localhost) until a site is allowed: "
            f"tenantune widget origins add https://shop.example.com --tenant {tenant}"
        )


@widget.command("disable")
@tenant_option
@command
async def disable(app: App, tenant: str) -> None:
    """Switch it off; sites show nothing from then on. Conversations are kept."""
    async with app.transaction() as session:
        await widgets.disable(session, tenant)
    print_message(f"the widget of {tenant} is off")


@widget.command("show")
@tenant_option
@json_option
@command
async def show(app: App, tenant: str, *, as_json: bool) -> None:
    """What it is, the line of HTML, and the sites that asked for it in vain."""
    async with app.database.reading() as session:
        site = await widgets.get(session, tenant)
        refused = await retention.refused(session, site)
    view, line = widgets.view(site), _snippet(app, site)
    if as_json:
        print_json({"snippet": line, "widget": view, "refused_origins": refused})
        return
    rows = [
        ("state", "on" if view.enabled else "off"),
        ("snippet", line),
        ("name", view.name),
        ("origins", " ".join(view.origins) or "none"),
        ("localhost", "allowed" if view.allow_localhost else "refused"),
        ("colour", f"{view.theme.given}, shown as {view.theme.light.colour} (light), "
         f"{view.theme.dark.colour} (dark)"),
        ("language", view.language or "the page's"),
        ("kept", f"{view.keep_days} days"),
        ("identity secret", view.identity_secret_hint or "none"),
        *(("refused", f"{each.origin}, last at {each.last_at:%Y-%m-%d %H:%M} UTC") for each in refused),
    ]  # fmt: skip
    print_table(f"Widget of {tenant}", ("", "value"), rows)


@widget.group("origins")
def origins() -> None:
    """The sites that may show it, as https://shop.example.com; https://*.example.com for subdomains."""


@origins.command("add")
@click.argument("origin")
@tenant_option
@command
async def add_origin(app: App, origin: str, tenant: str) -> None:
    """Allow a site."""
    async with app.transaction() as session:
        kept = await widgets.add_origin(session, tenant, origin)
    print_message(f"{kept} may show the widget of {tenant}")


@origins.command("remove")
@click.argument("origin")
@tenant_option
@command
async def remove_origin(app: App, origin: str, tenant: str) -> None:
    """Allow a site no more; pages that are open go on until they are loaded again."""
    async with app.transaction() as session:
        kept = await widgets.remove_origin(session, tenant, origin)
    print_message(f"{kept} may not show the widget of {tenant} any more")


@widget.group("secret")
def secret() -> None:
    """What the tenant's own server signs with, to say who a visitor is."""


@secret.command("rotate")
@tenant_option
@overlap_option("How long tokens that the old secret signed are taken too.")
@json_option
@command
async def rotate_secret(app: App, tenant: str, overlap: int, *, as_json: bool) -> None:
    """Make a secret, or a new one; standard output has it and nothing else."""
    vault = await _vault(app)
    async with app.transaction() as session:
        made = await widgets.rotate_secret(session, tenant, overlap_seconds=overlap, vault=vault)
    print_secret(made, {"secret": made}, hint="it cannot be shown again", as_json=as_json)


@secret.command("forget")
@tenant_option
@command
async def forget_secrets(app: App, tenant: str) -> None:
    """Remove its secrets, when the key that encrypted them is lost; `widget enable` makes new ones."""
    async with app.transaction() as session:
        await widgets.forget_secrets(session, tenant)
    print_message(f"the secrets of the widget of {tenant} are gone; it is off until you enable it")


def _snippet(app: App, site: Site) -> str:
    return widgets.snippet(site, server_url=app.settings.public_url or app.settings.own_url)


async def _vault(app: App) -> Vault:
    vault = Vault(app.settings)
    await vault.open(app.database)
    return vault
