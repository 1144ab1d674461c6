"""Requests made from the served OpenAPI document, right ones and wrong ones, and what broke.

    python -m tests.bench.schema_cases --cases 5000 [--postgres] [--seed 1]

A server over the fake engine answers a tenant's key with every scope (once more with requests
that make sense, so that much is generated), then the operator's. Prints the number of requests, their answers by status, and every answer that the document does not
allow; exits with 1 when there was one.
"""

import argparse
import asyncio
import dataclasses
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import structlog

from server.auth.schemas import SCOPES
from server.db.session import Database
from server.settings import Settings
from tests.databases import new_database, running_postgres, url_of
from tests.server.api.reference.schema_cases import KEY_OF_ITS_OWN, Outcome, Plan, run
from tests.server.serving import Serving, serving


async def _bench(home: Path, database_url: str, *, cases: int, seed: int) -> Outcome:
    settings = Settings(
        home=home,
        database_url=database_url,
        blobs_url=str(home / "blobs"),
        base="tiny-base",
        engine="fake",
        max_upload_bytes=1_000_000,
        max_body_bytes=100_000,
    )
    database = Database(settings.database)
    await database.migrate()
    total = Outcome()
    async with serving(settings, database, tokens_per_second=1e6) as server:
        await server.tenant()
        await server.adapter()
        while total.cases < cases:
            for plan in await _plans(server, seed=seed):
                total.add(await asyncio.to_thread(run, server.url, plan))
            print(f"{total.cases:,} requests, {len(total.failures)} failures", flush=True)
            seed += 1
    await database.dispose()
    return total


async def _plans(server: Serving, *, seed: int) -> list[Plan]:
    operator = await server.key(None)
    tenant = Plan(
        key=await server.key("acme", *SCOPES),
        examples=40,
        seed=seed,
        slug="acme",
        model="acme",
        leave_out=KEY_OF_ITS_OWN,
    )
    return [
        tenant,
        dataclasses.replace(tenant, meaningful=True),
        Plan(key=operator, examples=40, seed=seed),
    ]


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=5000, help="requests to make at least")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", action="store_true", help="instead of SQLite")
    asked = parser.parse_args()
    structlog.configure(processors=[_drop])
    started = time.perf_counter()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tt")))
        url = str(home / "cases.sqlite")
        if asked.postgres:
            socket = stack.enter_context(running_postgres(home / "pg"))
            url = url_of(socket, asyncio.run(new_database(socket)))
        total = asyncio.run(_bench(home, url, cases=asked.cases, seed=asked.seed))
    for kind, text in total.failures.items():
        print(f"\n{kind}\n{text}")
    told = ", ".join(f"{status}: {count:,}" for status, count in sorted(total.statuses.items()))
    print(
        f"\n{total.cases:,} requests to {len(total.operations)} operations in "
        f"{time.perf_counter() - started:.0f} s; answers {told}; failures: {len(total.failures)}"
    )
    return 1 if total.failures else 0


def _drop(*_: object) -> dict[str, object]:
    raise structlog.DropEvent


if __name__ == "__main__":
    sys.exit(main())
