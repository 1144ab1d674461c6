"""Is it alive, can it answer, and what does it measure. Open to all: nothing here is a secret."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from server.blobs import BlobStore
from server.db.session import Database
from server.engine.service import EngineService
from server.metrics import Metrics
from server.settings import Settings

DATABASE_SECONDS = 2.0
ENOUGH_BYTES = 1 << 20  # some of the database's transactions


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that must be well; ``reason`` is for people."""

    ok: bool
    state: str
    reason: str | None = None


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests are answered now, and if not, why."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, Check]


class HealthController(Controller):
    """``/health`` and ``/metrics``."""

    @get("/health/live")
    async def live(self) -> dict[str, str]:
        """The process answers; nothing else is asked."""
        return {"status": "alive"}

    @get(
        "/health/ready",
        responses={503: ResponseSpec(Readiness, description="Not now; says why.")},
    )
    async def ready(
        self,
        database: NamedDependency[Database],
        engine: NamedDependency[EngineService | None],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
    ) -> Response[Readiness]:
        """200 when chats are answered and what is sent can be kept, else 503 with the reasons."""
        written = {
            "the data folder": settings.home,
            "the database": database.folder,
            "uploads": blobs.folder,
        }
        checks = {
            "database": await _database(database),
            "disk": await asyncio.to_thread(_disk, written),
            "engine": _engine(engine),
        }
        ready = all(check.ok for check in checks.values())
        headers = {"cache-control": "no-store"}
        if not ready:
            headers["retry-after"] = "2"
        return Response(
            Readiness(status="ready" if ready else "not_ready", checks=checks),
            status_code=200 if ready else 503,
            headers=headers,
        )

    @get("/metrics", opt={"answers": {"text/plain": str}})
    async def metrics(self, metrics: NamedDependency[Metrics]) -> Response[bytes]:
        """Figures for Prometheus."""
        content, content_type = metrics.render()
        # as a header: to a media type of text Litestar would add a second charset
        return Response(content, headers={"content-type": content_type})


async def _database(database: Database) -> Check:
    try:
        async with asyncio.timeout(DATABASE_SECONDS), database.reading() as session:
            await session.execute(text("SELECT 1"))
    except (SQLAlchemyError, OSError, TimeoutError) as exc:
        return Check(ok=False, state="unavailable", reason=type(exc).__name__)
    return Check(ok=True, state="available")


def _disk(written: Mapping[str, Path | None]) -> Check:
    """Whether there is room wherever this server writes: folders by what is there."""
    for what, folder in written.items():
        if folder is None:
            continue
        there = next(path for path in (folder, *folder.parents) if path.exists())
        try:
            found = os.statvfs(there)
        except OSError as exc:
            return Check(ok=False, state="unavailable", reason=f"{what}: {exc.strerror}")
        if found.f_bavail * found.f_frsize < ENOUGH_BYTES:
            return Check(ok=False, state="full", reason=f"no room is left for {what}")
        if found.f_files and not found.f_favail:  # 0 of 0 where files are not counted
            return Check(ok=False, state="full", reason=f"no more files fit for {what}")
    return Check(ok=True, state="available")


def _engine(engine: EngineService | None) -> Check:
    if engine is None:
        return Check(ok=False, state="absent", reason="this server runs no engine")
    if engine.draining:
        return Check(ok=False, state="stopping", reason="open answers finish, new ones are refused")
    status = engine.status
    return Check(ok=status.state == "ready", state=status.state, reason=status.detail or None)
