"""The audit log's pages and addresses: whose it is, filters, pages, and a table to take away."""

import csv
import io
from typing import Any

import msgspec
import pytest
from bs4 import BeautifulSoup
from sqlalchemy import select

from server.audit import actors, service
from server.audit.actors import COMMAND_LINE, Actor, acting
from server.audit.schemas import Subject
from server.db.models import Person, now
from server.settings import Limits
from server.tenants import service as tenants
from server.tenants.schemas import TenantPatch

PAGE = "/console/t/acme/audit"
ALL = "/console/audit"
INJECTED = "<script>alert(1)</script>"


def soup(answer: Any) -> BeautifulSoup:
    return BeautifulSoup(answer.text, "html.parser")


def words(part: Any) -> str:
    return " ".join(part.get_text(" ").split())


def lines(answer: Any) -> list[str]:
    """What each entry says, without when and from where."""
    assert answer.status_code == 200, answer.text
    return [words(each) for each in soup(answer).select(".entries > li > div")]


@pytest.fixture
async def used(make_tenant: Any, database: Any) -> None:
    """Two tenants, in which something was done."""
    await make_tenant("zoo")
    await make_tenant("acme", name="Acme")
    with acting(COMMAND_LINE):
        async with database.transaction() as session:
            patch = TenantPatch(system_prompt="Be kind.", limits=Limits(requests_per_minute=20))
            await tenants.update(session, "acme", patch)
    with acting(Actor("key", "k" * 32, INJECTED), request_id="req_1", address="203.0.113.7"):
        async with database.transaction() as session:
            tenant = await tenants.get(session, "acme")
            subject = Subject("key", "x" * 32, "=cmd()")
            many = {f"field_{number}": number for number in range(6)}
            service.record(
                session, "key.created", tenant_id=tenant.id, subject=subject, details=many
            )


async def test_a_tenants_admin_reads_who_did_what(sign_in: Any, used: None) -> None:
    browser = await sign_in("acme")
    answer = await browser.get(PAGE)
    assert lines(answer) == [
        f"An API key, {INJECTED} made the API key =cmd() field 0: 0 field 1: 1 field 2: 2 field 3: 3 "
        "2 more field 4: 4 field 5: 5",
        "The command line changed the limits of the tenant acme "
        "limits: was the installation's → , is now requests per minute 20",
        "The command line changed settings of the tenant acme system prompt: changed",
        "The system added the tenant acme name: Acme",
    ]
    assert "Be kind." not in answer.text
    assert INJECTED not in answer.text
    assert "from 203.0.113.7" in words(soup(answer).select_one("main"))
    assert not soup(answer).select("a[rel=next]")
    # whom to look for is a link
    link = soup(answer).select(".entries a")[1]
    assert len(lines(await browser.get(str(link["href"])))) == 2


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("by=COMMAND", 2),
        ("group=tenant", 3),
        ("group=nonsense&first=never", 4),
        ("by=command&group=key", 0),
        ("last=2020-01-01", 0),
        (f"first={now().date()}", 4),
    ],
)
async def test_filters_are_kept_from_page_to_page(
    sign_in: Any, used: None, query: str, count: int, *, monkeypatch: Any
) -> None:
    monkeypatch.setattr(service, "PAGE", 1)
    browser = await sign_in("acme")
    found, where = 0, f"{PAGE}?{query}"
    while True:
        answer = await browser.get(where)
        found += len(lines(answer))
        older = soup(answer).select_one("a[rel=next]")
        if older is None:
            break
        where = str(older["href"])
    assert found == count
    if not count:
        assert "Nothing found" in words(soup(answer).select_one("main"))
        assert not soup(answer).select("a.csv")


async def test_what_is_older_than_the_oldest_is_nothing(sign_in: Any, used: None) -> None:
    answer = await (await sign_in("acme")).get(f"{PAGE}?after=0")
    assert "There are no older entries" in words(soup(answer).select_one("main"))


async def test_an_operator_reads_all_of_it(sign_in: Any, used: None) -> None:
    boss = await sign_in()
    answer = await boss.get(ALL)
    assert len(lines(answer)) == 5
    places = {words(each) for each in soup(answer).select(".entries p a")}
    assert places == {"acme", "zoo"}
    table = await boss.get(f"{ALL}/entries.csv?group=key")
    assert table.headers["content-disposition"] == 'attachment; filename="audit.csv"'
    [row] = csv.DictReader(io.StringIO(table.text))
    assert (row["tenant"], row["subject"], row["request_id"]) == ("acme", "'=cmd()", "req_1")


async def test_the_log_is_for_admins_and_for_their_own_tenant(sign_in: Any, used: None) -> None:
    reviewer = await sign_in("acme", "reviewer")
    assert (await reviewer.get(PAGE)).status_code == 403
    assert "Audit log" not in words(soup(await reviewer.get("/console/t/acme")))
    zoo = await sign_in("zoo")
    assert (await zoo.get(PAGE)).status_code == 404
    assert (await zoo.get(ALL)).status_code == 403
    assert len(lines(await zoo.get("/console/t/zoo/audit"))) == 1
    table = await zoo.get("/console/t/zoo/audit/entries.csv")
    assert table.text.count("\n") == 2
    assert "acme" not in table.text


async def test_programs_read_the_same_page_by_page(
    client: Any, operator: dict[str, str], make_key: Any, used: None
) -> None:
    path = "/admin/tenants/acme/audit"
    key = await make_key("acme", "admin")
    first = (await client.get(f"{path}?limit=2", headers=key)).json()
    rest = (await client.get(f"{path}?after={first[-1]['id']}", headers=key)).json()
    assert [each["action"] for each in [*first, *rest]] == [
        "key.created",  # the one that reads
        "key.created",
        "tenant.limits_changed",
        "tenant.changed",
        "tenant.created",
    ]
    changed = rest[0]
    assert changed["text"] == "The command line changed the limits of the tenant acme."
    assert changed["actor"] == {"kind": "command_line", "id": None, "name": "command line"}
    assert changed["details"]["changes"] == [
        {
            "field": "limits",
            "old": "the installation's",
            "new": msgspec.structs.asdict(Limits(requests_per_minute=20)),
        }
    ]
    table = await client.get(f"{path}?format=csv&by=command", headers=key)
    assert len(list(csv.DictReader(io.StringIO(table.text)))) == 2
    for query in ("group=nonsense", "first=never", "limit=0", "limit=1001"):
        assert (await client.get(f"{path}?{query}", headers=key)).status_code == 400, query
    every = (await client.get("/admin/audit", headers=operator)).json()
    assert {each["tenant"] for each in every} == {None, "acme", "zoo"}
    assert (await client.get("/admin/audit", headers=key)).status_code == 403
    other = await make_key("zoo", "admin")
    assert (await client.get(path, headers=other)).status_code == 404
    trainer = await make_key("acme", "train")
    assert (await client.get(path, headers=trainer)).status_code == 403


async def test_a_tenants_people_and_keys_are_not_told_who_an_operator_is(
    client: Any,
    operator: dict[str, str],
    sign_in: Any,
    *,
    make_key: Any,
    make_tenant: Any,
    database: Any,
) -> None:
    acme = await make_tenant("acme")
    boss, ana = await sign_in(), await sign_in("acme")
    async with database.transaction() as session:
        person = (await session.scalars(select(Person).where(Person.is_operator))).one()
        ana_ = (await session.scalars(select(Person).where(Person.is_operator.is_(False)))).one()
    subject = Subject("person", person.id, person.email)
    by_ana = actors.person(ana_.id, name=ana_.name, email=ana_.email)
    by_boss = actors.person(person.id, name="Olga", email=person.email, is_operator=True)
    by_key = Actor("operator_key", "o" * 32, "Olga's key", is_operator=True)
    for actor, of in ((by_boss, None), (by_key, None), (by_ana, subject)):
        with acting(actor, request_id="req_1", address="198.51.100.4"):
            async with database.transaction() as session:
                service.record(session, "tenant.changed", tenant_id=acme.id, subject=of)
    key = await make_key("acme", "admin")
    api, page_csv = "/admin/tenants/acme/audit", f"{PAGE}/entries.csv"
    secrets = {person.email, person.id, "Olga", "o" * 32}
    for browser, headers, paths in (
        (ana, {}, (PAGE, page_csv, f"{PAGE}?by=Olga", f"{PAGE}?by=the+operator+of+this")),
        (client, key, (api, f"{api}?format=csv", f"{api}?by={person.id}")),
    ):
        for path in paths:
            answer = await browser.get(path, headers=headers)
            assert answer.status_code == 200
            told = answer.text.replace('value="Olga"', "")  # what was typed into the filter
            told = told.replace("by=Olga", "")
            assert not {each for each in secrets if each in told}, path
    told = lines(await ana.get(PAGE))
    assert f"{by_ana.name} changed settings of the tenant the operator of this server" in told
    assert told.count("The operator of this server changed settings of the tenant") == 2
    assert "Nothing found" in (await ana.get(f"{PAGE}?by=Olga")).text
    for words_ in ("operator", "the operator of this server"):
        found = await ana.get(f"{PAGE}?by={words_}")
        assert len(lines(found)) >= 2
        assert "198.51.100.4" not in found.text
    assert (await client.get(f"{api}?by={person.id}", headers=key)).json() == []
    # an operator is told
    for browser, headers, path in (
        (boss, {}, PAGE),
        (boss, {}, page_csv),
        (client, operator, api),
        (client, operator, f"{api}?format=csv"),
        (boss, {}, ALL),
    ):
        told = (await browser.get(path, headers=headers)).text
        assert person.email in told
        assert "Olga" in told
        assert "198.51.100.4" in told
