"""A tenant's widget and those who come to it, without HTTP."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from server.conversations import passing_on, service, sessions, tokens, widgets
from server.conversations.schemas import (
    HandoffRequest,
    HandoffView,
    MessageRequest,
    SessionAnswer,
    SessionRequest,
    WidgetPatch,
)
from server.conversations.service import Ask, Caller, Receipt, Repeated, Silent
from server.conversations.widgets import Site
from server.db.models import MessageState, new_id
from server.db.session import Database
from server.settings import Settings
from server.webhooks.vault import Vault

RECEIPT = Receipt(
    model="acme@1",
    adapter_version=1,
    first_token_ms=12,
    total_ms=340,
    prompt_tokens=20,
    completion_tokens=9,
)


class Shop:
    """One tenant's widget, and what visitors do with it."""

    def __init__(self, database: Database, vault: Vault, slug: str) -> None:
        self.database = database
        self.vault = vault
        self.slug = slug

    async def site(self) -> Site:
        async with self.database.reading() as session:
            return await widgets.get(session, self.slug)

    async def change(self, **fields: Any) -> None:
        async with self.database.transaction() as session:
            await widgets.update(session, self.slug, WidgetPatch(**fields))

    async def nonce(self) -> str:
        site = await self.site()
        return tokens.make_nonce(widgets.session_key(site.widget, self.vault), await self.key())

    async def key(self) -> str:
        return (await self.site()).widget.public_key

    async def enter(
        self, *, nonce: str | None = None, client: str = "203.0.113.7", **fields: Any
    ) -> SessionAnswer:
        request = SessionRequest(nonce=nonce or await self.nonce(), **fields)
        async with self.database.reading() as session:
            site, taken = await sessions.by_nonce(
                session, await self.key(), request.nonce, vault=self.vault
            )
        async with self.database.transaction() as session:
            return await sessions.begin(
                session, site, taken, request, vault=self.vault, client=client
            )

    async def caller(self, answer: SessionAnswer, *, client: str = "203.0.113.7") -> Caller:
        async with self.database.reading() as session:
            return await sessions.caller(
                session, await self.key(), answer.session, vault=self.vault, client=client
            )

    async def post(
        self, answer: SessionAnswer, text: str, *, client_id: str | None = None, **more: Any
    ) -> Ask | Repeated | Silent:
        caller = await self.caller(answer, **more)
        request = MessageRequest(text=text, client_id=client_id or new_id())
        async with self.database.transaction() as session:
            return await service.post(session, caller, request)

    async def ask(self, answer: SessionAnswer, text: str, **more: Any) -> Ask:
        posted = await self.post(answer, text, **more)
        assert isinstance(posted, Ask)
        return posted

    async def finish(
        self, ask: Ask, text: str, state: MessageState = "complete", *, needs_person: bool = False
    ) -> bool:
        tenant_id = (await self.site()).tenant.id
        async with self.database.transaction() as session:
            return await service.finish(
                session,
                tenant_id,
                ask,
                text=text,
                state=state,
                receipt=RECEIPT,
                needs_person=needs_person,
            )

    async def talk(self, answer: SessionAnswer, text: str, reply: str) -> Ask:
        ask = await self.ask(answer, text)
        await self.finish(ask, reply)
        return ask

    async def seen(self, answer: SessionAnswer) -> list[str]:
        """The texts that a visitor sees."""
        caller = await self.caller(answer)
        async with self.database.reading() as session:
            conversation = await service.current(session, caller)
        return [message.text for message in conversation.messages] if conversation else []

    async def hand_off(self, answer: SessionAnswer, **fields: Any) -> HandoffView:
        caller = await self.caller(answer)
        request = HandoffRequest(**{"email": "kim@mail.example", **fields})
        async with self.database.transaction() as session:
            return await passing_on.create(session, caller, request)

    async def secret(self, **fields: Any) -> str:
        async with self.database.transaction() as session:
            return await widgets.rotate_secret(
                session, self.slug, vault=self.vault, **{"overlap_seconds": 0, **fields}
            )


OpenShop = Callable[..., Awaitable[Shop]]


@pytest_asyncio.fixture
async def vault(settings: Settings, database: Database) -> Vault:
    made = Vault(settings)
    await made.open(database)
    return made


@pytest.fixture
def open_shop(database: Database, vault: Vault, make_tenant: Any) -> OpenShop:
    """Make a tenant with a widget."""

    async def made(slug: str = "acme", **fields: Any) -> Shop:
        await make_tenant(slug, name=slug.title())
        async with database.transaction() as session:
            await widgets.enable(session, slug, vault=vault)
        shop = Shop(database, vault, slug)
        if fields:
            await shop.change(**fields)
        return shop

    return made


@pytest_asyncio.fixture
async def shop(open_shop: OpenShop) -> Shop:
    return await open_shop()
