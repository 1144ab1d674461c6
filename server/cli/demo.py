"""``tenantune demo``: the whole product once, through its own API, on the sample transcripts."""

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import AsyncGenerator
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import rich_click as click
import uvloop
from rich.table import Table

from server.auth import keys
from server.auth.schemas import KeyRequest
from server.cli.bases import ensure_base
from server.cli.console import EXIT_FAILED, EXIT_USAGE, err, fail, tell
from server.cli.jobs import describe
from server.cli.up import Node, settings_or_fail, stop_seconds, take_home
from server.db.session import Database
from server.jobs.schemas import FINAL_STATES, JobEventView
from server.logs import configure_logging
from server.settings import Settings
from server.shutdown import Stopped
from server.shutdown import run as run_until_stopped
from training.errors import TrainingError

QUESTION = "I was charged twice this month. Can I get my money back?"
ENGINE_SECONDS = 600.0
POLL_SECONDS = 0.5


class Sample(msgspec.Struct, frozen=True):
    """A fictional tenant and its transcripts."""

    slug: str
    name: str
    file: str
    system_prompt: str


SAMPLES = (
    Sample(
        "loaf",
        "Lumen & Loaf",
        "loaf.jsonl",
        "You are the customer desk of Lumen & Loaf, a bakery that delivers bread boxes.",
    ),
    Sample(
        "northgate",
        "Northgate Water",
        "northgate.csv",
        "You are the customer office of Northgate Water, a water utility.",
    ),
)


class DemoFailed(Exception):
    """A part did not work; says which."""


class Api:
    """The server, as a program sees it."""

    def __init__(self, client: aiohttp.ClientSession, key: str) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {key}"}

    async def call(self, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401 - JSON
        """One request; its JSON.

        Raises:
            DemoFailed: the answer was an error.
        """
        async with self._client.request(method, path, headers=self._headers, **options) as reply:
            body = await reply.read()
            if reply.status >= 300:  # noqa: PLR2004 - any but success
                raise DemoFailed(f"{method} {path}: {reply.status} {body.decode()[:300]}")
            return msgspec.json.decode(body) if body else None

    async def exists(self, path: str) -> bool:
        """Whether there is something."""
        async with self._client.get(path, headers=self._headers) as reply:
            return reply.status == 200  # noqa: PLR2004

    async def ask(self, model: str, question: str) -> str:
        """The answer to one question, streamed."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 96,
            "stream": True,
        }
        words = []
        async with self._client.post("/v1/chat/completions", json=body, headers=self._headers) as r:
            if r.status != 200:  # noqa: PLR2004
                raise DemoFailed(f"chat with {model}: {r.status} {(await r.text())[:300]}")
            done = False
            async for line in r.content:
                data = line.decode().removeprefix("data: ").strip()
                if data == "[DONE]":
                    done = True
                elif data.startswith("{"):
                    chunk = msgspec.json.decode(data)
                    if "error" in chunk:
                        raise DemoFailed(f"chat with {model}: {chunk['error']['message']}")
                    words += [c["delta"].get("content") or "" for c in chunk["choices"]]
        if not done:
            raise DemoFailed(f"chat with {model}: the stream ended early")
        return "".join(words).strip()


class Demo:
    """One run."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._began = time.monotonic()
        self.keys: dict[str, str] = {}
        self.shown = False

    def say(self, line: str) -> None:
        """A line with the time since the start."""
        seconds = int(time.monotonic() - self._began)
        tell((f"{seconds // 60}:{seconds % 60:02}", "dim"), f"  {line}")

    async def run(self, question: str, *, check: bool) -> None:
        """Everything, then stay up (or not, with ``check``)."""
        await ensure_base(self._settings, say=self.say)
        node = Node(self._settings, say=self.say)
        async with node.running(), self._api(node) as api:
            # On two cores, an engine that starts beside a training run makes both take longer
            # than one after the other (a first batch took 35 s instead of 2).
            await node.engine.wait_ready(ENGINE_SECONDS)
            results = {sample.slug: await self._teach(api, sample) for sample in SAMPLES}
            answers = await self._ask(node, question)
            self._show(question, answers, results)
            self._verify(answers, results)
            self._invite(node)
            self.shown = True
            if not check:
                await node.wait()

    @contextlib.asynccontextmanager
    async def _api(self, node: Node) -> AsyncGenerator[Api]:
        database = Database(self._settings.database)
        async with database.transaction() as session:
            for old in await keys.list_for(session, None):
                if old.label == "demo":
                    await keys.revoke(session, old.id, tenant=None)
            self.keys["operator"], _ = await keys.create(
                session, KeyRequest(label="demo"), tenant=None
            )
        await database.dispose()
        timeout = aiohttp.ClientTimeout(total=300)
        async with aiohttp.ClientSession(node.url, timeout=timeout) as client:
            yield Api(client, self.keys["operator"])

    async def _teach(self, api: Api, sample: Sample) -> dict[str, Any]:
        """Import and train one tenant, or find it trained on just this already; its live adapter."""
        path = f"/admin/tenants/{sample.slug}"
        if not await api.exists(path):
            tenant = {"slug": sample.slug, "name": sample.name}
            tenant["system_prompt"] = sample.system_prompt
            await api.call("POST", "/admin/tenants", json=tenant)
        imported = await self._import(api, sample)
        trained = await self._already_trained(api, sample, imported)
        if trained:
            self.say(f"{sample.slug:9} {trained['model']} was trained on these transcripts before")
        else:
            job = await self._unfinished(api, sample, imported)
            if job is None:
                job = await api.call("POST", f"{path}/jobs", json={"recipe": _recipe()})
            job = await self._follow(api, sample, job["id"])
            await self._decide(api, sample, job)
        for adapter in await api.call("GET", f"{path}/adapters"):
            if adapter["live"]:
                return dict(adapter)
        raise DemoFailed(f"no adapter of {sample.slug} is live")

    async def _import(self, api: Api, sample: Sample) -> dict[str, Any]:
        data = (resources.files("connectors.samples") / sample.file).read_bytes()
        path = f"/admin/tenants/{sample.slug}"
        imported = await api.call(
            "POST", f"{path}/transcripts", params={"filename": sample.file}, data=data
        )
        while imported["state"] in {"queued", "running"}:
            await asyncio.sleep(POLL_SECONDS)
            imported = await api.call("GET", f"{path}/imports/{imported['id']}")
        if imported["state"] != "done":
            raise DemoFailed(f"import of {sample.file}: {imported['error']}")
        report = imported["report"]
        redacted = sum(report["redacted"].values())
        self.say(
            f"{sample.slug:9} {sample.file}: {report['read']} conversations, {redacted} personal "
            f"details redacted"
        )
        return dict(imported)

    async def _already_trained(
        self, api: Api, sample: Sample, imported: dict[str, Any]
    ) -> dict[str, Any] | None:
        path = f"/admin/tenants/{sample.slug}"
        jobs = {job["id"]: job for job in await api.call("GET", f"{path}/jobs")}
        for adapter in await api.call("GET", f"{path}/adapters"):
            job = jobs.get(adapter["job"] or "")
            if (
                adapter["live"]
                and job
                and job["recipe"] == _recipe()
                and adapter["base"] == self._settings.base
                and job["created_at"] > imported["created_at"]
            ):
                return dict(adapter)
        return None

    async def _decide(self, api: Api, sample: Sample, job: dict[str, Any]) -> None:
        """Promote what the gates leave to a person: a slow machine trains for minutes only.

        Raises:
            DemoFailed: they say that it is worse.
        """
        outcome = job["outcome"]
        if outcome["promoted"]:
            return
        if outcome["gates"] == "worse":
            raise DemoFailed(f"{job['adapter']} was not promoted: {outcome['reason']}")
        version = int(job["adapter"].rpartition("@")[2])
        await api.call("POST", f"/admin/tenants/{sample.slug}/promote", json={"version": version})
        self.say(f"{sample.slug:9} promoted by hand, as a person may where gates cannot tell")

    async def _unfinished(
        self, api: Api, sample: Sample, imported: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The job of a demo that was stopped: the worker goes on with it."""
        for job in await api.call("GET", f"/admin/tenants/{sample.slug}/jobs"):
            if (
                job["state"] not in {*FINAL_STATES, "paused", "awaiting_approval"}
                and job["recipe"] == _recipe()
                and job["created_at"] > imported["created_at"]
            ):
                return dict(job)
        return None

    async def _follow(self, api: Api, sample: Sample, job_id: str) -> dict[str, Any]:
        path = f"/admin/tenants/{sample.slug}/jobs/{job_id}"
        seen = 0
        while True:
            job = await api.call("GET", path)
            events = await api.call("GET", f"{path}/events", params={"after": seen})
            for event in msgspec.convert(events, list[JobEventView], strict=False):
                seen = event.seq
                if text := describe(event):
                    self.say(f"{sample.slug:9} {text}")
            if not events and job["state"] in FINAL_STATES:
                break
            await asyncio.sleep(POLL_SECONDS)
        if job["state"] != "succeeded":
            reason = (job["error"] or {}).get("message", "")
            raise DemoFailed(f"training of {sample.slug} {job['state']}: {reason}")
        return dict(job)

    async def _ask(self, node: Node, question: str) -> dict[str, str]:
        """The same question to the base and to both tenants, each with its own key."""
        answers: dict[str, str] = {}
        async with aiohttp.ClientSession(node.url) as client:
            for sample in SAMPLES:
                self.keys[sample.slug] = await self._tenant_key(client, sample.slug)
                api = Api(client, self.keys[sample.slug])
                if not answers:
                    answers["base"] = await api.ask(self._settings.base, question)
                answers[sample.slug] = await api.ask(sample.slug, question)
        return answers

    async def _tenant_key(self, client: aiohttp.ClientSession, slug: str) -> str:
        operator = Api(client, self.keys["operator"])
        path = f"/admin/tenants/{slug}/keys"
        for old in await operator.call("GET", path):
            if old["label"] == "demo" and not old["revoked_at"]:
                await operator.call("DELETE", f"{path}/{old['id']}")
        made = await operator.call(
            "POST", path, json={"label": "demo", "scopes": ["chat", "train"]}
        )
        return str(made["key"])

    def _show(
        self, question: str, answers: dict[str, str], results: dict[str, dict[str, Any]]
    ) -> None:
        shown = Table(title=f"“{question}”", title_style="bold", show_lines=True)
        shown.add_column(f"base\n{self._settings.base}", ratio=1)
        for sample in SAMPLES:
            shown.add_column(f"{sample.name}\n{results[sample.slug]['model']}", ratio=1)
        shown.add_row(answers["base"], *(answers[sample.slug] for sample in SAMPLES))
        for name, key, form in (
            ("held-out perplexity", "perplexity", "{:.2f}"),
            ("replies just like the agent's", "exact", "{:.0%}"),
            ("token F1", "token_f1", "{:.2f}"),
            ("same meaning (cosine)", "similarity", "{:.2f}"),
        ):
            cells = [
                f"{name}: {form.format(scores['new'][key])}\n"
                f"(base {form.format(scores['base'][key])}"
                + (
                    f", lookup {form.format(scores['lookup'][key])})"
                    if scores["lookup"].get(key) is not None
                    else ")"
                )
                for scores in (results[sample.slug]["scores"] for sample in SAMPLES)
            ]
            shown.add_row("", *cells)
        err.print()
        err.print(shown, width=min(err.width, 120))

    def _verify(self, answers: dict[str, str], results: dict[str, dict[str, Any]]) -> None:
        """What ``--check`` vouches for.

        Raises:
            DemoFailed: answers are empty or the same, or an adapter is no better than the base.
        """
        if not all(answers.values()) or len(set(answers.values())) != len(answers):
            raise DemoFailed(f"the three answers are not three: {answers}")
        for slug, adapter in results.items():
            scores = adapter["scores"]
            if not scores["new"]["perplexity"] < scores["base"]["perplexity"]:
                raise DemoFailed(f"{slug}: the adapter is no better than the base")

    def _invite(self, node: Node) -> None:
        tell(f"\nserver        {node.url}")
        for who, key in self.keys.items():
            tell(f"key {who:9} {key}")
        tell(
            f"\ncurl {node.url}/v1/chat/completions -H 'Authorization: Bearer {self.keys['loaf']}' \\\n"
            "  -H 'Content-Type: application/json' \\\n"
            '  -d \'{"model": "loaf", "messages": [{"role": "user", "content": "Is there a fee '
            "to skip a week?\"}]}'\n",
        )


def _recipe() -> str:
    return "gpu-24gb" if shutil.which("nvidia-smi") else "cpu-demo"


@click.command()
@click.option("--check", is_flag=True, help="Leave when done: 0 only if every part worked.")
@click.option("--ask", default=QUESTION, show_default=True, help="What all three are asked.")
@click.option("--home", type=click.Path(path_type=Path), help="Data folder [TENANTUNE_HOME].")
def demo(ask: str, home: Path | None, *, check: bool) -> None:
    """Two fictional tenants from transcripts to served assistants; stays up until Ctrl-C."""
    settings = settings_or_fail(home=home)
    configure_logging(msgspec.structs.replace(settings, log_level="warning"))
    take_home(settings)
    run = Demo(settings)
    try:
        try:
            run_until_stopped(
                run.run(ask, check=check),
                seconds=stop_seconds(settings),
                loop_factory=uvloop.new_event_loop,
            )
        except* DemoFailed as failures:
            for failure in failures.exceptions:
                tell(("error:", "bold red"), f" {failure}")
            sys.exit(EXIT_FAILED)
    except TrainingError as exc:
        fail(str(exc), code=EXIT_USAGE)
    except Stopped as exc:
        if not run.shown:
            fail(f"{exc}; the same command goes on from there", code=exc.status)
    if check:
        run.say("all parts worked")
