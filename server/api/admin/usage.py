"""What tenants used, over HTTP."""

from datetime import date
from typing import Annotated, Literal

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter

from server.api.guards import needs
from server.db.session import Database
from server.tenants import service as tenants
from server.usage.ledger import UsageLedger
from server.usage.report import DIMENSIONS, Dimension, to_csv, usage_of
from server.usage.schemas import UsageView

Format = Literal["json", "csv"]
CSV = "text/csv; charset=utf-8; header=present"
RESPONSES = {"application/json": list[UsageView], "text/csv": str}
GroupBy = Annotated[list[Dimension] | None, QueryParameter(max_items=len(DIMENSIONS))]


class UsageController(Controller):
    """``/admin/tenants/{slug}/usage``."""

    path = "/admin/tenants/{slug:str}/usage"
    guards = (needs("admin"),)

    @get(opt={"responses": RESPONSES})
    async def list_usage(
        self,
        slug: FromPath[str],
        *,
        database: NamedDependency[Database],
        ledger: NamedDependency[UsageLedger],
        first: FromQuery[date | None] = None,
        last: FromQuery[date | None] = None,
        group_by: GroupBy = None,
        format: FromQuery[Format] = "json",  # noqa: A002 - the query's name
    ) -> Response[list[UsageView] | str]:
        """By UTC day, model and key, newest day first; ``first`` and ``last`` bound the days.

        ``group_by``, once or several times, names what is told apart; the rest is added up.
        """
        await ledger.try_flush()
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            rows = await usage_of(
                session, tenant.id, by=group_by or DIMENSIONS, first=first, last=last
            )
        return _answer(rows, format)


class AllUsageController(Controller):
    """``/admin/usage``."""

    path = "/admin/usage"
    guards = (needs("operator"),)

    @get(operation_id="usage_list_all", opt={"responses": RESPONSES})
    async def list_usage(
        self,
        *,
        database: NamedDependency[Database],
        ledger: NamedDependency[UsageLedger],
        first: FromQuery[date | None] = None,
        last: FromQuery[date | None] = None,
        group_by: GroupBy = None,
        format: FromQuery[Format] = "json",  # noqa: A002 - the query's name
    ) -> Response[list[UsageView] | str]:
        """What every tenant used, each with rows of its own."""
        await ledger.try_flush()
        async with database.reading() as session:
            rows = await usage_of(session, None, by=group_by or DIMENSIONS, first=first, last=last)
        return _answer(rows, format)


def _answer(rows: list[UsageView], kind: Format) -> Response[list[UsageView] | str]:
    if kind == "json":
        return Response(rows, media_type="application/json")
    return Response(
        to_csv(rows),
        media_type="text/csv",
        headers={
            "content-type": CSV,  # to a media type of text Litestar would add a second charset
            "content-disposition": 'attachment; filename="usage.csv"',
        },
    )
