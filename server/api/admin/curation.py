"""Curation over HTTP: what is doubtful or wrong in the conversations, and what is decided about it."""

from litestar import Controller, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from server.api.guards import needs
from server.curation import service
from server.curation.schemas import (
    ChoiceRequest,
    CurationView,
    DecisionRequest,
    DecisionView,
    Rules,
)
from server.db.session import Database
from server.embeddings.service import EmbeddingService
from server.settings import Settings
from server.tenants import service as tenants


class CurationController(Controller):
    """``/admin/tenants/{slug}/curation``."""

    path = "/admin/tenants/{slug:str}/curation"
    guards = (needs("train"),)

    @get()
    async def show(self, slug: FromPath[str], database: NamedDependency[Database]) -> CurationView:
        """The rules, and what the last scan found that nobody has decided yet."""
        async with database.reading() as session:
            return await service.overview(session, await tenants.get(session, slug))

    @post("/scans")
    async def look(
        self,
        slug: FromPath[str],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        embeddings: NamedDependency[EmbeddingService],
    ) -> CurationView:
        """Look through the conversations now; takes seconds, and replaces the last scan."""
        await service.scan_now(database, slug, settings=settings, embeddings=embeddings)
        async with database.reading() as session:
            return await service.overview(session, await tenants.get(session, slug))

    @put("/rules")
    async def change_rules(
        self,
        slug: FromPath[str],
        data: JSONBody[Rules],
        database: NamedDependency[Database],
    ) -> Rules:
        """Say what becomes of flagged conversations in the next dataset version."""
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            service.set_rules(session, tenant, data)
            return service.rules_of(tenant)

    @get("/decisions")
    async def decided(
        self, slug: FromPath[str], database: NamedDependency[Database]
    ) -> list[DecisionView]:
        """What was decided about doubtful texts, newest first."""
        async with database.reading() as session:
            return await service.decisions(session, await tenants.get(session, slug))

    @post("/decisions", status_code=200)
    async def decide(
        self,
        slug: FromPath[str],
        data: JSONBody[DecisionRequest],
        database: NamedDependency[Database],
    ) -> CurationView:
        """Decide about a doubtful text; another decision about the same text replaces it."""
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            await service.decide(session, tenant, data)
            return await service.overview(session, tenant)

    @put("/conversations/{conversation_id:str}")
    async def choose(
        self,
        slug: FromPath[str],
        conversation_id: FromPath[str],
        data: JSONBody[ChoiceRequest],
        database: NamedDependency[Database],
    ) -> ChoiceRequest:
        """Keep or leave out one conversation, whatever the rules say."""
        async with database.transaction() as session:
            tenant = await tenants.get(session, slug)
            await service.choose(session, tenant, conversation_id, keep=data.keep)
            return data
