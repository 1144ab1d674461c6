"""Tables as files: who gets which rows, that no cell is a formula, and that all of a long list comes."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from server import spreadsheets
from server.conversations import inbox
from server.db.models import Adapter, LiveConversation, Person, Visitor, now
from server.errors import Conflict
from server.web.console import downloads


def lines(answer: Any) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith("attachment;")
    return list(csv.DictReader(io.StringIO(answer.text)))


async def talk(database: Any, tenant_id: str, topic: str, *, state: str = "open") -> None:
    async with database.transaction() as session:
        visitor = Visitor(tenant_id=tenant_id, said_name="=Kim")
        session.add(visitor)
        await session.flush()
        about: dict[str, Any] = {"topic": topic, "state": state, "last_at": now()}
        session.add(LiveConversation(tenant_id=tenant_id, visitor_id=visitor.id, **about))


async def test_a_list_is_sent_to_its_end_in_batches_with_one_line_of_names(
    database: Any, monkeypatch: Any
) -> None:
    asked = []

    async def read(session: Any, limit: int, last: int | None) -> list[int]:
        asked.append((limit, last))
        first = 0 if last is None else last + 1
        return list(range(first, min(first + limit, rows)))

    def to_csv(found: Sequence[int]) -> bytes:
        return spreadsheets.to_csv(("number",), ((each,) for each in found))

    monkeypatch.setattr(downloads, "BATCH", 3)
    for rows, batches in ((0, 1), (2, 1), (3, 2), (7, 3)):
        asked.clear()
        answer = await downloads.csv_of_all(database, read, to_csv, "numbers.csv")
        assert len(asked) == 1  # the others are read while they are sent
        parts: Any = answer.iterator
        sent = b"".join([part async for part in parts])
        assert sent.decode().splitlines() == ["number", *map(str, range(rows))]
        assert len(asked) == batches


async def test_a_list_that_cannot_be_read_is_an_error_and_no_file(
    sign_in: Any, make_tenant: Any, monkeypatch: Any
) -> None:
    await make_tenant("acme")
    browser = await sign_in("acme", "viewer")

    async def fail(*_: Any, **__: Any) -> list[Any]:
        raise Conflict("Not now.")

    monkeypatch.setattr(inbox, "list_conversations", fail)
    answer = await browser.get("/console/t/acme/conversations/conversations.csv")
    assert answer.status_code == 409
    assert "content-disposition" not in answer.headers


async def test_the_conversations_of_a_queue_are_a_file(
    sign_in: Any, make_tenant: Any, database: Any, monkeypatch: Any
) -> None:
    acme, zoo = await make_tenant("acme"), await make_tenant("zoo")
    await talk(database, zoo.id, "Theirs")
    await talk(database, acme.id, "+Is my bread late?" + "x" * 500)
    await talk(database, acme.id, "Second", state="handed_over")
    browser = await sign_in("acme", "viewer")
    page = "/console/t/acme/conversations"
    assert f'href="{page}/conversations.csv"' in (await browser.get(page)).text
    monkeypatch.setattr(downloads, "BATCH", 1)
    second, first = lines(await browser.get(f"{page}/conversations.csv"))
    assert (second["topic"], first["name"], first["verified"]) == ("Second", "'=Kim", "no")
    assert first["topic"] == "'" + ("+Is my bread late?" + "x" * 500)[: inbox.LISTED_TOPIC]
    [waiting] = lines(await browser.get(f"{page}/conversations.csv?queue=needs_person"))
    assert waiting["topic"] == "Second"


async def test_the_versions_of_a_tenant_are_a_file(
    sign_in: Any, make_tenant: Any, database: Any
) -> None:
    for slug in ("acme", "zoo"):
        tenant = await make_tenant(slug)
        async with database.transaction() as session:
            adapter = Adapter(
                tenant_id=tenant.id,
                version=1,
                engine_name=f"{slug}.1",
                base_name="=base",
                base_sha256="0" * 64,
                system_prompt="",
                state="ready",
                scores={"new": {"perplexity": 4.5, "token_f1": 0.25, "replies": 9}},
            )
            session.add(adapter)
    browser = await sign_in("acme", "viewer")
    [line] = lines(await browser.get("/console/t/acme/release/versions.csv"))
    assert (line["version"], line["standing"], line["base"]) == ("acme@1", "ready", "'=base")
    assert (line["perplexity"], line["token_f1"], line["parity"]) == ("4.5000", "0.2500", "")


async def test_people_and_tenants_are_files_and_a_tenants_people_see_their_own(
    sign_in: Any, make_tenant: Any, database: Any, monkeypatch: Any
) -> None:
    await make_tenant("acme", name="=Acme")
    await make_tenant("zoo")
    async with database.transaction() as session:
        session.add(Person(email="ana@acme.example", name="@Ana"))
    boss = await sign_in()
    people = {line["email"]: line for line in lines(await boss.get("/console/people/people.csv"))}
    assert people["ana@acme.example"]["name"] == "'@Ana"
    assert people["operator-admin@example.com"]["operator"] == "yes"
    monkeypatch.setattr(downloads, "BATCH", 1)
    found = lines(await boss.get("/console/tenants.csv"))
    assert [(line["slug"], line["name"]) for line in found] == [("acme", "'=Acme"), ("zoo", "zoo")]
    assert found[0]["requests_in_7_days"] == "0"
    theirs = await sign_in("acme", "viewer")
    assert [line["slug"] for line in lines(await theirs.get("/console/tenants.csv"))] == ["acme"]
    assert (await theirs.get("/console/people/people.csv")).status_code == 403
