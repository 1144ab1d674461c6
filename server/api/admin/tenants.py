"""Tenants and their keys over HTTP."""

from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import UNSET

from server.adapters.removal import remove_adapters
from server.api.guards import needs
from server.auth import keys
from server.auth.keys import Principal
from server.auth.schemas import CreatedKey, KeyRequest, KeyView, RotateRequest
from server.db.session import Database
from server.engine.service import EngineService
from server.errors import Forbidden
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.datasets import remove_datasets
from server.storage.references import try_delete_unreferenced
from server.tenants import service
from server.tenants.schemas import TenantPatch, TenantRequest, TenantView


class TenantController(Controller):
    """``/admin/tenants``."""

    path = "/admin/tenants"

    @post(guards=[needs("operator")])
    async def create(
        self,
        data: JSONBody[TenantRequest],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> TenantView:
        """Add a tenant."""
        async with database.transaction() as session:
            tenant = await service.create(session, data, reserved={settings.base})
            return await service.view(session, tenant)

    @get(guards=[needs("operator")])
    async def list_all(self, database: NamedDependency[Database]) -> list[TenantView]:
        """Every tenant, by slug."""
        async with database.reading() as session:
            return await service.views(session, await service.list_all(session))

    @get("/{slug:str}", guards=[needs("train")])
    async def read(self, slug: FromPath[str], database: NamedDependency[Database]) -> TenantView:
        """One tenant."""
        async with database.reading() as session:
            return await service.view(session, await service.get(session, slug))

    @patch("/{slug:str}", guards=[needs("admin")])
    async def change(
        self,
        slug: FromPath[str],
        data: JSONBody[TenantPatch],
        *,
        database: NamedDependency[Database],
        principal: NamedDependency[Principal],
    ) -> TenantView:
        """Change the name, the prompt, the custom patterns or, for the operator, the limits.

        Raises:
            Forbidden: a tenant's key would change its own tenant's limits.
        """
        if data.limits is not UNSET and not principal.is_operator:
            raise Forbidden("A tenant's limits are changed with the operator's key (tt_admin_...).")
        async with database.transaction() as session:
            tenant = await service.update(session, slug, data)
            return await service.view(session, tenant)

    @delete("/{slug:str}", guards=[needs("operator")])
    async def remove(
        self,
        slug: FromPath[str],
        *,
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
        engine: NamedDependency[EngineService | None],
    ) -> None:
        """Remove a tenant and all that it owns: rows, uploads, datasets, adapters."""
        async with database.transaction() as session:
            leftovers = await service.delete(session, slug)
        await remove_adapters(leftovers.engine_names, settings=settings, engine=engine)
        await try_delete_unreferenced(database, blobs, *leftovers.blobs)
        await remove_datasets(leftovers.datasets, settings=settings)


class KeyController(Controller):
    """``/admin/tenants/<slug>/keys``."""

    path = "/admin/tenants/{slug:str}/keys"
    guards = (needs("admin"),)

    @post()
    async def create(
        self,
        slug: FromPath[str],
        data: JSONBody[KeyRequest],
        *,
        database: NamedDependency[Database],
        principal: NamedDependency[Principal],
    ) -> CreatedKey:
        """Make a key; the answer is the only place where it is ever shown."""
        async with database.transaction() as session:
            tenant = await service.get(session, slug)
            raw, row = await keys.create(session, data, tenant=tenant, actor=principal.actor)
            return CreatedKey(key=raw, details=keys.view(row))

    @get()
    async def list_for(
        self, slug: FromPath[str], database: NamedDependency[Database]
    ) -> list[KeyView]:
        """A tenant's keys, newest first."""
        async with database.reading() as session:
            tenant = await service.get(session, slug)
            return [keys.view(row) for row in await keys.list_for(session, tenant)]

    @post("/{key_id:str}/rotate")
    async def rotate(
        self,
        slug: FromPath[str],
        key_id: FromPath[str],
        data: JSONBody[RotateRequest],
        *,
        database: NamedDependency[Database],
        principal: NamedDependency[Principal],
    ) -> CreatedKey:
        """Replace a key: the new one is shown once, the old one works for a while longer."""
        async with database.transaction() as session:
            tenant = await service.get(session, slug)
            raw, row = await keys.rotate(
                session, key_id, data, tenant=tenant, actor=principal.actor
            )
            return CreatedKey(key=raw, details=keys.view(row))

    @delete("/{key_id:str}")
    async def revoke(
        self,
        slug: FromPath[str],
        key_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> None:
        """Make a key useless from now on, on every copy of the server."""
        async with database.transaction() as session:
            tenant = await service.get(session, slug)
            await keys.revoke(session, key_id, tenant=tenant)
