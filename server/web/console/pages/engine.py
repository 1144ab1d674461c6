"""The engine and the workers, for operators: what they do, what waits for them, and what they take."""

from typing import Any, NamedTuple
from urllib.parse import urlsplit

from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts.schemas import Viewer
from server.audit import service as audit
from server.db.session import Database
from server.engine import overview
from server.engine.service import EngineService
from server.errors import Conflict
from server.jobs import workers
from server.jobs.heartbeat import LOST_SECONDS
from server.limits.fair_scheduler import FairScheduler
from server.settings import Settings
from server.storage import space
from server.storage.blobs import BlobStore
from server.tenants import service as tenants
from server.versions import main_versions
from server.web.console.figures import about, duration, number, size
from server.web.console.forms import see_other
from server.web.console.rendering import page
from server.web.console.session import signed_in

PATH = "/console/engine"
TONES: dict[str, str] = {"ok": "ok", "going": "cand", "warn": "warn", "bad": "bad"}
DONE = {"restart": "The engine ends now, and starts again."}


class QueueLine(NamedTuple):
    """A tenant in the fair queue."""

    slug: str
    name: str
    running: int
    waiting: int


class EngineController(Controller):
    """The engine, the workers, the disk, the versions."""

    include_in_schema = False
    path = PATH
    guards = (signed_in("operator"),)

    @get()
    async def show(
        self,
        request: Request[Any, Any, Any],
        *,
        database: NamedDependency[Database],
        engine: NamedDependency[EngineService | None],
        fair_queue: NamedDependency[FairScheduler],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
    ) -> Response[str]:
        """All of it."""
        taken = await space.measure(settings, database, blobs)
        return await page(
            request,
            "engine/page.html",
            **await _now(database, engine, fair_queue),
            space=taken,
            uploads_at=urlsplit(settings.blobs).scheme,
            versions=main_versions(),
            size=size,
            done=DONE.get(request.query_params.get("done", ""), ""),
        )

    @get("/now")
    async def now(
        self,
        request: Request[Any, Any, Any],
        *,
        database: NamedDependency[Database],
        engine: NamedDependency[EngineService | None],
        fair_queue: NamedDependency[FairScheduler],
    ) -> Response[str]:
        """What changes by itself: a part of the page."""
        return await page(request, "engine/now.html", **await _now(database, engine, fair_queue))

    @get("/restart")
    async def ask_to_restart(
        self,
        request: Request[Any, Any, Any],
        engine: NamedDependency[EngineService | None],
    ) -> Response[str]:
        """Ask once more, and say how long answers stop."""
        seen = await overview.overview(engine) if engine is not None else None
        return await page(request, "engine/restart.html", seen=seen, about=about)

    @post("/restart")
    async def restart(
        self,
        viewer: NamedDependency[Viewer],
        database: NamedDependency[Database],
        engine: NamedDependency[EngineService | None],
    ) -> Response[Any]:
        """End the engine and start it again."""
        if engine is None:
            raise Conflict("This server runs no engine.", code="no_engine")
        async with database.transaction() as session:
            audit.record(session, "engine.restarted", tenant_id=None)
        engine.restart(f"{viewer.name or viewer.email} restarted the engine")
        return see_other(f"{PATH}?done=restart")


async def _now(
    database: Database, engine: EngineService | None, fair_queue: FairScheduler
) -> dict[str, Any]:
    """What the part of the page shows that changes by itself."""
    seen = await overview.overview(engine) if engine is not None else None
    async with database.reading() as session:
        live = await workers.list_workers(session)
        waiting = await workers.list_waiting(session, live)
        queue = await _queue(session, fair_queue)
    return {
        "seen": seen,
        "state": overview.state_of(engine),
        "tones": TONES,
        "queue": queue,
        "queued": fair_queue.waiting,
        "workers": live,
        "waiting": waiting,
        "lost": f"{LOST_SECONDS:.0f} s",
        "number": number,
        "duration": duration,
    }


async def _queue(session: AsyncSession, fair_queue: FairScheduler) -> list[QueueLine]:
    """The tenants that have a request at the engine or in the queue, who waits most first."""
    running, waiting = fair_queue.running_of, fair_queue.waiting_of
    names = await tenants.names_of(session, {*running, *waiting})
    lines = [
        QueueLine(*name, running=running.get(tenant_id, 0), waiting=waiting.get(tenant_id, 0))
        for tenant_id, name in names.items()
    ]
    return sorted(lines, key=lambda line: (-line.waiting, -line.running, line.name))
