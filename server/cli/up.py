"""``tenantune up``: server, engine and worker on this machine, from one command."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import rich_click as click
import structlog
import uvicorn
import uvloop

from server.accounts import links
from server.accounts import service as people
from server.api.protocol import BoundedProtocol, BoundedServer, raise_file_limit
from server.app import create_app
from server.child_processes import run_child
from server.cli.bases import OnProgress, ensure_base, has_base
from server.cli.console import EXIT_CONFLICT, EXIT_FAILED, EXIT_USAGE, fail, stderr
from server.db.session import Database
from server.engine.build import build_engine
from server.engine.service import EngineService
from server.errors import ServerError
from server.home import claim
from server.logs import configure_logging
from server.settings import Settings, SettingsError
from server.shutdown import Stopped, run
from server.webhooks.vault import Vault
from training.errors import TrainingError
from training.locks import try_lock

log = structlog.get_logger(__name__)

WORKER_BACKOFF_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)
WORKER_STOP_SECONDS = 8.0  # its own limit is shorter
OPEN_REQUEST_SECONDS = 1  # for requests that are still open when the engine has ended
AFTER_DRAIN_SECONDS = 4.0  # the engine's end, and the server's


class _Uvicorn(BoundedServer):
    """uvicorn without its own signal handlers: the node drains the engine first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _open_socket(host: str, port: int) -> socket.socket:
    """Take the port before anything is started, so that a taken one fails at once."""
    try:
        return socket.create_server((host, port), backlog=2048)
    except OSError as exc:
        fail(
            f"cannot listen on {host}:{port} ({exc.strerror}); choose another with --port or "
            "TENANTUNE_PORT",
            code=EXIT_CONFLICT,
        )


class Node:
    """Everything that ``up`` runs, in one task group: server, engine and worker.

    Args:
        settings: Of the node.
        on_progress: Takes each line about what starts, changes and ends.
    """

    def __init__(self, settings: Settings, *, on_progress: OnProgress) -> None:
        self.settings = settings
        self._on_progress = on_progress
        self._stop = asyncio.Event()
        try:
            self.engine: EngineService = build_engine(settings)
        except SettingsError as exc:
            fail(str(exc), code=EXIT_USAGE)
        self._app = create_app(settings, engine=self.engine)
        raise_file_limit()
        self._socket = _open_socket(settings.host, settings.port)
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=OPEN_REQUEST_SECONDS,
            server_header=False,
            http=BoundedProtocol,
        )
        self._server = _Uvicorn(config)

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://{self.settings.host}:{self.settings.port}"

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run inside this context; leaving it stops everything in the right order.

        Open answers may finish, for ``drain_seconds``.
        """
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._server.serve(sockets=[self._socket]))
            worker = group.create_task(self._supervise_worker())
            watching = group.create_task(self._report_engine_state())
            serving.add_done_callback(lambda _: self._stop.set())
            try:
                await self._wait_until_started(serving)
                yield
            finally:
                self._on_progress("stopping  open answers may finish first")
                watching.cancel()
                worker.cancel()
                await self._stop_serving(serving)
                # the group would cancel them halfway
                await asyncio.wait([serving, worker])

    async def _wait_until_started(self, serving: asyncio.Task[None]) -> None:
        while not self._server.started and not serving.done():  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.05)
        if serving.done():
            raise SystemExit(EXIT_FAILED)
        self._on_progress(f"server    listening on {self.url}")

    async def _stop_serving(self, serving: asyncio.Task[None]) -> None:
        """Let go of the pages that follow runs and finish the answers, then ask the server to end."""
        if self._server.started:
            self._app.state.job_feed.close()
        await self.engine.stop(grace_seconds=self.settings.drain_seconds)
        self._server.should_exit = True
        if not self._server.started:
            serving.cancel()

    async def wait(self) -> None:
        """Wait until the server ends; by itself it does so only after a fault."""
        await self._stop.wait()

    async def _report_engine_state(self) -> None:
        last = ""
        async for status in self.engine.subscribe():
            line = f"engine    {status.state}" + (f": {status.detail}" if status.detail else "")
            if line != last:
                self._on_progress(line)
                last = line

    async def _supervise_worker(self) -> None:
        """Keep one worker alive; when cancelled, let it save and end."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            code = await run_worker(self.settings)
            failures = failures + 1 if loop.time() - started < 60 else 0  # noqa: PLR2004 - a minute
            pause = WORKER_BACKOFF_SECONDS[min(failures, len(WORKER_BACKOFF_SECONDS) - 1)]
            self._on_progress(
                f"worker    ended with status {code}; starting again in {pause:.0f} s "
                f"({self.settings.run / 'worker.log'})"
            )
            await asyncio.sleep(pause)


async def run_worker(settings: Settings) -> int:
    """Run a worker process to its end; cancelled, it saves first."""
    settings.run.mkdir(parents=True, exist_ok=True)
    with (settings.run / "worker.log").open("ab") as log_file:
        return await run_child(
            [sys.executable, "-m", "server.worker", "--with-parent"],
            stdout=log_file,
            stderr=log_file,
            env=settings.child_environment(),
            stop_seconds=WORKER_STOP_SECONDS,
        )


def stop_seconds(settings: Settings) -> float:
    """How long a node may take to stop before it is killed."""
    return settings.drain_seconds + AFTER_DRAIN_SECONDS


async def _prepare_base(settings: Settings, *, on_progress: OnProgress) -> None:
    """Make the base where something uses it: with the fake engine only training does.

    vLLM serves it, also at ``engine_url``, and its chat template says how tools are called.
    """
    if settings.engine != "fake":
        await ensure_base(settings, on_progress=on_progress)
    elif not has_base(settings):
        on_progress(
            f"base      {settings.base} is not there: the fake engine needs none, but before "
            f"you train: `tenantune bases add {settings.base}`"
        )


async def lock_home(settings: Settings) -> None:
    """Allow one ``up`` for a data folder, and close the folder to other users."""
    if try_lock(settings.run / "up.lock") is None:
        fail(f"`tenantune up` already runs on {settings.home}", code=EXIT_CONFLICT)
    try:
        claim(settings, thorough=True)
        await _check_database(settings)
    except (SettingsError, ServerError) as exc:
        fail(str(exc), code=EXIT_USAGE)


async def _check_database(settings: Settings) -> None:
    """Migrate the database and open the vault: what fails here would keep the server from starting."""
    database = Database(settings.database)
    try:
        await database.migrate()
        await Vault(settings).open(database)
    finally:
        await database.dispose()


async def _offer_first_link(settings: Settings, *, on_progress: OnProgress) -> None:
    """Where nobody may do everything yet: a link to become the one who may."""
    database = Database(settings.database)
    try:
        async with database.transaction() as session:
            if await people.has_operator(session):
                return
            token = await links.make_first(session)
    finally:
        await database.dispose()
    on_progress("console   nobody can sign in yet: open this link within 30 minutes, it works once")
    on_progress(f"          {links.url_of(settings, token)}")


def settings_or_fail(
    *, home: Path | None = None, host: str | None = None, port: int | None = None
) -> Settings:
    """Settings from the environment; exits where they are wrong."""
    try:
        settings = Settings.from_env(home=home, host=host, port=port)
    except SettingsError as exc:
        fail(str(exc), code=EXIT_USAGE)
    for folder in (settings.home, settings.run, settings.adapters):
        folder.mkdir(parents=True, exist_ok=True)
    return settings


@click.command()
@click.option("--home", type=click.Path(path_type=Path), help="Data folder [TENANTUNE_HOME].")
@click.option("--host", help="Address to listen on [TENANTUNE_HOST].")
@click.option("--port", type=int, help="Port to listen on [TENANTUNE_PORT].")
def up(home: Path | None, host: str | None, port: int | None) -> None:
    """Start the server, the engine and a worker; stop with Ctrl-C."""
    settings = settings_or_fail(home=home, host=host, port=port)
    configure_logging(settings)

    def on_progress(line: str) -> None:
        stderr.print(line, markup=False)

    ran = False

    async def serve() -> None:
        nonlocal ran
        await lock_home(settings)
        on_progress(f"data      {settings.home}")
        await _prepare_base(settings, on_progress=on_progress)
        node = Node(settings, on_progress=on_progress)
        async with node.running():
            ran = True
            await _offer_first_link(settings, on_progress=on_progress)
            await node.wait()

    try:
        run(serve(), seconds=stop_seconds(settings), loop_factory=uvloop.new_event_loop)
    except TrainingError as exc:
        fail(str(exc), code=EXIT_USAGE)
    except Stopped as exc:
        if not ran:
            fail(f"{exc} before it ran", code=exc.status)
