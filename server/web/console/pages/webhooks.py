"""Webhooks: where a tenant's events are sent, and what became of each.

A secret is shown once, on the page that answers the form. What is sent and tried again is the
dispatcher's; a page only asks for it.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from server.db.models import Tenant, WebhookEndpoint
from server.db.session import Database
from server.errors import Conflict, Invalid, ServerError, TooMany
from server.settings import Settings
from server.web.console.downloads import csv_file, csv_of_all
from server.web.console.forms import read_form, see_other
from server.web.console.rendering import page
from server.web.console.session import signed_in
from server.webhooks import listing, service
from server.webhooks.dispatcher import KEPT
from server.webhooks.schemas import (
    EVENT_TEXTS,
    EVENT_TYPES,
    EventType,
    WebhookPatch,
    WebhookRequest,
)
from server.webhooks.vault import Vault

OVERLAPS = {
    "0": "Not at all: the old one is known to others",
    "3600": "An hour",
    "86400": "A day",
    "604800": "A week",
}
DEFAULT_OVERLAP = "86400"
DONE = {
    "saved": "Saved. Events that wait go to this address too.",
    "on": "Events are sent again.",
    "off": "Nothing is sent any more. Events of the meantime are not kept.",
    "test": "A test is on its way: what becomes of it stands below.",
    "again": "It is sent again, with the same id.",
    "deleted": "The webhook is deleted.",
}
_MAX_URL = 2048  # characters, as WebhookRequest's


class HookForm(NamedTuple):
    """What is in the form: the address, the chosen events, and ``errors`` by field's id."""

    url: str
    events: frozenset[str]
    errors: dict[str, str]


NEW = HookForm("", frozenset(EVENT_TYPES), {})


class WebhooksController(Controller):
    """A tenant's webhooks, for its admins."""

    include_in_schema = False
    path = "/console/t/{slug:str}/webhooks"
    guards = (signed_in("admin"),)

    @get()
    async def list_(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
        done: FromQuery[str] = "",
    ) -> Response[str]:
        """The endpoints, each with its last delivery."""
        async with database.reading() as session:
            rows = await listing.list_endpoints(session, tenant)
        return await page(
            request,
            "webhooks/list.html",
            rows=rows,
            base=_path(tenant),
            event_count=len(EVENT_TYPES),
            texts=EVENT_TEXTS,
            most=service.MAX_ENDPOINTS,
            done=DONE["deleted"] if done == "deleted" else "",
        )

    @get("/new")
    async def new(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        settings: NamedDependency[Settings],
    ) -> Response[str]:
        """The form for another endpoint."""
        return await _form_page(request, tenant, settings, NEW)

    @post()
    async def create(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        vault: NamedDependency[Vault],
    ) -> Response[str]:
        """Add an endpoint and show its secret, this once; or show the form with what is wrong."""
        form = _read(await read_form(request))
        if form.errors:
            return await _form_page(request, tenant, settings, form)
        asked = msgspec.convert({"url": form.url, "events": sorted(form.events)}, WebhookRequest)
        try:
            async with database.transaction() as session:
                row = await service.create(
                    session,
                    asked,
                    slug=tenant.slug,
                    private=settings.webhook_private,
                    vault=vault,
                )
        except (Invalid, Conflict) as exc:
            return await _form_page(request, tenant, settings, _refused(form, exc))
        return await _secret_page(request, tenant, row, vault)

    @get("/webhooks.csv")
    async def csv(
        self, tenant: NamedDependency[Tenant], database: NamedDependency[Database]
    ) -> Response[bytes]:
        """The endpoints, a line each."""
        async with database.reading() as session:
            rows = await listing.list_endpoints(session, tenant)
        return csv_file(listing.endpoints_to_csv(rows), f"{tenant.slug}-webhooks.csv")

    @get("/{hook_id:str}")
    async def read(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        hook_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        after: FromQuery[str | None] = None,
        done: FromQuery[str] = "",
    ) -> Response[str]:
        """One endpoint: its settings, and what was sent to it."""
        return await _hook_page(
            request, tenant, database, settings, hook_id, after=after, done=done
        )

    @post("/{hook_id:str}")
    async def change(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        hook_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Change the address or the events, or show what is wrong with them."""
        form = _read(await read_form(request))
        if form.errors:
            return await _hook_page(request, tenant, database, settings, hook_id, form=form)
        patch = msgspec.convert({"url": form.url, "events": sorted(form.events)}, WebhookPatch)
        try:
            async with database.transaction() as session:
                await service.update(
                    session, hook_id, patch, slug=tenant.slug, private=settings.webhook_private
                )
        except Invalid as exc:
            form = _refused(form, exc)
            return await _hook_page(request, tenant, database, settings, hook_id, form=form)
        return _to(tenant, hook_id, "saved")

    @post("/{hook_id:str}/on")
    async def switch_on(
        self,
        tenant: NamedDependency[Tenant],
        hook_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Send events to it again."""
        await _enable(database, settings, tenant, hook_id, to=True)
        return _to(tenant, hook_id, "on")

    @post("/{hook_id:str}/off")
    async def switch_off(
        self,
        tenant: NamedDependency[Tenant],
        hook_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Send nothing to it any more."""
        await _enable(database, settings, tenant, hook_id, to=False)
        return _to(tenant, hook_id, "off")

    @post("/{hook_id:str}/test")
    async def test(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        hook_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Send a test event, once."""
        try:
            async with database.transaction() as session:
                await service.send_test(session, hook_id, slug=tenant.slug)
        except (Conflict, TooMany) as exc:
            return await _hook_page(request, tenant, database, settings, hook_id, refused=exc)
        return _to(tenant, hook_id, "test", "#deliveries")

    @get("/{hook_id:str}/secret")
    async def ask_for_secret(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        hook_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """Ask how long the old secret signs too, before there is a new one."""
        async with database.reading() as session:
            row = await service.get(session, hook_id, slug=tenant.slug)
        return await page(
            request,
            "webhooks/secret.html",
            hook=service.view(row),
            base=_path(tenant),
            overlaps=[{"value": value, "name": name} for value, name in OVERLAPS.items()],
            overlap=DEFAULT_OVERLAP,
        )

    @post("/{hook_id:str}/secret")
    async def rotate_secret(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        hook_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        vault: NamedDependency[Vault],
    ) -> Response[str]:
        """Make a new secret and show it, this once."""
        overlap = (await read_form(request)).get("overlap", DEFAULT_OVERLAP)
        if overlap not in OVERLAPS:
            raise Invalid("Choose how long the old secret signs too.", param="overlap")
        async with database.transaction() as session:
            row = await service.rotate_secret(
                session, hook_id, slug=tenant.slug, overlap_seconds=int(overlap), vault=vault
            )
        return await _secret_page(request, tenant, row, vault)

    @get("/{hook_id:str}/delete")
    async def ask_to_delete(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        hook_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """Say what goes with it, and ask once more."""
        async with database.reading() as session:
            row = await service.get(session, hook_id, slug=tenant.slug)
            waiting = await listing.count_waiting(session, row)
        return await page(
            request,
            "webhooks/delete.html",
            hook=service.view(row),
            waiting=waiting,
            base=_path(tenant),
        )

    @post("/{hook_id:str}/delete")
    async def delete(
        self,
        tenant: NamedDependency[Tenant],
        hook_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Delete an endpoint, with what was sent to it and what waits."""
        async with database.transaction() as session:
            await service.delete(session, hook_id, slug=tenant.slug)
        return see_other(f"{_path(tenant)}?done=deleted")

    @get("/{hook_id:str}/deliveries.csv")
    async def deliveries_csv(
        self,
        tenant: NamedDependency[Tenant],
        hook_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> Stream:
        """Every delivery that is kept, a line each."""
        async with database.reading() as session:
            row = await service.get(session, hook_id, slug=tenant.slug)
        return await csv_of_all(
            database,
            lambda session, limit, last: listing.list_deliveries(
                session, row, limit=limit, after=last.row_id if last else None
            ),
            listing.deliveries_to_csv,
            f"{tenant.slug}-{hook_id}-deliveries.csv",
        )

    @post("/{hook_id:str}/deliveries/{delivery_id:str}/again")
    async def send_again(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        hook_id: FromPath[str],
        delivery_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Send an event again, with the same id."""
        try:
            async with database.transaction() as session:
                await service.redeliver(session, hook_id, delivery_id, slug=tenant.slug)
        except Conflict as exc:
            return await _hook_page(request, tenant, database, settings, hook_id, refused=exc)
        return _to(tenant, hook_id, "again", "#deliveries")


def _read(fields: Mapping[str, str]) -> HookForm:
    """The form as it was sent, and what is wrong with it at first sight; the service knows the rest."""
    url = fields.get("url", "").strip()
    events = frozenset(event for event in EVENT_TYPES if fields.get(f"event-{event}") == "yes")
    errors: dict[str, str] = {}
    if not url.startswith(("https://", "http://")) or len(url) > _MAX_URL:
        errors["url"] = "Give the whole address, as https://hooks.example.com/tenantune."
    if not events:
        errors["events"] = "Tick the events that it wants: one at least."
    return HookForm(url, events, errors)


def _refused(form: HookForm, exc: ServerError) -> HookForm:
    """The form with what the service said against it."""
    message = exc.message.removeprefix("url: ")
    return form._replace(errors={exc.param or "": message[:1].upper() + message[1:]})


def _choices(form: HookForm) -> list[dict[str, Any]]:
    """The events to tick, with when they are sent."""
    events: tuple[EventType, ...] = EVENT_TYPES
    return [
        {
            "name": f"event-{event}",
            "word": EVENT_TEXTS[event].word,
            "text": f"{EVENT_TEXTS[event].when[:1].upper()}{EVENT_TEXTS[event].when[1:]}: {event}",
            "checked": event in form.events,
        }
        for event in events
    ]


async def _form_page(
    request: Request[Any, Any, Any], tenant: Tenant, settings: Settings, form: HookForm
) -> Response[str]:
    """The form; with errors it is an answer of 422."""
    return await page(
        request,
        "webhooks/new.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if form.errors else HTTPStatus.OK,
        form=form,
        choices=_choices(form),
        private=settings.webhook_private,
        base=_path(tenant),
    )


async def _hook_page(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    database: Database,
    settings: Settings,
    hook_id: str,
    *,
    form: HookForm | None = None,
    refused: ServerError | None = None,
    after: str | None = None,
    done: str = "",
) -> Response[str]:
    """One endpoint; 422 with errors in its form, 409 or 429 where nothing could be sent."""
    async with database.reading() as session:
        row = await service.get(session, hook_id, slug=tenant.slug)
        found = await listing.list_deliveries(session, row, limit=listing.PAGE + 1, after=after)
    form = form or HookForm(row.url, frozenset(row.events), {})
    shown = found[: listing.PAGE]
    status = HTTPStatus.UNPROCESSABLE_ENTITY if form.errors else HTTPStatus.OK
    if refused is not None:
        is_busy = isinstance(refused, TooMany)
        status = HTTPStatus.TOO_MANY_REQUESTS if is_busy else HTTPStatus.CONFLICT
    here = f"{_path(tenant)}/{hook_id}"
    return await page(
        request,
        "webhooks/hook.html",
        status=status,
        hook=service.view(row),
        rows=shown,
        texts=EVENT_TEXTS,
        first_page=after is None,
        here_url=f"{here}?after={after}" if after is not None else here,
        older=f"{here}?after={shown[-1].row_id}" if len(found) > len(shown) else None,
        form=form,
        choices=_choices(form),
        errors={**form.errors, **({"": refused.message} if refused else {})},
        private=settings.webhook_private,
        kept_days=KEPT.days,
        base=_path(tenant),
        hook_url=here,
        done=DONE.get(done, ""),
        can_undo=done == "off" and not row.enabled,
    )


async def _secret_page(
    request: Request[Any, Any, Any], tenant: Tenant, row: WebhookEndpoint, vault: Vault
) -> Response[str]:
    """A new secret, this once."""
    return await page(
        request,
        "webhooks/secret_made.html",
        status=HTTPStatus.CREATED,
        secret=vault.unseal(row.secret),
        hook=service.view(row),
        base=_path(tenant),
    )


async def _enable(
    database: Database, settings: Settings, tenant: Tenant, hook_id: str, *, to: bool
) -> None:
    async with database.transaction() as session:
        await service.update(
            session,
            hook_id,
            WebhookPatch(enabled=to),
            slug=tenant.slug,
            private=settings.webhook_private,
        )


def _path(tenant: Tenant) -> str:
    return f"/console/t/{tenant.slug}/webhooks"


def _to(tenant: Tenant, hook_id: str, done: str, fragment: str = "") -> Response[Any]:
    return see_other(f"{_path(tenant)}/{hook_id}?done={done}{fragment}")
