"""What tenants used."""

from datetime import date

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from server.chat.schemas import UsageView
from server.chat.usage import UsageLedger, usage_of
from server.db.session import Database
from server.tenants import service as tenants
from server.tenants.access import needs


class UsageController(Controller):
    """``/admin/tenants/{slug}/usage``."""

    path = "/admin/tenants/{slug:str}/usage"
    guards = (needs("admin"),)

    @get()
    async def list_usage(
        self,
        slug: FromPath[str],
        *,
        database: NamedDependency[Database],
        ledger: NamedDependency[UsageLedger],
        first: FromQuery[date | None] = None,
        last: FromQuery[date | None] = None,
    ) -> list[UsageView]:
        """By UTC day, model and key, newest day first; ``first`` and ``last`` bound the days."""
        await ledger.flush()
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            return await usage_of(session, tenant.id, first=first, last=last)
