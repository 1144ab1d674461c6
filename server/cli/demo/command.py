"""The ``demo`` command: starts the node, prepares both tenants, asks, compares."""

import contextlib
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import msgspec
import rich_click as click
import uvloop

from server.auth import keys
from server.auth.schemas import KeyRequest
from server.cli.bases import ensure_base
from server.cli.console import EXIT_FAILED, EXIT_USAGE, fail, print_message
from server.cli.demo.api_client import ApiClient, DemoFailed
from server.cli.demo.results import print_comparison, print_next_steps, verify
from server.cli.demo.samples import SAMPLES
from server.cli.demo.tenant import DemoTenant
from server.cli.up import Node, lock_home, settings_or_fail, stop_seconds
from server.db.session import Database
from server.logs import configure_logging
from server.settings import Settings
from server.shutdown import Stopped
from server.shutdown import run as run_until_stopped
from training.errors import TrainingError

QUESTION = "I was charged twice this month. Can I get my money back?"
KEY_LABEL = "demo"
ENGINE_SECONDS = 600.0
REQUEST_SECONDS = 300.0


class Demo:
    """One run of the demo.

    ``keys`` holds the operator's key and each tenant's. ``shown`` is true once the results are on
    the terminal: stopping after that is no failure.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._started = time.monotonic()
        self.keys: dict[str, str] = {}
        self.shown = False

    def on_progress(self, line: str) -> None:
        """Print a line with the time since the start."""
        seconds = int(time.monotonic() - self._started)
        print_message((f"{seconds // 60}:{seconds % 60:02}", "dim"), f"  {line}")

    async def run(self, question: str, *, check: bool) -> None:
        """Everything once; then stay up, unless ``check``."""
        base = self._settings.base
        await ensure_base(self._settings, on_progress=self.on_progress)
        node = Node(self._settings, on_progress=self.on_progress)
        async with node.running(), self._operator(node) as api:
            # On two cores, an engine that starts beside a training run makes both take longer
            # than one after the other (a first batch took 35 s instead of 2).
            await node.engine.wait_ready(ENGINE_SECONDS)
            adapters = {
                sample.slug: await DemoTenant(
                    api, sample, base=base, on_progress=self.on_progress
                ).prepare()
                for sample in SAMPLES
            }
            answers = await self._ask(node, question)
            print_comparison(question, answers, adapters, base=base)
            verify(answers, adapters)
            print_next_steps(node.url, self.keys)
            self.shown = True
            if not check:
                await node.wait()

    @contextlib.asynccontextmanager
    async def _operator(self, node: Node) -> AsyncGenerator[ApiClient]:
        """A client with a new operator's key; the key of an earlier demo is revoked."""
        database = Database(self._settings.database)
        async with database.transaction() as session:
            for old in await keys.list_for(session, None):
                if old.label == KEY_LABEL:
                    await keys.revoke(session, old.id, tenant=None)
            self.keys["operator"], _ = await keys.create(
                session, KeyRequest(label=KEY_LABEL), tenant=None
            )
        await database.dispose()
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        async with aiohttp.ClientSession(node.url, timeout=timeout) as client:
            yield ApiClient(client, self.keys["operator"])

    async def _ask(self, node: Node, question: str) -> dict[str, str]:
        """The same question to the base and to both tenants, each with its own key."""
        answers: dict[str, str] = {}
        async with aiohttp.ClientSession(node.url) as client:
            for sample in SAMPLES:
                self.keys[sample.slug] = await self._tenant_key(client, sample.slug)
                api = ApiClient(client, self.keys[sample.slug])
                if not answers:
                    answers["base"] = await api.ask(self._settings.base, question)
                answers[sample.slug] = await api.ask(sample.slug, question)
        return answers

    async def _tenant_key(self, client: aiohttp.ClientSession, slug: str) -> str:
        """A new key of the tenant; that of an earlier demo is revoked."""
        operator = ApiClient(client, self.keys["operator"])
        path = f"/admin/tenants/{slug}/keys"
        for old in await operator.call("GET", path):
            if old["label"] == KEY_LABEL and not old["revoked_at"]:
                await operator.call("DELETE", f"{path}/{old['id']}")
        created = await operator.call(
            "POST", path, json={"label": KEY_LABEL, "scopes": ["chat", "train"]}
        )
        return str(created["key"])


@click.command()
@click.option("--check", is_flag=True, help="Leave when done: 0 only if every part worked.")
@click.option("--ask", default=QUESTION, show_default=True, help="What all three are asked.")
@click.option("--home", type=click.Path(path_type=Path), help="Data folder [TENANTUNE_HOME].")
def demo(ask: str, home: Path | None, *, check: bool) -> None:
    """Two fictional tenants from transcripts to served assistants; stays up until Ctrl-C."""
    settings = settings_or_fail(home=home)
    configure_logging(msgspec.structs.replace(settings, log_level="warning"))
    run = Demo(settings)

    async def show() -> None:
        await lock_home(settings)
        await run.run(ask, check=check)

    try:
        try:
            run_until_stopped(
                show(),
                seconds=stop_seconds(settings),
                loop_factory=uvloop.new_event_loop,
            )
        except* DemoFailed as failures:
            for failure in failures.exceptions:
                print_message(("error:", "bold red"), f" {failure}")
            sys.exit(EXIT_FAILED)
    except TrainingError as exc:
        fail(str(exc), code=EXIT_USAGE)
    except Stopped as exc:
        if not run.shown:
            fail(f"{exc}; the same command goes on from there", code=exc.status)
    if check:
        run.on_progress("all parts worked")
