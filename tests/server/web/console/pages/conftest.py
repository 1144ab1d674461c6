"""A browser that nobody is signed in with, and somebody who has a password."""

import re
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
import pytest_asyncio
from argon2 import PasswordHasher
from httpx2 import ASGITransport, AsyncClient, Response
from litestar import Litestar

from server.accounts import links, service
from server.db.models import Person
from server.db.session import Database
from tests.server.web.conftest import SAME_ORIGIN

PASSWORD = "correct horse battery"
EMAIL = "ana@example.com"


def token_in(answer: Response) -> str:
    """The token of the forms of a page."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', answer.text)
    assert found, answer.text
    return found[1]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One kind of database is enough here: the services that pages ask have tests on both."""
    return sqlite_url


@pytest_asyncio.fixture
async def browser(app: Litestar, client: AsyncClient) -> AsyncIterator[AsyncClient]:
    """Keeps cookies, and says where a request is from, as browsers do."""
    transport = ASGITransport(app=cast("Any", app), raise_app_exceptions=False)
    async with AsyncClient(
        transport=transport, base_url="http://test", headers=SAME_ORIGIN
    ) as made:
        yield made


@pytest.fixture
def make_person(database: Database) -> Callable[..., object]:
    """Add a person with ``PASSWORD``; returns its row."""

    async def make(email: str = EMAIL, **fields: object) -> Person:
        hashed = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
        person = Person(**{"email": email, "password_hash": hashed, "name": "Ana", **fields})
        async with database.transaction() as session:
            session.add(person)
        return person

    return make


@pytest.fixture
def make_link(database: Database) -> Callable[..., object]:
    """The path of a person's one-time link; the first operator's without an address."""

    async def make(email: str = "") -> str:
        async with database.transaction() as session:
            if not email:
                return f"/console/link/{await links.make_first(session)}"
            person = await service.get_by_email(session, email)
            token = await links.make(session, person, valid=links.LOST_PASSWORD)
        return f"/console/link/{token}"

    return make


async def enter(browser: AsyncClient, email: str = EMAIL, password: str = PASSWORD) -> Response:
    """Fill in the sign-in form, as without a script."""
    token = token_in(await browser.get("/console/sign-in"))
    form = {"csrf_token": token, "email": email, "password": password}
    return await browser.post("/console/sign-in", data=form)
