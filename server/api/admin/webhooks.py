"""Webhooks over HTTP."""

from typing import Annotated

from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from server.api.guards import needs
from server.db.session import Database
from server.settings import Settings
from server.webhooks import service
from server.webhooks.schemas import (
    DeliveryView,
    SecretRequest,
    WebhookPatch,
    WebhookRequest,
    WebhookSecret,
    WebhookView,
)
from server.webhooks.vault import Vault


class WebhookController(Controller):
    """``/admin/tenants/{slug}/webhooks``."""

    path = "/admin/tenants/{slug:str}/webhooks"
    guards = (needs("admin"),)

    @post()
    async def create(
        self,
        slug: FromPath[str],
        data: JSONBody[WebhookRequest],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
        vault: NamedDependency[Vault],
    ) -> WebhookSecret:
        """Add an endpoint; the answer is the only place where its secret is shown."""
        async with database.transaction() as session:
            row = await service.create(
                session, data, slug=slug, private=settings.webhook_private, vault=vault
            )
            return WebhookSecret(secret=vault.unseal(row.secret), details=service.view(row))

    @get()
    async def list_for(
        self, slug: FromPath[str], database: NamedDependency[Database]
    ) -> list[WebhookView]:
        """A tenant's endpoints, oldest first."""
        async with database.reading() as session:
            return [service.view(row) for row in await service.list_for(session, slug)]

    @get("/{webhook_id:str}")
    async def read(
        self, slug: FromPath[str], webhook_id: FromPath[str], database: NamedDependency[Database]
    ) -> WebhookView:
        """One endpoint."""
        async with database.reading() as session:
            return service.view(await service.get(session, webhook_id, slug=slug))

    @patch("/{webhook_id:str}")
    async def change(
        self,
        slug: FromPath[str],
        webhook_id: FromPath[str],
        data: JSONBody[WebhookPatch],
        *,
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> WebhookView:
        """Change the URL or the events, or switch it on or off."""
        async with database.transaction() as session:
            row = await service.update(
                session, webhook_id, data, slug=slug, private=settings.webhook_private
            )
            return service.view(row)

    @delete("/{webhook_id:str}")
    async def remove(
        self, slug: FromPath[str], webhook_id: FromPath[str], database: NamedDependency[Database]
    ) -> None:
        """Remove an endpoint and what waits for it."""
        async with database.transaction() as session:
            await service.delete(session, webhook_id, slug=slug)

    @post("/{webhook_id:str}/rotate-secret")
    async def rotate_secret(
        self,
        slug: FromPath[str],
        webhook_id: FromPath[str],
        data: JSONBody[SecretRequest],
        *,
        database: NamedDependency[Database],
        vault: NamedDependency[Vault],
    ) -> WebhookSecret:
        """Give it a new secret, shown here alone; the old one signs too for a while longer."""
        async with database.transaction() as session:
            row = await service.rotate_secret(
                session, webhook_id, slug=slug, overlap_seconds=data.overlap_seconds, vault=vault
            )
            return WebhookSecret(secret=vault.unseal(row.secret), details=service.view(row))

    @post("/{webhook_id:str}/test")
    async def test(
        self, slug: FromPath[str], webhook_id: FromPath[str], database: NamedDependency[Database]
    ) -> DeliveryView:
        """Send an event of the type ``webhook.test``, once; its delivery tells what came of it."""
        async with database.transaction() as session:
            return service.view_delivery(await service.send_test(session, webhook_id, slug=slug))

    @get("/{webhook_id:str}/deliveries")
    async def list_deliveries(
        self,
        slug: FromPath[str],
        webhook_id: FromPath[str],
        *,
        database: NamedDependency[Database],
        limit: Annotated[int, QueryParameter(ge=1, le=100)] = 20,
    ) -> list[DeliveryView]:
        """The last events for it, newest first; they are kept for 30 days."""
        async with database.reading() as session:
            rows = await service.deliveries(session, webhook_id, slug=slug, limit=limit)
            return [service.view_delivery(row) for row in rows]

    @post("/{webhook_id:str}/deliveries/{delivery_id:str}/redeliver")
    async def redeliver(
        self,
        slug: FromPath[str],
        webhook_id: FromPath[str],
        delivery_id: FromPath[str],
        database: NamedDependency[Database],
    ) -> DeliveryView:
        """Send an event again, with the same id."""
        async with database.transaction() as session:
            row = await service.redeliver(session, webhook_id, delivery_id, slug=slug)
            return service.view_delivery(row)
