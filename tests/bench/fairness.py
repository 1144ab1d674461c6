"""What a greedy neighbour does to a quiet tenant, with the fair line before the engine and without.

    python -m tests.bench.fairness

The engine is the fake one: so many answers at a time, each at a fixed speed, and what is more
waits in it in the order of arrival, as in vLLM. The quiet tenant asks for a short answer twice a
second, whether or not the last one has come (a client that waited would hide the worst), and the
greedy one keeps ``--greedy`` long answers asked for at all times. Then two greedy tenants of unequal
appetite share the engine, and their parts of it are printed.

The server, the engine and the clients are three processes of one machine: read the ratios.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec
import uvloop

TENANTS = ("quiet", "greedy", "other")
UNBOUNDED = 1 << 20
FAIR, NOTHING_KEPT, UNFAIR = "fair", "fair, no place kept", "in the order of arrival"


@dataclass
class Measured:
    """Seconds to the quiet tenant's first words, and tokens that came, by tenant."""

    first_words: list[float] = field(default_factory=list)
    tokens: Counter[str] = field(default_factory=Counter)


class Clients:
    """Everybody who asks one server."""

    def __init__(self, session: aiohttp.ClientSession, where: dict[str, str], words: int) -> None:
        self._session = session
        self._where = where
        self._words = words
        self.measured = Measured()

    async def ask(self, tenant: str, max_tokens: int) -> float:
        """Seconds to the first words of an answer, which is read to its end."""
        body = {
            "model": "fake-base",
            "messages": [{"role": "user", "content": f"A question of {tenant}: " + "why " * 20}],
            "stream": True,
            "max_tokens": max_tokens,
        }
        headers = {"authorization": f"Bearer {self._where[tenant]}"}
        began, first, last = time.perf_counter(), 0.0, b""
        async with self._session.post(
            self._where["url"] + "/v1/chat/completions",
            data=msgspec.json.encode(body),
            headers=headers,
        ) as response:
            if response.status != 200:
                sys.exit(f"{tenant}: {response.status}: {await response.text()}")
            async for data in response.content.iter_any():
                words = data.count(b'"content":"') - data.count(b'"content":""')
                self.measured.tokens[tenant] += words
                first = first or (words and time.perf_counter() - began)
                last = data
        if not last.endswith(b"data: [DONE]\n\n"):
            sys.exit(f"{tenant}: the answer is not complete: {last[-300:]!r}")
        return first

    async def be_greedy(self, tenant: str, clients: int, group: asyncio.TaskGroup) -> list[object]:
        """Keep so many answers asked for until the tasks are cancelled."""

        async def one() -> None:
            while True:
                await self.ask(tenant, self._words)

        return [group.create_task(one()) for _ in range(clients)]

    async def be_quiet(self, asks: int, every: float) -> None:
        """Ask now and then."""

        async def one() -> None:
            self.measured.first_words.append(await self.ask("quiet", 8))

        async with asyncio.TaskGroup() as group:
            for _ in range(asks):
                group.create_task(one())
                await asyncio.sleep(every)


async def quiet_beside(clients: Clients, greedy: int, options: argparse.Namespace) -> Measured:
    """The quiet tenant's figures beside so many of the greedy one's clients."""
    async with asyncio.TaskGroup() as group:
        tasks = await clients.be_greedy("greedy", greedy, group)
        await asyncio.sleep(options.warm if greedy else 0)
        clients.measured = Measured()
        began = time.perf_counter()
        await clients.be_quiet(options.asks, options.every)
        seconds = time.perf_counter() - began
        for task in tasks:
            task.cancel()  # type: ignore[attr-defined]
    clients.measured.tokens["greedy a second"] = round(clients.measured.tokens["greedy"] / seconds)
    return clients.measured


async def two_greedy(clients: Clients, options: argparse.Namespace) -> float:
    """How many times the hungrier one's tokens are the other's, when both always have some waiting."""
    async with asyncio.TaskGroup() as group:
        tasks = await clients.be_greedy("greedy", options.greedy, group)
        tasks += await clients.be_greedy("other", options.greedy // 2, group)
        await asyncio.sleep(options.warm)
        clients.measured = Measured()
        await asyncio.sleep(10)
        tokens = clients.measured.tokens.copy()
        for task in tasks:
            task.cancel()  # type: ignore[attr-defined]
    return tokens["greedy"] / tokens["other"]


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """(median, 99th percentile) in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49] * 1000, cuts[98] * 1000


async def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    if options.serve:
        await serve(options)
        return
    rows: list[tuple[str, Measured]] = []
    shares: dict[str, float] = {}
    for name in (FAIR, NOTHING_KEPT, UNFAIR):
        async with (
            serving(options, how=name) as where,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        ):
            clients = Clients(session, where, options.words)
            if not rows:
                rows.append(("no neighbour", await quiet_beside(clients, 0, options)))
            rows.append((name, await quiet_beside(clients, options.greedy, options)))
            if name != NOTHING_KEPT:
                shares[name] = await two_greedy(clients, options)
    alone = percentiles(rows[0][1].first_words)
    print(
        f"{'quiet tenant, first words':<26} {'p50':>10} {'p99':>10}   of alone's   greedy tokens/s"
    )
    for name, measured in rows:
        p50, p99 = percentiles(measured.first_words)
        print(
            f"{name:<26} {p50:>7.1f} ms {p99:>7.1f} ms {p50 / alone[0]:>6.1f} {p99 / alone[1]:>6.1f}"
            f" {measured.tokens['greedy a second']:>12}"
        )
    for name, share in shares.items():
        print(f"two greedy tenants, {name}: {share:.2f} times the tokens for twice the clients")


@asynccontextmanager
async def serving(options: argparse.Namespace, *, how: str) -> AsyncIterator[dict[str, str]]:
    """Start a server in a process of its own; yields where it is, and each tenant's key."""
    with tempfile.TemporaryDirectory() as home:
        words = ["--serve", home, "--sequences", str(options.sequences)]
        words += ["--speed", str(options.speed), "--words", str(options.words)]
        words += ["--how", how]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.fairness", *words),
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout
        try:
            while not (line := await process.stdout.readline()).startswith(b"{"):
                if not line:
                    sys.exit("the server did not start")
            yield json.loads(line)
        finally:
            process.terminate()
            await process.wait()


async def serve(options: argparse.Namespace) -> None:
    """A server over a fake engine; says where it is."""
    import uvicorn  # noqa: PLC0415 - only this mode needs the server's own packages

    from server.app import create_app  # noqa: PLC0415
    from server.auth import keys  # noqa: PLC0415
    from server.auth.schemas import KeyRequest  # noqa: PLC0415
    from server.db.session import Database  # noqa: PLC0415
    from server.engine.backends.fake import fake_command  # noqa: PLC0415
    from server.engine.service import EngineService  # noqa: PLC0415
    from server.limits import fair_scheduler  # noqa: PLC0415
    from server.settings import Settings  # noqa: PLC0415
    from server.tenants import service as tenants  # noqa: PLC0415
    from server.tenants.schemas import TenantRequest  # noqa: PLC0415

    class Unbounded(EngineService):
        """Takes everything at once, so that nothing waits but in the engine."""

        sequences = UNBOUNDED

    settings = Settings(home=options.serve, base="fake-base")
    settings.adapters.mkdir(parents=True)
    command = fake_command(
        base=settings.base,
        adapters=settings.adapters,
        run=settings.run,
        max_num_seqs=options.sequences,
        tokens_per_second=options.speed,
        words=options.words,
    )
    if options.how == NOTHING_KEPT:
        fair_scheduler._FEW = UNBOUNDED
    kind = Unbounded if options.how == UNFAIR else EngineService
    engine = kind(base=settings.base, run=settings.run, command=command)
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
        where = {}
        async with database.transaction() as session:
            for slug in TENANTS:
                tenant = await tenants.create(session, TenantRequest(slug=slug))
                where[slug], _ = await keys.create(session, KeyRequest(), tenant=tenant)
        port = server.servers[0].sockets[0].getsockname()[1]
        print(json.dumps({"url": f"http://127.0.0.1:{port}", **where}), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=18, help="answers at a time")
    parser.add_argument("--speed", type=float, default=50, help="tokens a second of each answer")
    parser.add_argument("--words", type=int, default=50, help="tokens of the greedy one's answers")
    parser.add_argument("--greedy", type=int, default=64, help="answers that it keeps asked for")
    parser.add_argument("--asks", type=int, default=80, help="of the quiet tenant")
    parser.add_argument("--every", type=float, default=0.4, help="seconds between them")
    parser.add_argument("--warm", type=float, default=4.0, help="seconds before measuring")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--how", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(main(arguments()))
