"""The audit log: of a tenant for its admins, and of the whole installation for operators."""

from contextlib import suppress
from datetime import date
from typing import Any, Literal
from urllib.parse import urlencode

from litestar import Controller, Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromQuery

from server.accounts.schemas import Viewer
from server.audit import service, words
from server.audit.actions import GROUPS
from server.audit.schemas import AuditEntryView, Filter
from server.db.models import ActorKind, Tenant
from server.db.session import Database
from server.settings import Settings
from server.web.console.downloads import csv_file
from server.web.console.rendering import page
from server.web.console.session import signed_in

SHOWN_LINES = 4
"""Lines of an entry's details that are shown at once; the others unfold."""
MAX_BY = 200  # characters
_ICONS: dict[ActorKind | Literal["operator"], str] = {
    "operator": "user",
    "person": "user",
    "key": "key",
    "operator_key": "key",
    "command_line": "log",
    "worker": "train",
    "system": "engine",
    "anonymous": "user",
}


class AuditController(Controller):
    """Who did what in a tenant."""

    include_in_schema = False
    path = "/console/t/{slug:str}/audit"
    guards = (signed_in("admin"),)

    @get()
    async def show(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        after: FromQuery[str | None] = None,
    ) -> Response[str]:
        """The tenant's entries, newest first."""
        return await _page(request, tenant, database, settings, after)

    @get("/entries.csv")
    async def entries_csv(
        self,
        request: Request[Any, Any, Any],
        tenant: NamedDependency[Tenant],
        *,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[bytes]:
        """Every entry that matches, a line each."""
        async with database.reading() as session:
            found = await service.export(
                session,
                tenant.id,
                for_operator=viewer.is_operator,
                matching=filter_of(request),
            )
        return csv_file(service.to_csv(found), f"{tenant.slug}-audit.csv")


class AllAuditController(Controller):
    """Who did what in the installation and in every tenant."""

    include_in_schema = False
    path = "/console/audit"
    guards = (signed_in("operator"),)

    @get()
    async def show(
        self,
        request: Request[Any, Any, Any],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        after: FromQuery[str | None] = None,
    ) -> Response[str]:
        """All entries, newest first."""
        return await _page(request, None, database, settings, after)

    @get("/entries.csv")
    async def entries_csv(
        self, request: Request[Any, Any, Any], database: NamedDependency[Database]
    ) -> Response[bytes]:
        """Every entry that matches, a line each."""
        async with database.reading() as session:
            found = await service.export(
                session, None, for_operator=True, matching=filter_of(request)
            )
        return csv_file(service.to_csv(found), "audit.csv")


def filter_of(request: Request[Any, Any, Any]) -> Filter:
    """The filter that an address names; what makes no sense in it is left out."""
    given = request.query_params
    return Filter(
        by=given.get("by", "").strip()[:MAX_BY],
        group=next((group for group in GROUPS if group == given.get("group")), None),
        first=_day(given.get("first", "")),
        last=_day(given.get("last", "")),
    )


async def _page(
    request: Request[Any, Any, Any],
    tenant: Tenant | None,
    database: Database,
    settings: Settings,
    after: str | None,
) -> Response[str]:
    matching = filter_of(request)
    async with database.reading() as session:
        found = await service.list_entries(
            session,
            tenant.id if tenant else None,
            for_operator=request.state["viewer"].is_operator,
            matching=matching,
            after=after,
            limit=service.PAGE + 1,
        )
    shown = found[: service.PAGE]
    here = f"/console/t/{tenant.slug}/audit" if tenant else "/console/audit"
    older = shown[-1].id if len(found) > len(shown) else ""
    return await page(
        request,
        "audit.html",
        entries=[_entry(each, here) for each in shown],
        matching=matching,
        groups=[
            {"value": "", "name": "Everything"},
            *({"value": group, "name": name} for group, name in GROUPS.items()),
        ],
        here_url=here,
        csv_url=_address(f"{here}/entries.csv", matching),
        newest_url=_address(here, matching),
        older_url=_address(here, matching, after=older) if older else "",
        first_page=after is None,
        keep_days=settings.audit_keep_days,
        max_by=MAX_BY,
    )


def _entry(entry: AuditEntryView, here: str) -> dict[str, Any]:
    """An entry as the page shows it."""
    lines = words.lines_of(entry.details)
    who = words.who(entry.actor)
    by = Filter(by=entry.actor.name or entry.actor.id or "")
    return {
        "at": entry.created_at,
        "icon": _ICONS.get(entry.actor.kind, "user"),
        "who": f"{who[:1].upper()}{who[1:]}" if entry.actor.kind != "person" else who,
        "who_url": "" if by.is_empty else _address(here, by),
        "what": words.what(entry.action),
        "subject": entry.subject.name if entry.subject else "",
        "lines": lines[:SHOWN_LINES],
        "more": lines[SHOWN_LINES:],
        "address": entry.address,
        "tenant": entry.tenant,
    }


def _address(path: str, matching: Filter, *, after: str = "") -> str:
    """A path with a filter, and the place that a list goes on behind."""
    given = {
        "by": matching.by,
        "group": matching.group,
        "first": matching.first,
        "last": matching.last,
        "after": after,
    }
    text = urlencode({name: value for name, value in given.items() if value})
    return f"{path}?{text}" if text else path


def _day(text: str) -> date | None:
    with suppress(ValueError):
        return date.fromisoformat(text)
    return None
