"""Is it alive, can it answer, and what does it measure. Open to all: nothing here is a secret."""

import asyncio
from typing import Literal

import msgspec
from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from server.db.session import Database
from server.engine.service import EngineService
from server.metrics import Metrics

DATABASE_SECONDS = 2.0


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
    ) -> Response[Readiness]:
        """200 when chats are answered, else 503 with the reasons."""
        checks = {"database": await _database(database), "engine": _engine(engine)}
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


def _engine(engine: EngineService | None) -> Check:
    if engine is None:
        return Check(ok=False, state="absent", reason="this server runs no engine")
    if engine.draining:
        return Check(ok=False, state="stopping", reason="open answers finish, new ones are refused")
    status = engine.status
    return Check(ok=status.state == "ready", state=status.state, reason=status.detail or None)
