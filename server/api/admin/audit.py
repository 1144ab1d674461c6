"""The audit log over HTTP."""

from datetime import date
from typing import Annotated, Literal

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from server.api.guards import needs
from server.audit import service
from server.audit.actions import Group
from server.audit.schemas import AuditEntryView, Filter
from server.auth.keys import Principal
from server.db.session import Database
from server.tenants import service as tenants

Format = Literal["json", "csv"]
CSV = "text/csv; charset=utf-8; header=present"
RESPONSES = {"application/json": list[AuditEntryView], "text/csv": str}
MAX_LIMIT = 1000
By = Annotated[
    str, QueryParameter(max_length=200, description="A part of the actor's name, or the whole id.")
]
After = Annotated[
    str | None,
    QueryParameter(max_length=32, description="The last entry's id of the page before this one."),
]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="Not of a CSV.")]
As = Annotated[
    Format,
    QueryParameter(name="format", description="`csv` has all that matches, 50,000 rows at most."),
]


class AuditController(Controller):
    """``/admin/tenants/{slug}/audit``."""

    path = "/admin/tenants/{slug:str}/audit"
    guards = (needs("admin"),)

    @get(opt={"responses": RESPONSES})
    async def list_entries(
        self,
        slug: FromPath[str],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        by: By = "",
        group: FromQuery[Group | None] = None,
        first: FromQuery[date | None] = None,
        last: FromQuery[date | None] = None,
        after: After = None,
        limit: Limit = 100,
        as_: As = "json",
    ) -> Response[list[AuditEntryView] | str]:
        """Who did what in a tenant, newest first; ``first`` and ``last`` bound the UTC days.

        A tenant's key is not told who an operator is, or from where one came.
        """
        matching = Filter(by=by, group=group, first=first, last=last)
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            if as_ == "csv":
                found = await service.export(
                    session, tenant.id, for_operator=principal.is_operator, matching=matching
                )
                return _csv(found)
            found = await service.list_entries(
                session,
                tenant.id,
                for_operator=principal.is_operator,
                matching=matching,
                after=after,
                limit=limit,
            )
        return Response(found, media_type="application/json")


class AllAuditController(Controller):
    """``/admin/audit``."""

    path = "/admin/audit"
    guards = (needs("operator"),)

    @get(operation_id="audit_list_all", opt={"responses": RESPONSES})
    async def list_entries(
        self,
        *,
        database: NamedDependency[Database],
        by: By = "",
        group: FromQuery[Group | None] = None,
        first: FromQuery[date | None] = None,
        last: FromQuery[date | None] = None,
        after: After = None,
        limit: Limit = 100,
        as_: As = "json",
    ) -> Response[list[AuditEntryView] | str]:
        """The same of every tenant and of the installation itself: people, signing in, operators' keys."""
        matching = Filter(by=by, group=group, first=first, last=last)
        async with database.reading() as session:
            if as_ == "csv":
                found = await service.export(session, None, for_operator=True, matching=matching)
                return _csv(found)
            found = await service.list_entries(
                session, None, for_operator=True, matching=matching, after=after, limit=limit
            )
        return Response(found, media_type="application/json")


def _csv(entries: list[AuditEntryView]) -> Response[list[AuditEntryView] | str]:
    return Response(
        service.to_csv(entries).decode(),
        media_type="text/csv",
        headers={
            "content-type": CSV,  # to a media type of text Litestar would add a second charset
            "content-disposition": 'attachment; filename="audit.csv"',
        },
    )
