"""A tenant with a key and a training file, for tests of ``/v1/fine_tuning`` to import."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest_asyncio
from httpx2 import AsyncClient, Response

from server.adapters.service import fine_tuned_name
from server.db.models import Adapter, Job, Tenant
from server.db.session import Database
from server.files import service as files
from server.jobs.steps.context import StepContext
from server.settings import Settings
from server.storage.blobs import BlobStore

Make = Callable[..., Awaitable[Any]]
JOBS = "/v1/fine_tuning/jobs"
THINGS = [
    "hat",
    "lamp",
    "sofa",
    "desk",
    "chair",
    "rug",
    "vase",
    "clock",
    "mirror",
    "shelf",
    "stool",
    "bench",
]


def chat(number: int, **fields: Any) -> dict[str, Any]:
    """An example."""
    return {
        "messages": [
            {"role": "user", "content": f"Where is the {_thing(number)} of the {number * 7}th?"},
            {"role": "assistant", "content": f"It left on day {number}, and comes soon."},
        ],
        **fields,
    }


def _thing(number: int) -> str:
    """What tells examples apart: numbers do not."""
    return THINGS[number] if number < len(THINGS) else f"parcel {number}"


def pair(number: int) -> dict[str, Any]:
    """A preference."""
    return {
        "input": {"messages": chat(number)["messages"][:1]},
        "preferred_output": [{"role": "assistant", "content": f"Tomorrow at {number}."}],
        "non_preferred_output": [{"role": "assistant", "content": f"No idea. {number}"}],
    }


def lines(records: list[Any]) -> bytes:
    """A file of records; those that are bytes as they are."""
    encoded = (each if isinstance(each, bytes) else json.dumps(each).encode() for each in records)
    return b"".join(line + b"\n" for line in encoded)


def row_id(job: dict[str, Any]) -> str:
    """The id of a job's row."""
    return str(job["id"]).removeprefix("ftjob-")


@dataclass
class Tuning:
    """The tenant ``acme``, its key with the scopes ``train`` and ``chat``, and a file of its own."""

    client: AsyncClient
    database: Database
    settings: Settings
    blobs: BlobStore
    tenant: Tenant
    key: dict[str, str]
    file: str = ""

    @property
    def context(self) -> StepContext:
        """What a worker's steps work with."""
        return StepContext(self.settings, self.database)

    async def upload(
        self, data: bytes, *, purpose: str = "fine-tune", tenant: Tenant | None = None
    ) -> str:
        """Put a file under a tenant; its public id."""

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        sha256, size = await self.blobs.put_stream(chunks(), max_bytes=1 << 20)
        async with self.database.transaction() as session:
            file = await files.create(
                session,
                (tenant or self.tenant).id,
                blobs=self.blobs,
                sha256=sha256,
                size_bytes=size,
                filename="chats.jsonl",
                purpose=purpose,
            )
            return files.public_id(file)

    async def ask(self, *, headers: dict[str, str] | None = None, **fields: Any) -> Response:
        """Ask for a job."""
        body = {"model": "tiny-base", "training_file": self.file, **fields}
        return await self.client.post(JOBS, json=body, headers={**self.key, **(headers or {})})

    async def job(self, **fields: Any) -> dict[str, Any]:
        """Make a job."""
        made = await self.ask(**fields)
        assert made.status_code == 200, made.text
        job: dict[str, Any] = made.json()
        return job

    async def get(self, job: dict[str, Any], what: str = "", **params: Any) -> dict[str, Any]:
        """Look at a job, or at what it has."""
        answer = await self.client.get(f"{JOBS}/{job['id']}{what}", params=params, headers=self.key)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def do(self, job: dict[str, Any], action: str) -> tuple[int, dict[str, Any]]:
        """Cancel, pause or resume a job; the status, and the job or the error."""
        answer = await self.client.post(f"{JOBS}/{job['id']}/{action}", headers=self.key)
        body: dict[str, Any] = answer.json()
        return answer.status_code, body.get("error") or body

    async def live(self) -> str | None:
        """The name of the model that is live; None for the base."""
        async with self.database.reading() as session:
            tenant = await session.get_one(Tenant, self.tenant.id)
            if tenant.live_adapter_id is None:
                return None
            adapter = await session.get_one(Adapter, tenant.live_adapter_id)
            return fine_tuned_name(tenant.slug, adapter)

    async def row(self, job: dict[str, Any]) -> Job:
        """A job's row."""
        async with self.database.reading() as session:
            return await session.get_one(Job, row_id(job))

    async def change(self, job: dict[str, Any], **fields: Any) -> None:
        """Change a job's row."""
        async with self.database.transaction() as session:
            row = await session.get_one(Job, row_id(job))
            for name, value in fields.items():
                setattr(row, name, value)

    async def adapter(self, job: dict[str, Any], *, state: str = "ready") -> Adapter:
        """Give a job an adapter, as a worker does before it promotes it."""
        async with self.database.transaction() as session:
            row = await session.get_one(Job, row_id(job))
            tenant = await session.get_one(Tenant, row.tenant_id)
            adapter = Adapter(
                tenant_id=tenant.id,
                version=tenant.next_version,
                engine_name=f"{tenant.slug}.{row.id[-12:]}",
                base_name="tiny-base",
                base_sha256="0" * 64,
                job_id=row.id,
                state=state,
                suffix=row.suffix or "",
            )
            tenant.next_version += 1
            session.add(adapter)
            await session.flush()
            row.state, row.adapter_id = "evaluating", adapter.id
            return adapter


@pytest_asyncio.fixture
async def tuning(
    client: AsyncClient,
    database: Database,
    settings: Settings,
    *,
    blobs: BlobStore,
    make_tenant: Make,
    make_key: Make,
) -> Tuning:
    """A tenant that can train."""
    tenant = await make_tenant()
    key = await make_key("acme", "train", "chat")
    made = Tuning(client, database, settings, blobs, tenant, key)
    made.file = await made.upload(lines([chat(n) for n in range(12)]))
    return made
