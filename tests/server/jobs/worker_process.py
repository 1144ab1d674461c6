"""A real worker over a data folder, and work for it, for tests that stop and kill it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server.db.session import Database
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.tenants import service as tenants
from server.transcripts import service as transcripts


def hostile(lines: int) -> bytes:
    """Numbers in groups, the slowest of what redaction meets: seconds for each MiB."""
    text = "my numbers " + "1/1/1/1 4 1 1 1 07 911 1 " * 40
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]
    return (json.dumps({"messages": turns}) + "\n").encode() * lines


SHORT = (
    b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}\n'
)


@contextmanager
def worker(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    (home / "run").mkdir(parents=True, exist_ok=True)
    with (home / "run" / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.worker"],
            env={**os.environ, "TENANTUNE_HOME": str(home), "TENANTUNE_ENGINE": "fake"},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


async def wait_until(database: Database, kind: Any, row_id: str, states: set[str]) -> Any:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        async with database.reading() as session:
            row = await session.get_one(kind, row_id)
        if row.state in states:
            return row
        await asyncio.sleep(0.1)
    raise AssertionError(f"still {row.state}")


async def upload(database: Database, settings: Settings, slug: str, data: bytes) -> str:
    async def chunks() -> AsyncIterator[bytes]:
        yield data

    blobs = BlobStore.open(settings.blobs)
    sha256, size = await blobs.put_stream(chunks(), max_bytes=1 << 30)
    async with database.transaction() as session:
        tenant = await tenants.get(session, slug)
        row, _ = await transcripts.queue_import(
            session, tenant, sha256=sha256, size_bytes=size, filename=f"{slug}.jsonl"
        )
        return row.id
