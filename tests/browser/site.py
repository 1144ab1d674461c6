"""A whole server in this process, for browsers: a fake engine, SQLite, and people who are signed in."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from litestar import Controller, Litestar
from sqlalchemy.ext.asyncio import AsyncSession

from server.accounts import sessions
from server.api.protocol import BoundedProtocol
from server.app import create_app
from server.db.models import Membership, Person, Role
from server.db.session import Database
from server.engine.backends.fake import fake_command
from server.engine.service import EngineService
from server.settings import Settings
from server.tenants import service as tenants
from tests.conftest import FAST

T = TypeVar("T")
OPERATOR = "operator"
WAIT_SECONDS = 30


class _Server(uvicorn.Server):
    """Leaves the test runner's signal handlers alone."""

    def capture_signals(self) -> Any:
        return nullcontext()


@dataclass
class Site:
    """A server that runs in a thread of its own, and what tests do to it."""

    url: str
    app: Litestar
    engine: EngineService
    database: Database
    settings: Settings
    loop: asyncio.AbstractEventLoop
    cookies: dict[str, str] = field(default_factory=dict)

    def run(self, work: Awaitable[T]) -> T:
        """Await something on the server's own event loop."""

        async def wait() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(wait(), self.loop).result(WAIT_SECONDS)

    def write(self, change: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Change the database in a transaction."""

        async def wait() -> T:
            async with self.database.transaction() as session:
                return await change(session)

        return self.run(wait())

    def sign_in(self, who: str) -> str:
        """The cookie of a person: ``operator``, ``loaf:admin`` for a role in a tenant, else without one.

        The person is made the first time, and stays signed in.
        """
        if who not in self.cookies:
            self.cookies[who] = self.write(lambda session: _sign_in(session, who))
        return self.cookies[who]


async def _sign_in(session: AsyncSession, who: str) -> str:
    slug, _, role = who.partition(":")
    names = {"admin": "Mara Lindqvist", "reviewer": "Jon Bell", "viewer": "Aki Tanaka"}
    person = Person(
        email=f"{role or slug}@{slug}.example",
        name=names.get(role, "Olga Prat"),
        is_operator=who == OPERATOR,
        password_hash="none",
    )
    session.add(person)
    await session.flush()
    if role:
        tenant = await tenants.get(session, slug)
        of_role: Role = role  # type: ignore[assignment]
        session.add(Membership(tenant_id=tenant.id, person_id=person.id, role=of_role))
    return await sessions.begin(session, person, address="127.0.0.1", agent="a test")


@contextmanager
def running_site(
    home: Path, *controllers: type[Controller], port: int = 0, **engine: Any
) -> Iterator[Site]:
    """Run a server; ``controllers`` are of the test, ``engine`` are options of the fake engine.

    With a ``port`` and a ``home`` from before it is the same installation after a restart.
    """
    settings = Settings(
        home=home,
        database_url=str(home / "site.sqlite"),
        blobs_url=str(home / "blobs"),
        engine="fake",
        base="smollm2-135m-instruct",
        port=0,
        drain_seconds=0,
    )
    settings.adapters.mkdir(parents=True, exist_ok=True)
    command = fake_command(
        base=settings.base, adapters=settings.adapters, run=settings.run, **engine
    )
    service = EngineService(
        base=settings.base, run=settings.run, command=command, timing=FAST, probe_seconds=60.0
    )
    database = Database(settings.database)
    app = create_app(settings, engine=service, database=database)
    for controller in controllers:
        app.register(controller)
    server = _Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=port,
            log_config=None,
            access_log=False,
            http=BoundedProtocol,
        )
    )
    started: list[asyncio.AbstractEventLoop] = []

    async def live() -> None:
        started.append(asyncio.get_running_loop())
        await server.serve()

    thread = threading.Thread(target=asyncio.run, args=(live(),), name="site", daemon=True)
    thread.start()
    try:
        _wait_for(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Site(f"http://127.0.0.1:{port}", app, service, database, settings, started[0])
    finally:
        if started:  # as `tenantune up` does: pages that follow runs would keep it from ending
            started[0].call_soon_threadsafe(app.state.job_feed.close)
        server.should_exit = True
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive(), "the server does not stop"


def _wait_for(condition: Callable[[], bool]) -> None:
    tick = threading.Event()
    for _ in range(WAIT_SECONDS * 50):
        if condition():
            return
        tick.wait(0.02)
    raise AssertionError("the server does not start")
