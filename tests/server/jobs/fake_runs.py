"""Runs that no trainer made: their histories are written through the services, as a worker does it."""

from collections.abc import Sequence
from typing import Any

import msgspec

from server.db.models import Adapter, DatasetVersion, Job, JobState, Tenant
from server.db.scope import across_tenants
from server.db.session import Database
from server.jobs.states import add_event, set_state
from training.config import load_recipe

STARTED = 1_780_000_000.0
"""When fake trainers begin, in seconds since the epoch."""
SCORES = {"perplexity": 5.9, "token_f1": 0.41, "replies": 48}
_JOBS = across_tenants("a test names its run by the id alone")


async def make_run(
    database: Database, tenant: Tenant, *, state: JobState = "running", **fields: Any
) -> Job:
    """A run with a dataset of 260 conversations, in this state."""
    recipe = load_recipe("cpu-small")
    async with database.transaction() as session:
        dataset = DatasetVersion(
            tenant_id=tenant.id,
            sha256="8f3a91" + "0" * 26 + tenant.id,
            counts={"train": 208, "validation": 26, "test": 26},
        )
        query = _JOBS.select(DatasetVersion).where(DatasetVersion.sha256 == dataset.sha256)
        known = await session.scalar(query)
        if known is None:
            session.add(dataset)
            await session.flush()
        made = {
            "base": "tiny-base",
            "recipe_name": recipe.name,
            "recipe": msgspec.to_builtins(recipe),
            "dataset_id": (known or dataset).id,
            **fields,
        }
        job = Job(tenant_id=tenant.id, **made)
        session.add(job)
        await session.flush()
        await add_event(session, job, kind="state", body={"state": "queued"})
    for each in _path_to(state):
        await move(database, job, each)
    return job


def _path_to(state: JobState) -> Sequence[JobState]:
    working: list[JobState] = ["validating", "running", "evaluating"]
    match state:
        case "queued":
            return []
        case "validating" | "running" | "evaluating":
            return working[: working.index(state) + 1]
        case "paused":
            return ["validating", "running", "paused"]
        case _:
            return [*working, state]


async def move(database: Database, job: Job, state: JobState, **more: Any) -> None:
    """Change its state."""
    async with database.transaction() as session:
        found = await _JOBS.get_one(session, Job, job.id, lock=True)
        await set_state(session, found, state, **more)


async def happen(database: Database, job: Job, kind: str, **body: Any) -> None:
    """Add one event."""
    async with database.transaction() as session:
        found = await _JOBS.get_one(session, Job, job.id, lock=True)
        if kind == "step":
            found.progress = {**found.progress, **body}
        if kind == "estimate":
            found.estimate = body
        await add_event(session, found, kind=kind, body=body)


async def estimate(database: Database, job: Job) -> None:
    """The trainer's estimate."""
    await happen(
        database,
        job,
        "estimate",
        at=STARTED,
        seconds=192.0,
        memory_bytes=2_684_354_560,
        train_tokens=26_103,
        steps=40,
        basis="a first batch of 640 tokens took 4.7 s here",
    )


async def step(database: Database, job: Job, number: int, *, of: int = 40, **more: Any) -> None:
    """One step; its loss falls from 3.6 on."""
    body: dict[str, Any] = {
        "at": STARTED + 6 * number,
        "step": number,
        "steps": of,
        "epoch": round(2 * number / of, 3),
        "loss": round(1.2 + 2.4 / (1 + 0.18 * (number - 1)), 4),
        "learning_rate": 1e-3,
        "tokens": 650 * number,
        "tokens_per_second": 112.0 + number % 7,
        "eta_seconds": 6.0 * (of - number),
        "memory_bytes": 2_400_000_000 + 1_000_000 * number,
        "accuracy": 0.5,
    }
    await happen(database, job, "step", **{**body, **more})


async def validation(
    database: Database, job: Job, number: int, *, loss: float, best: bool = True, **more: Any
) -> None:
    """One validation."""
    at = STARTED + 6 * number + 1
    await happen(
        database,
        job,
        "validation",
        **{"at": at, "step": number, "loss": loss, "best": best, **more},
    )


async def make_version(
    database: Database,
    tenant: Tenant,
    job: Job,
    *,
    version: int,
    live: bool = False,
    **fields: Any,
) -> Adapter:
    """The adapter that came of a run; ``live`` makes it answer."""
    async with database.transaction() as session:
        adapter = Adapter(
            tenant_id=tenant.id,
            version=version,
            base_sha256="0" * 64,
            job_id=job.id,
            **{
                "engine_name": f"{tenant.slug}-{version}",
                "base_name": "tiny-base",
                "dataset_id": job.dataset_id,
                "state": "ready",
                "scores": {"new": SCORES},
                **fields,
            },
        )
        session.add(adapter)
        await session.flush()
        found = await _JOBS.get_one(session, Job, job.id, lock=True)
        found.adapter_id = adapter.id
        if live:
            owner = await session.get_one(Tenant, tenant.id)
            owner.live_adapter_id = adapter.id
    return adapter
