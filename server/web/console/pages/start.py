"""The console's first page: the tenants that its viewer may go to."""

from typing import Any

from litestar import Controller, Request, Response, get
from litestar.di import NamedDependency

from server.accounts.schemas import Viewer
from server.db.session import Database
from server.tenants import service as tenants
from server.web.console.forms import see_other
from server.web.console.rendering import page
from server.web.console.session import signed_in

MOST = 500  # tenants that the page lists


class StartController(Controller):
    """Where signing in leads to."""

    path = "/console"
    guards = [signed_in()]  # noqa: RUF012 - Litestar's own

    @get()
    async def show(
        self,
        request: Request[Any, Any, Any],
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
    ) -> Response[Any]:
        """The tenants; who has one only goes there at once."""
        async with database.reading() as session:
            ids = None if viewer.is_operator else list(viewer.roles)
            rows = await tenants.list_for(session, ids, limit=MOST)
            views = await tenants.views(session, rows)
        if len(views) == 1 and not viewer.is_operator:
            return see_other(f"/console/t/{views[0].slug}")
        roles = {row.slug: viewer.roles.get(row.id) for row in rows}
        return await page(request, "start.html", all_tenants=views, roles=roles)
