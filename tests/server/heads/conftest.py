"""A tenant's heads, trained for real on hashed words."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from server.db.models import Head
from server.db.session import Database
from server.heads import service
from server.jobs.head_training import train_next
from server.jobs.steps.context import StepContext
from server.settings import Settings
from server.tenants import service as tenants
from training.heads.config import Task
from training.heads.examples import Labelled

WORDS = [
    "salt",
    "bread",
    "lamp",
    "door",
    "chair",
    "green",
    "table",
    "shoe",
    "river",
    "apple",
    "cloud",
    "stone",
]


def texts(annoyed: str = "ridiculous awful", calm: str = "please kindly") -> list[Labelled]:
    """Texts that hashed words can tell apart."""
    return [
        Labelled(f"{word} {number} {number * 7} {other}", label)
        for label, word in (("annoyed", annoyed), ("calm", calm))
        for number, other in enumerate(WORDS)
    ]


def as_file(found: list[Labelled]) -> bytes:
    return b"".join(msgspec.json.encode(each) + b"\n" for each in found)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, engine="fake")


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def context(settings: Settings, database: Database) -> StepContext:
    return StepContext(settings, database)


MakeHead = Callable[..., Awaitable[Head]]


@pytest.fixture
def make_head(context: StepContext) -> MakeHead:
    async def make(slug: str = "acme", task: Task = "annoyance", **fields: Any) -> Head:
        upload = service.Upload(examples=fields.pop("examples", texts()), **fields)
        async with context.database.transaction() as session:
            tenant = await tenants.get(session, slug)
            row = await service.queue(
                session,
                tenant,
                upload,
                task=task,
                filename="a.jsonl",
                settings=context.settings,
            )
        assert await train_next(context, executor="here")
        async with context.database.reading() as session:
            return await service.get(session, tenant, task, row.version)

    return make
