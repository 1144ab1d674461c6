"""The heaviest page of the console: conversations, its own time in the server, on both databases.

    python -m tests.bench.conversations [CONVERSATIONS] [REQUESTS]

A tenant has 10,000 conversations of six messages, as random as people's words; the page is asked for
over ASGI, without a network and a browser, one request after the other: its queries, its template, and
all that every page does. Printed are the median and the 95th percentile of 60 requests each.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import insert, text

from server.accounts import sessions
from server.app import create_app
from server.db.models import (
    Handoff,
    LiveConversation,
    LiveMessage,
    Membership,
    Person,
    Visitor,
    new_id,
    now,
)
from server.db.session import Database
from server.settings import Settings
from server.tenants import service as tenants
from server.tenants.schemas import TenantRequest
from tests.databases import new_database, running_postgres, url_of

MESSAGES = 6  # of a conversation
WORDS_EACH = 45  # of a message
AT_ONCE = 5_000  # rows of an INSERT
BAR_MS = {"sqlite": 50, "postgresql": 100}
SEARCH_BAR_MS = 150
SLUG = "acme"
_random = random.Random(17)
_WORDS = [
    "".join(_random.choices("abcdefghijklmnoprstuvw", k=_random.randint(2, 10)))
    for _ in range(3_000)
]
PAGE = f"/console/t/{SLUG}/conversations"


def _sentence() -> str:
    return " ".join(_random.choices(_WORDS, k=WORDS_EACH))


async def _fill(database: Database, conversations: int) -> tuple[str, str]:
    """A tenant with conversations; returns a cookie of one of its people, and a conversation's id."""
    async with database.transaction() as session:
        tenant = await tenants.create(session, TenantRequest(slug=SLUG, name="Acme"))
        person = Person(email="ana@example.com", name="Ana")
        session.add(person)
        await session.flush()
        session.add(Membership(tenant_id=tenant.id, person_id=person.id, role="viewer"))
        cookie = await sessions.begin(session, person, address="", agent="bench")
    rows: dict[Any, list[dict[str, Any]]] = {
        each: [] for each in (Visitor, LiveConversation, LiveMessage, Handoff)
    }
    moment = now()
    for number in range(conversations):
        visitor, talk, owner = new_id(), new_id(), {"tenant_id": tenant.id}
        subject = f"customer-{number}" if number % 3 == 0 else None
        waits = number % 50 == 0
        rows[Visitor].append({"id": visitor, "subject": subject, **owner})
        rows[LiveConversation].append(
            {
                "id": talk,
                "visitor_id": visitor,
                "topic": _sentence()[:200],
                "message_count": MESSAGES,
                "thumbs_down": int(number % 20 == 0),
                "state": "handed_over" if waits else "open",
                "last_at": moment - timedelta(minutes=number),
                **owner,
            }
        )
        for seq in range(1, MESSAGES + 1):
            role = "visitor" if seq % 2 else "assistant"
            rows[LiveMessage].append(
                {"conversation_id": talk, "seq": seq, "role": role, "text": _sentence(), **owner}
            )
        if waits:
            of_it = {"number": number, "email": "a@b.example", "state": "open"}
            rows[Handoff].append({"conversation_id": talk, **of_it, **owner})
    for model, values in rows.items():
        for at in range(0, len(values), AT_ONCE):
            async with database.transaction() as session:
                await session.execute(insert(model), values[at : at + AT_ONCE])
    async with database.transaction() as session:
        await session.execute(text("ANALYZE"))
    return cookie, rows[LiveConversation][7]["id"]


@asynccontextmanager
async def _browser(settings: Settings, cookie: str) -> AsyncIterator[AsyncClient]:
    app = create_app(settings)
    transport = ASGITransport(app=cast("Any", app))
    async with (
        app.lifespan(),
        AsyncClient(transport=transport, base_url="http://test", cookies={"tt": cookie}) as made,
    ):
        yield made


async def _measure(url: str, home: Path, conversations: int, requests: int) -> None:
    settings = Settings(
        home=home, database_url=url, blobs_url=str(home / "blobs"), engine="fake", log_level="error"
    )
    database = Database(settings.database)
    await database.migrate()
    cookie, talk = await _fill(database, conversations)
    await database.dispose()
    kind = "postgresql" if url.startswith("postgresql") else "sqlite"
    micros = round((now() - timedelta(minutes=conversations * 0.9)).timestamp() * 1e6)
    asked = {
        "first page": (PAGE, BAR_MS[kind]),
        "page behind 9 of 10": (f"{PAGE}?after={micros}-{'0' * 32}", BAR_MS[kind]),
        "needs a person": (f"{PAGE}?queue=needs_person", BAR_MS[kind]),
        "thumbs down": (f"{PAGE}?queue=thumbs_down", BAR_MS[kind]),
        "not verified": (f"{PAGE}?queue=unverified", BAR_MS[kind]),
        "one to read": (f"{PAGE}/{talk}", BAR_MS[kind]),
        "search, a word": (f"{PAGE}?q={_WORDS[11]}", SEARCH_BAR_MS),
        "search, two letters": (f"{PAGE}?q=ab", SEARCH_BAR_MS),
        "search, nothing": (f"{PAGE}?q=zzzzzzzz", SEARCH_BAR_MS),
    }
    print(f"{kind}, {conversations:,} conversations, {conversations * MESSAGES:,} messages")
    async with _browser(settings, cookie) as browser:
        for name, (path, bar) in asked.items():
            times = []
            for _ in range(requests + 3):
                began = time.perf_counter()
                answer = await browser.get(path)
                times.append((time.perf_counter() - began) * 1000)
                if answer.status_code != 200:
                    sys.exit(f"{path}: {answer.status_code}")
            times = sorted(times[3:])
            late = times[round(0.95 * len(times)) - 1]
            size = len(answer.content) / 1000
            print(
                f"  {name:22} median {statistics.median(times):6.1f} ms, p95 {late:6.1f} ms, "
                f"bar {bar} ms, {size:.0f} kB"
            )


async def main(conversations: int, requests: int) -> None:
    """Measure on SQLite, then on PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        home = Path(folder)
        await _measure(str(home / "bench.sqlite"), home, conversations, requests)
    with (
        tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryDirectory(prefix="bench-") as home_folder,
        running_postgres(Path(folder)) as socket,
    ):
        url = url_of(socket, await new_database(socket))
        await _measure(url, Path(home_folder), conversations, requests)


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:3]]
    asyncio.run(main(*given, *(10_000, 60)[len(given) :]))
