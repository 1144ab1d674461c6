"""People and their passwords, hashed in no time."""

from collections.abc import Callable

import pytest
from argon2 import PasswordHasher

from server.accounts.passwords import Passwords
from server.accounts.signing_in import SigningIn
from server.db.models import Person
from server.db.session import Database

PASSWORD = "correct horse battery"


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def signing_in(database: Database, passwords: Passwords) -> SigningIn:
    return SigningIn(database, passwords)


@pytest.fixture
def make_person(database: Database, passwords: Passwords) -> Callable[..., object]:
    """Add a person with ``PASSWORD``; returns its row."""

    async def make(email: str = "ana@example.com", **fields: object) -> Person:
        hashed = await passwords.hash(PASSWORD)
        person = Person(**{"email": email, "password_hash": hashed, "name": "Ana", **fields})
        async with database.transaction() as session:
            session.add(person)
        return person

    return make
