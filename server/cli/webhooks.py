"""``tenantune webhooks``."""

import asyncio

import rich_click as click

from server.cli.console import (
    EXIT_FAILED,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    App,
    command,
    fail,
    json_option,
    overlap_option,
    print_json,
    print_message,
    print_secret,
    print_table,
    tenant_option,
)
from server.cli.options import convert_options
from server.db.models import WebhookEndpoint
from server.webhooks import service
from server.webhooks.schemas import EVENT_TYPES, EventType, WebhookPatch, WebhookRequest
from server.webhooks.vault import Vault

TEST_SECONDS = 30  # a server looks every second and waits 15 for an answer

events_option = click.option(
    "--event", "events", multiple=True, type=click.Choice(EVENT_TYPES), help="Of these; else all."
)


@click.group()
def webhooks() -> None:
    """Where tenants hear of events: signed as Standard Webhooks, tried again until taken."""


@webhooks.command("create")
@click.argument("url")
@tenant_option
@events_option
@json_option
@command
async def create(
    app: App, url: str, tenant: str, events: tuple[EventType, ...], *, as_json: bool
) -> None:
    """Add an endpoint; standard output has its secret and nothing else."""
    request = convert_options(WebhookRequest, {"url": url, "events": events or EVENT_TYPES})
    private = app.settings.webhook_private
    vault = await _vault(app)
    async with app.transaction() as session:
        row = await service.create(session, request, slug=tenant, private=private, vault=vault)
    _print_secret(row, vault, as_json=as_json)


@webhooks.command("list")
@tenant_option
@json_option
@command
async def list_webhooks(app: App, tenant: str, *, as_json: bool) -> None:
    """Endpoints without their secrets."""
    async with app.database.reading() as session:
        views = [service.view(row) for row in await service.list_for(session, tenant)]
    if as_json:
        print_json(views)
        return
    rows = [(v.id, v.url, ",".join(v.events), "on" if v.enabled else "off") for v in views]
    print_table("Webhooks", ("id", "url", "events", "state"), rows)


@webhooks.command("update")
@click.argument("webhook_id")
@tenant_option
@click.option("--url", help="Send there from now on.")
@events_option
@click.option("--enable/--disable", "enabled", default=None, help="Switch it on or off.")
@json_option
@command
async def update(
    app: App,
    webhook_id: str,
    tenant: str,
    url: str | None,
    events: tuple[EventType, ...],
    *,
    enabled: bool | None,
    as_json: bool,
) -> None:
    """Change what is given."""
    given = {"url": url, "events": events or None, "enabled": enabled}
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        fail("nothing to change: give --url, --event, --enable or --disable", code=EXIT_USAGE)
    patch = convert_options(WebhookPatch, changes, names={"url": "--url"})
    private = app.settings.webhook_private
    async with app.transaction() as session:
        row = await service.update(session, webhook_id, patch, slug=tenant, private=private)
        view = service.view(row)
    print_json(view) if as_json else print_message(f"webhook {webhook_id} changed")


@webhooks.command("delete")
@click.argument("webhook_id")
@tenant_option
@command
async def delete(app: App, webhook_id: str, tenant: str) -> None:
    """Remove an endpoint and what waits for it."""
    async with app.transaction() as session:
        await service.delete(session, webhook_id, slug=tenant)
    print_message(f"webhook {webhook_id} deleted")


@webhooks.command("rotate-secret")
@click.argument("webhook_id")
@tenant_option
@overlap_option("How long the old secret signs too.")
@json_option
@command
async def rotate_secret(
    app: App, webhook_id: str, tenant: str, overlap: int, *, as_json: bool
) -> None:
    """Give it a new secret; standard output has the secret and nothing else."""
    vault = await _vault(app)
    async with app.transaction() as session:
        row = await service.rotate_secret(
            session, webhook_id, slug=tenant, overlap_seconds=overlap, vault=vault
        )
    _print_secret(row, vault, as_json=as_json)


@webhooks.command("deliveries")
@click.argument("webhook_id")
@tenant_option
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@json_option
@command
async def deliveries(app: App, webhook_id: str, tenant: str, limit: int, *, as_json: bool) -> None:
    """The last events for an endpoint and what became of them."""
    async with app.database.reading() as session:
        rows = await service.deliveries(session, webhook_id, slug=tenant, limit=limit)
        views = [service.view_delivery(row) for row in rows]
    if as_json:
        print_json(views)
        return
    cells = [
        (v.id, v.event["type"], v.state, v.attempts, v.due_at or v.delivered_at, v.error)
        for v in views
    ]
    print_table("Deliveries", ("id", "event", "state", "attempts", "when", "error"), cells)


@webhooks.command("redeliver")
@click.argument("webhook_id")
@click.argument("delivery_id")
@tenant_option
@command
async def redeliver(app: App, webhook_id: str, delivery_id: str, tenant: str) -> None:
    """Send an event again, with the same id."""
    async with app.transaction() as session:
        await service.redeliver(session, webhook_id, delivery_id, slug=tenant)
    print_message(f"delivery {delivery_id} is due; the server sends it")


@webhooks.command("test")
@click.argument("webhook_id")
@tenant_option
@json_option
@command
async def test(app: App, webhook_id: str, tenant: str, *, as_json: bool) -> None:
    """Have the running server send an event, once, and tell what came of it."""
    async with app.transaction() as session:
        row = await service.send_test(session, webhook_id, slug=tenant)
    for _ in range(TEST_SECONDS * 2):
        await asyncio.sleep(0.5)
        async with app.database.reading() as session:
            row = await service.get_delivery(session, webhook_id, row.id, slug=tenant)
        if row.state != "pending":
            break
    if as_json:
        print_json(service.view_delivery(row))
    if row.state == "pending":
        fail("nothing was sent: is a server running? See `tenantune up`.", code=EXIT_UNAVAILABLE)
    if row.state == "failed":
        fail(row.error or "it failed", code=EXIT_FAILED)
    print_message("delivered")


async def _vault(app: App) -> Vault:
    vault = Vault(app.settings)
    await vault.open(app.database)
    return vault


def _print_secret(row: WebhookEndpoint, vault: Vault, *, as_json: bool) -> None:
    secret = vault.unseal(row.secret)
    document = {"secret": secret, "details": service.view(row)}
    hint = f"webhook {row.id}; the secret cannot be shown again"
    print_secret(secret, document, hint=hint, as_json=as_json)
