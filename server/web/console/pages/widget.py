"""The tenant's widget: how it looks, what it says, where it may stand, and who signs for visitors.

The preview is the panel itself, in a frame, with the settings as they stand in the form: they are in
the address of a document that only the tenant's admins get. The secret that signs who visitors are is
shown once.
"""

from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlencode

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery

from server.conversations import budgets, colours, retention, widgets
from server.db.models import Tenant
from server.db.session import Database
from server.errors import Invalid, NotFound, ServerError
from server.settings import Settings
from server.web.console.forms import read_form, see_other
from server.web.console.pages.widget_form import (
    WidgetForm,
    budget_fields,
    corrections,
    language_choices,
    read_widget_form,
    refused,
    stored_form,
    valid_part,
)
from server.web.console.rendering import html, page
from server.web.console.session import own_origin, signed_in
from server.web.widget import documents
from server.web.widget.access import into_a_frame
from server.webhooks.vault import Vault

OVERLAPS = {
    "0": "Not at all: the old secret is known to others",
    "3600": "An hour",
    "86400": "A day",
    "604800": "A week",
}
DONE = {
    "saved": "Saved. Panels that are opened from now on have it; for a new colour or teaser of the "
    "button, put the new line of HTML on the site.",
    "on": "The widget is on.",
    "off": "The widget is off: sites show no button.",
    "allowed": "Allowed. The site shows the widget when its page is loaded again.",
    "removed": "Removed. The site does not show the widget any more.",
}


class Mistake(NamedTuple):
    """An origin that was refused: what was typed, and what to do."""

    origin: str
    message: str


class WidgetController(Controller):
    """The settings of a tenant's widget, for its admins."""

    include_in_schema = False
    path = "/console/t/{slug:str}/widget"
    guards = (signed_in("admin"),)

    @get()
    async def show(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[str]:
        """The settings, the preview, the snippet, the sites."""
        return await _page(request, tenant, database, settings)

    @post()
    async def save(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Change the settings, or show the form again with what is wrong."""
        patch, form = read_widget_form(await read_form(request))
        if patch is None:
            return await _page(request, tenant, database, settings, form=form)
        try:
            async with database.transaction() as session:
                await widgets.update(session, tenant.slug, patch)
        except Invalid as exc:
            return await _page(request, tenant, database, settings, form=refused(form, exc))
        return _to(tenant, "saved")

    @get("/colours")
    async def colours(
        self, request: Request[Any, Any, Any], tenant: NamedDependency[Tenant]
    ) -> Response[str]:
        """What becomes of a colour that is not saved yet: a part of the page."""
        accent = request.query_params.get("accent", "")
        try:
            found = corrections(colours.theme(accent))
        except ValueError:
            found = []
        return await page(request, "widget/colours.html", corrections=found, slug=tenant.slug)

    @get("/preview", guards=[into_a_frame])
    async def preview(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        vault: NamedDependency[Vault],
        scheme: FromQuery[documents.Scheme] = "light",
        lang: FromQuery[str] = "",
    ) -> Response[Any]:
        """The panel with the form's fields in place of what is saved; those that are wrong are left out.

        It is answered by the widget's own addresses, which know nothing of these settings.
        """
        fields = dict(request.query_params.items())
        async with database.reading() as session:
            site = await widgets.get(session, tenant.slug)
        if "accent" in fields:
            site = widgets.draft(site, valid_part(fields)[0])
        chosen = urlencode({"scheme": scheme, "accent": site.widget.accent})
        styles = f"{_path(tenant)}/preview.css?{chosen}"
        language = documents.language_of(lang, site)
        content = documents.panel(site, language, vault=vault, preview_styles=styles)
        return html(request, content, status=HTTPStatus.OK, headers=documents.preview_headers())

    @get("/preview.css", sync_to_thread=False)
    def preview_styles(
        self, accent: FromQuery[str], scheme: FromQuery[documents.Scheme]
    ) -> Response[str]:
        """The panel's styles with a colour, in one scheme."""
        try:
            content = documents.preview_css(accent, scheme)
        except ValueError as exc:
            raise Invalid(f"{exc}.", param="accent") from exc
        return Response(content, media_type="text/css", headers={"cache-control": "no-store"})

    @post("/on")
    async def switch_on(
        self,
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
        vault: NamedDependency[Vault],
    ) -> Response[Any]:
        """Switch the widget on; the first time it is made."""
        async with database.transaction() as session:
            await widgets.enable(session, tenant.slug, vault=vault)
        return _to(tenant, "on")

    @post("/off")
    async def switch_off(
        self, tenant: NamedDependency[Tenant], database: NamedDependency[Database]
    ) -> Response[Any]:
        """Switch the widget off."""
        async with database.transaction() as session:
            await widgets.disable(session, tenant.slug)
        return _to(tenant, "off")

    @post("/origins")
    async def allow(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[Any]:
        """Allow a site to show the widget."""
        origin = (await read_form(request)).get("origin", "")
        try:
            async with database.transaction() as session:
                await widgets.add_origin(session, tenant.slug, origin)
        except NotFound:
            raise
        except ServerError as exc:
            mistake = Mistake(origin, exc.message)
            return await _page(request, tenant, database, settings, mistake=mistake)
        return _to(tenant, "allowed", "#sites")

    @post("/origins/remove")
    async def remove(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """Allow a site no more."""
        origin = (await read_form(request)).get("origin", "")
        async with database.transaction() as session:
            await widgets.remove_origin(session, tenant.slug, origin)
        return _to(tenant, "removed", "#sites")

    @get("/secret")
    async def ask_for_secret(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        database: NamedDependency[Database],
    ) -> Response[str]:
        """Ask how long the old secret is to be good for, before there is a new one."""
        async with database.reading() as session:
            view = widgets.view(await widgets.get(session, tenant.slug))
        choices = [{"value": value, "name": name} for value, name in OVERLAPS.items()]
        return await page(
            request, "widget/secret.html", widget=view, choices=choices, base=_path(tenant)
        )

    @post("/secret")
    async def rotate_secret(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        vault: NamedDependency[Vault],
    ) -> Response[str]:
        """Make a new secret; the page shows it this once."""
        overlap = (await read_form(request)).get("overlap", "0")
        if overlap not in OVERLAPS:
            raise Invalid("Choose how long the old secret is good for.", param="overlap")
        async with database.transaction() as session:
            secret = await widgets.rotate_secret(
                session, tenant.slug, overlap_seconds=int(overlap), vault=vault
            )
            view = widgets.view(await widgets.get(session, tenant.slug))
        return await page(
            request,
            "widget/secret_made.html",
            status=HTTPStatus.CREATED,
            secret=secret,
            widget=view,
            base=_path(tenant),
        )


async def _page(
    request: Request[Any, Any, Any],
    tenant: Tenant,
    database: Database,
    settings: Settings,
    *,
    form: WidgetForm | None = None,
    mistake: Mistake | None = None,
) -> Response[str]:
    """The page; with errors it is an answer of 422."""
    done = DONE.get(request.query_params.get("done", ""), "")
    async with database.reading() as session:
        try:
            site = await widgets.get(session, tenant.slug)
        except NotFound:
            return await page(request, "widget/none.html", base=_path(tenant))
        sites = await retention.refused(session, site)
        use = await budgets.today(session, site)
    form = form or stored_form(site)
    errors = {**form.errors, **({"origin": mistake.message} if mistake else {})}
    return await page(
        request,
        "widget/page.html",
        status=HTTPStatus.UNPROCESSABLE_ENTITY if errors else HTTPStatus.OK,
        widget=widgets.view(site),
        form=form,
        errors=errors,
        budgets=budget_fields(site, use),
        mistake=mistake,
        languages=language_choices(),
        corrections=corrections(colours.theme(site.widget.accent)),
        snippet=widgets.snippet(site, server_url=settings.public_url or own_origin(request)),
        preview=f"{_path(tenant)}/preview" if widgets.is_shown(site.widget) else "",
        sites=sites,
        slug=tenant.slug,
        base=_path(tenant),
        done=done,
        can_undo=request.query_params.get("done") == "off",
    )


def _path(tenant: Tenant) -> str:
    return f"/console/t/{tenant.slug}/widget"


def _to(tenant: Tenant, done: str, fragment: str = "") -> Response[Any]:
    return see_other(f"{_path(tenant)}?done={done}{fragment}")
