"""What the server costs: first token and tokens a second through it, and from the engine directly.

    python -m tests.bench.serving --server http://127.0.0.1:8000 --key tt_... --model acme \
        --engine-socket ~/.local/share/tenantune/run/engine.sock --engine-model acme.0123456789ab \
        --system "the adapter's system prompt"
    python -m tests.bench.serving --fake

Both ways are asked for the same answers by turns, in the same run, so that whatever else the
machine does meets both. ``--system`` is what the server puts first: without the same words the
engine's work differs. ``--fake`` starts a server of its own over the fake engine; its
tokens cost nothing to make, so that what is left is the server's own work.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psutil
import uvloop

QUESTIONS = (
    "Tell me at length how you would help somebody whose order has not arrived.",
    "Write down everything that I should know before I open an account, step by step.",
    "Explain in many sentences what your company does and how I can reach you.",
    "My card was declined twice today and I am abroad. What should I do, in detail?",
    "Describe a typical day in the shop from opening to closing.",
    "List all the ways in which I can pay and what is good and bad about each.",
    "I want to complain about a delivery. Please tell me the whole procedure.",
    "Compare your three most popular products for somebody who has never bought one.",
)


@dataclass(frozen=True)
class Way:
    """Where and how to ask."""

    name: str
    session: aiohttp.ClientSession
    url: str
    headers: dict[str, str]
    model: str
    system: str | None


@dataclass
class Round:
    """One way, asked by so many clients at once."""

    way: str
    streams: int
    seconds: float
    tokens: int
    first_token_ms: list[float]

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


async def ask(way: Way, question: str, max_tokens: int) -> tuple[float, int]:
    """(seconds to the first words, tokens of the answer)."""
    messages = [{"role": "user", "content": question}]
    if way.system is not None:
        messages.insert(0, {"role": "system", "content": way.system})
    body = {
        "model": way.model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    began = time.perf_counter()
    first, tokens, rest = 0.0, 0, b""
    async with way.session.post(
        way.url, data=msgspec.json.encode(body), headers=way.headers
    ) as response:
        if response.status != 200:
            sys.exit(f"{way.name}: {response.status}: {await response.text()}")
        async for data in response.content.iter_any():
            if not first and b'"content":"' in data.replace(b'"content":""', b""):
                first = time.perf_counter() - began
            rest = (rest + data)[-4096:]
    for event in rest.split(b"\n\n"):
        if b'"usage":{' in event:
            tokens = json.loads(event.removeprefix(b"data: "))["usage"]["completion_tokens"]
    if not tokens or not rest.endswith(b"data: [DONE]\n\n"):
        sys.exit(f"{way.name}: the answer is not complete: {rest[-300:]!r}")
    return first, tokens


async def play(way: Way, streams: int, *, asks: int, max_tokens: int) -> Round:
    """``streams`` clients, each asking ``asks`` times in a row."""
    firsts: list[float] = []
    tokens = 0

    async def client(number: int) -> None:
        nonlocal tokens
        for turn in range(asks):
            question = f"({number}.{turn}) {QUESTIONS[(number + turn) % len(QUESTIONS)]}"
            first, count = await ask(way, question, max_tokens)
            firsts.append(first * 1000)
            tokens += count

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(streams):
            group.create_task(client(number))
    return Round(way.name, streams, time.perf_counter() - began, tokens, firsts)


def summary(streams: int, rounds: list[Round]) -> dict[str, Any]:
    """Ratios between neighbours in time, and the middle of them."""
    ours = [found for found in rounds if found.way == "server"]
    direct = [found for found in rounds if found.way == "engine"]
    ratios = sorted(
        a.tokens_per_second / b.tokens_per_second for a, b in zip(ours, direct, strict=True)
    )
    firsts = {
        way: [ms for found in found_rounds for ms in found.first_token_ms]
        for way, found_rounds in (("server", ours), ("engine", direct))
    }
    return {
        "streams": streams,
        "rounds": len(ours),
        "server_tokens_per_second": statistics.median(r.tokens_per_second for r in ours),
        "engine_tokens_per_second": statistics.median(r.tokens_per_second for r in direct),
        "ratio": statistics.median(ratios),
        "ratio_lowest": ratios[0],
        "ratio_highest": ratios[-1],
        "server_first_token_ms": statistics.median(firsts["server"]),
        "engine_first_token_ms": statistics.median(firsts["engine"]),
        "added_first_token_ms": statistics.median(firsts["server"])
        - statistics.median(firsts["engine"]),
    }


async def compare(server: Way, engine: Way, options: argparse.Namespace) -> dict[str, Any]:
    """Ask both by turns, at each number of streams."""
    result: dict[str, Any] = {"levels": [], "rounds": []}
    process = psutil.Process(options.server_pid) if options.server_pid else None
    print(
        f"{'streams':>7} {'server t/s':>11} {'engine t/s':>11} {'ratio':>6} {'(range)':>13} "
        f"{'server ttft':>12} {'engine ttft':>12} {'added':>8}"
        + (f" {'cpu us/token':>13}" if process else "")
    )
    for streams in options.streams:
        plan = {"asks": options.asks, "max_tokens": options.max_tokens}
        for way in (server, engine):
            await play(way, streams, **plan)  # warm: prefix caches, connections, adapters
        rounds: list[Round] = []
        cpu, tokens = 0.0, 0
        for number in range(options.rounds):
            for way in (server, engine) if number % 2 == 0 else (engine, server):
                before = sum(process.cpu_times()[:2]) if process else 0.0
                rounds.append(await play(way, streams, **plan))
                if process and way is server:
                    cpu += sum(process.cpu_times()[:2]) - before
                    tokens += rounds[-1].tokens
        level = summary(streams, rounds)
        if process:
            level["server_cpu_us_per_token"] = cpu / tokens * 1e6
        result["levels"].append(level)
        result["rounds"] += [asdict(found) for found in rounds]
        print(
            f"{streams:>7} {level['server_tokens_per_second']:>11.1f} "
            f"{level['engine_tokens_per_second']:>11.1f} {level['ratio']:>6.3f} "
            f"{level['ratio_lowest']:>6.3f}-{level['ratio_highest']:<6.3f} "
            f"{level['server_first_token_ms']:>9.1f} ms {level['engine_first_token_ms']:>9.1f} ms "
            f"{level['added_first_token_ms']:>+5.1f} ms"
            + (f" {level['server_cpu_us_per_token']:>13.1f}" if process else ""),
            flush=True,
        )
    return result


async def serve_fake(home: Path, speed: float) -> None:
    """A server over the fake engine, in a process of its own; says where it is."""
    import uvicorn  # noqa: PLC0415 - only this mode needs the server's own packages

    from server.app import create_app  # noqa: PLC0415
    from server.auth import keys  # noqa: PLC0415
    from server.auth.schemas import KeyRequest  # noqa: PLC0415
    from server.db.models import Adapter  # noqa: PLC0415
    from server.db.session import Database  # noqa: PLC0415
    from server.engine.backends.fake import fake_command  # noqa: PLC0415
    from server.engine.service import EngineService  # noqa: PLC0415
    from server.settings import Settings  # noqa: PLC0415
    from server.tenants import service as tenants  # noqa: PLC0415
    from server.tenants.schemas import TenantRequest  # noqa: PLC0415

    settings = Settings(home=home, base="fake-base")
    name = "acme.000000000001"
    (settings.adapters / name).mkdir(parents=True)
    (settings.adapters / name / "manifest.json").write_text("{}")
    command = fake_command(
        base=settings.base, adapters=settings.adapters, run=settings.run, tokens_per_second=speed
    )
    engine = EngineService(base=settings.base, run=settings.run, command=command)
    database = Database(settings.database)
    app = create_app(settings, engine=engine, database=database)
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", access_log=False)
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.02)
        await engine.wait_ready(60)
        async with database.transaction() as session:
            tenant = await tenants.create(session, TenantRequest(slug="acme"))
            key, _ = await keys.create(session, KeyRequest(), tenant=tenant)
            adapter = Adapter(
                tenant_id=tenant.id,
                version=1,
                engine_name=name,
                base_name=settings.base,
                base_sha256="0" * 64,
                system_prompt="",
                state="ready",
            )
            session.add(adapter)
            await session.flush()
            tenant.live_adapter_id = adapter.id
        port = server.servers[0].sockets[0].getsockname()[1]
        where = {"server": f"http://127.0.0.1:{port}", "key": key, "model": "acme"}
        where |= {"engine_socket": str(command.uds), "engine_model": name}
        print(json.dumps(where), flush=True)


@asynccontextmanager
async def fake(options: argparse.Namespace) -> AsyncIterator[None]:
    """Start that server, and fill in where it is."""
    with tempfile.TemporaryDirectory() as home:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.bench.serving",
            "--serve-fake",
            home,
            "--tokens-per-second",
            str(options.tokens_per_second),
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout
        try:
            while not (line := await process.stdout.readline()).startswith(b"{"):
                if not line:
                    sys.exit("the server did not start")
            for name, value in json.loads(line).items():
                setattr(options, name, value)
            options.server_pid = process.pid
            yield
        finally:
            process.terminate()
            await process.wait()


async def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    if options.serve_fake:
        await serve_fake(options.serve_fake, options.tokens_per_second)
        return
    async with (
        fake(options) if options.fake else _nothing(),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as near,
        aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(options.engine_socket), limit=0)
        ) as direct,
    ):
        path = "/v1/chat/completions"
        key = {"authorization": f"Bearer {options.key}", "content-type": "application/json"}
        plain = {"content-type": "application/json"}
        server = Way("server", near, options.server + path, key, options.model, None)
        engine = Way(
            "engine", direct, "http://engine" + path, plain, options.engine_model, options.system
        )
        result = await compare(server, engine, options)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    else:
        print(json.dumps(result["levels"]))


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", help="the server's URL")
    parser.add_argument("--server-pid", type=int, help="to measure its CPU time as well")
    parser.add_argument("--key", help="a tenant's key with the scope 'chat'")
    parser.add_argument("--model", help="the model to ask the server for")
    parser.add_argument("--engine-socket", help="the engine's unix socket")
    parser.add_argument("--engine-model", help="the same model by the engine's name")
    parser.add_argument("--system", default=None, help="the system prompt that the server adds")
    parser.add_argument(
        "--streams", default="1,8,32", type=lambda text: [int(part) for part in text.split(",")]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--asks", type=int, default=2, help="answers for each stream in a round")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--fake", action="store_true", help="start a server of its own")
    parser.add_argument("--tokens-per-second", type=float, default=1e6, help="of that one's engine")
    parser.add_argument("--serve-fake", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.fake and not options.serve_fake:
        needed = ("server", "key", "model", "engine_socket", "engine_model")
        if missing := [name for name in needed if not getattr(options, name)]:
            parser.error("give " + ", ".join("--" + name.replace("_", "-") for name in missing))
    return options


if __name__ == "__main__":
    uvloop.run(main(arguments()))
