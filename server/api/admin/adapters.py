"""Adapter versions over HTTP: looking, promoting, rolling back, and trying one as a canary."""

from typing import Annotated, Any, Literal

import msgspec
from litestar import Controller, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, PathParameter, QueryParameter
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncSession

from server.adapters import canary, service
from server.adapters.download import Form, chunks_of
from server.adapters.removal import remove_adapters
from server.adapters.schemas import (
    AdapterView,
    CanaryRequest,
    CanaryView,
    LiveView,
    PromoteRequest,
    PromotionView,
    RollbackRequest,
)
from server.api.guards import needs
from server.auth.keys import Principal
from server.db.models import MAX_NUMBER, Tenant
from server.db.session import Database
from server.engine.service import EngineService
from server.errors import Forbidden, NotFound
from server.settings import Settings
from server.tenants import service as tenants
from server.usage.ledger import UsageLedger

# the page has its styles and its picture inside and runs nothing
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
}


_Version = Annotated[int, PathParameter(ge=1, le=MAX_NUMBER)]


class AdapterController(Controller):
    """``/admin/tenants/<slug>/adapters`` and what is live."""

    path = "/admin/tenants/{slug:str}"
    guards = (needs("train"),)

    @get("/adapters")
    async def list_for(
        self, slug: FromPath[str], database: NamedDependency[Database]
    ) -> list[AdapterView]:
        """Every version, newest first."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            return await service.views(session, tenant, await service.list_for(session, tenant))

    @get("/adapters/{version:int}")
    async def read(
        self, slug: FromPath[str], version: _Version, database: NamedDependency[Database]
    ) -> AdapterView:
        """One version."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            adapter = await service.get(session, tenant, version=version)
            return (await service.views(session, tenant, [adapter]))[0]

    @delete("/adapters/{version:int}")
    async def remove(
        self,
        slug: FromPath[str],
        version: _Version,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        engine: NamedDependency[EngineService | None],
    ) -> None:
        """Remove a version that is neither live nor the canary, files and all."""
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            name = await service.delete(session, tenant, version=version)
        await remove_adapters([name], settings=settings, engine=engine)

    @get("/adapters/{version:int}/download", media_type="application/zip")
    async def download(
        self,
        slug: FromPath[str],
        version: _Version,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        form: Annotated[
            Form,
            QueryParameter(
                name="format",
                description="`peft` is the adapter as PEFT's folder, `merged` the base with the "
                "adapter in its weights, `gguf` the adapter for llama.cpp and Ollama, `base` the "
                "base that it belongs to.",
            ),
        ] = "peft",
    ) -> Stream:
        """A version to take away, as a zip that is made while it is sent."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            adapter = await service.get(session, tenant, version=version)
        return Stream(
            await chunks_of(adapter, form, settings=settings),
            media_type="application/zip",
            headers={
                "content-disposition": f'attachment; filename="{slug}-{version}-{form}.zip"',
            },
        )

    # the report's own type would load the templates with every start
    @get(
        "/adapters/{version:int}/report",
        opt={"responses": {"application/json": dict[str, Any], "text/html": str}},
    )
    async def report(
        self,
        slug: FromPath[str],
        version: _Version,
        database: NamedDependency[Database],
        format: FromQuery[Literal["json", "html"]] = "json",  # noqa: A002 - the query's name
    ) -> Response[Any]:
        """The evaluation that decided about a version, as data or as a page."""
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            adapter = await service.get(session, tenant, version=version)
        if adapter.report is None:
            raise NotFound(f"'{slug}@{version}' has no report.", code="report_not_found")
        if format == "json":
            return Response(adapter.report, media_type="application/json")
        from training.reports.report import Report, render_html  # noqa: PLC0415 - loads the templates

        page = render_html(msgspec.convert(adapter.report, Report))
        return Response(page, media_type="text/html", headers=PAGE_HEADERS)

    @get("/promotions")
    async def history(
        self, slug: FromPath[str], database: NamedDependency[Database]
    ) -> list[PromotionView]:
        """Every change of what is live and of the canary, newest first."""
        async with database.reading() as session:
            return await service.history(session, await tenants.get(session, slug))

    @post("/promote", status_code=200)
    async def promote(
        self,
        slug: FromPath[str],
        data: JSONBody[PromoteRequest],
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
    ) -> LiveView:
        """Make a version live from the next request on; a canary ends with it."""
        if data.force and not principal.is_operator:
            raise Forbidden("Only the operator may promote an adapter against its gates.")
        async with database.transaction() as session:
            tenant = await service.promote(
                session,
                await tenants.get(session, slug),
                version=data.version,
                actor=principal.actor,
                expected_revision=data.expected_revision,
                force=data.force,
            )
            return await _live(session, tenant)

    @post("/rollback", status_code=200)
    async def roll_back(
        self,
        slug: FromPath[str],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        data: JSONBody[RollbackRequest | None] = None,
    ) -> LiveView:
        """Go back to what was live before, from the next request on; a canary ends with it."""
        async with database.transaction() as session:
            tenant = await service.roll_back(
                session,
                await tenants.get(session, slug),
                actor=principal.actor,
                expected_revision=data.expected_revision if data else None,
            )
            return await _live(session, tenant)

    @get("/canary")
    async def read_canary(
        self,
        slug: FromPath[str],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        ledger: NamedDependency[UsageLedger],
    ) -> CanaryView:
        """The version that answers a share of the requests, and how it does beside what is live."""
        await ledger.try_flush()
        async with database.reading() as session:
            tenant = await tenants.get(session, slug)
            return await canary.required(session, tenant, base=settings.base)

    @put("/canary")
    async def start_canary(
        self,
        slug: FromPath[str],
        data: JSONBody[CanaryRequest],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> CanaryView:
        """Let a version answer a share of the requests from the next one on, or change its share."""
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            await canary.start(
                session,
                tenant,
                version=data.version,
                percent=data.percent,
                base=settings.base,
                actor=principal.actor,
                expected_revision=data.expected_revision,
            )
            return await canary.required(session, tenant, base=settings.base)

    @delete("/canary", status_code=200)
    async def end_canary(
        self,
        slug: FromPath[str],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        expected_revision: FromQuery[int | None] = None,
    ) -> LiveView:
        """Take the canary back: what is live answers everything from the next request on."""
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            await canary.end(
                session, tenant, actor=principal.actor, expected_revision=expected_revision
            )
            return await _live(session, tenant)


async def _live(session: AsyncSession, tenant: Tenant) -> LiveView:
    return LiveView(
        tenant=tenant.slug,
        live_version=await service.live_version(session, tenant),
        live_revision=tenant.live_revision,
    )
