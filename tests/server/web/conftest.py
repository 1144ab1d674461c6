"""Browsers that are signed in to the console, without a browser."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest_asyncio
from httpx2 import ASGITransport, AsyncClient
from litestar import Litestar

from server.accounts import sessions
from server.accounts.tokens import form_token
from server.db.models import Membership, Person, Role
from server.db.session import Database
from server.tenants import service as tenants

SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


@pytest_asyncio.fixture
async def sign_in(
    app: Litestar, client: AsyncClient, database: Database
) -> AsyncIterator[Callable[..., object]]:
    """Sign a new person in; returns a client that sends what a browser would.

    ``await sign_in("acme", "admin")`` has a role in a tenant, ``await sign_in()`` is an operator.
    """
    async with AsyncExitStack() as stack:

        async def make(slug: str | None = None, role: Role = "admin") -> AsyncClient:
            async with database.transaction() as session:
                person = Person(
                    email=f"{slug or 'operator'}-{role}@example.com",
                    name="Ana",
                    is_operator=slug is None,
                )
                session.add(person)
                await session.flush()
                if slug is not None:
                    tenant = await tenants.get(session, slug)
                    session.add(Membership(tenant_id=tenant.id, person_id=person.id, role=role))
                token = await sessions.begin(session, person, address="127.0.0.1", agent="test")
            transport = ASGITransport(app=cast("Any", app), raise_app_exceptions=False)
            return await stack.enter_async_context(
                AsyncClient(
                    transport=transport,
                    base_url="http://test",
                    cookies={"tt": token},
                    headers={**SAME_ORIGIN, "x-csrf-token": form_token(token)},
                )
            )

        yield make
