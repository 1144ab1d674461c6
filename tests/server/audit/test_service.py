"""The audit log: written with each change or not at all, never changed, and read by whose it is."""

import csv
import io
import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import msgspec
import pytest
from dbos import DBOS
from sqlalchemy import update

from server.accounts import service as people
from server.accounts import tries
from server.accounts.oidc import Identity
from server.accounts.passwords import Passwords
from server.accounts.signing_in import SigningIn
from server.adapters import service as adapters
from server.audit import actors, service, words
from server.audit.actions import ACTIONS, GROUPS, Action, Group, actions_of
from server.audit.actors import COMMAND_LINE, WORKER, Actor, acting
from server.audit.schemas import ActorView, AuditEntryView, Filter, Subject
from server.cleanup import Cleaner
from server.db.models import Adapter, AuditEntry, Person, now
from server.errors import Forbidden, Invalid, TooMany
from server.jobs.workflows import Workflows
from server.settings import Limits
from server.tenants import service as tenants
from server.tenants.schemas import TenantPatch

only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ANA = actors.person("a" * 32, name="Ana", email="ana@example.com")
HELPDESK = Subject("key", "k" * 32, "helpdesk")


async def entries(database: Any, tenant: Any = None, **options: Any) -> list[AuditEntryView]:
    async with database.reading() as session:
        return await service.list_entries(
            session, tenant and tenant.id, for_operator=True, **options
        )


async def record(database: Any, *args: Any, **fields: Any) -> None:
    async with database.transaction() as session:
        service.record(session, *args, **{"tenant_id": None, **fields})


def test_every_action_has_words_and_a_group() -> None:
    assert set(ACTIONS) == set(get_args(Action))
    assert set(GROUPS) == set(get_args(Group))
    assert sorted(each for group in GROUPS for each in actions_of(group)) == sorted(ACTIONS)


def test_nothing_but_the_log_itself_touches_its_table() -> None:
    root = Path(service.__file__).parents[1]
    using = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"\bAuditEntry\b", path.read_text())
    }
    assert using == {"audit/service.py", "db/models/__init__.py", "db/models/audit.py"}
    assert ".update(" not in Path(service.__file__).read_text()


async def test_an_entry_says_who_what_and_from_where(database, make_tenant) -> None:
    tenant = await make_tenant()
    with acting(actors.ANONYMOUS, request_id="req_1", address="203.0.113.7"):
        actors.act_as(ANA)
        await record(
            database,
            "key.created",
            tenant_id=tenant.id,
            subject=HELPDESK,
            details={"scopes": ["chat"], "note": "x" * 1000},
        )
    [entry, made] = await entries(database, tenant)
    assert entry.actor == ActorView("person", "a" * 32, "Ana (ana@example.com)")
    assert (entry.request_id, entry.address, entry.tenant) == ("req_1", "203.0.113.7", "acme")
    assert entry.text == "Ana (ana@example.com) made the API key helpdesk."
    assert entry.details["scopes"] == ["chat"]
    assert len(entry.details["note"]) == service.MAX_VALUE + 1
    # outside of all doors it is the system
    assert (made.action, made.actor.kind, made.address) == ("tenant.created", "system", None)
    assert made.text == "The system added the tenant acme."


async def test_what_is_undone_leaves_no_entry(database, make_tenant) -> None:
    tenant = await make_tenant()

    async def fail() -> None:
        async with database.transaction() as session:
            await tenants.update(session, "acme", TenantPatch(name="Other"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert [each.action for each in await entries(database, tenant)] == ["tenant.created"]


async def test_an_entry_is_never_changed(database) -> None:
    await record(database, "key.created", subject=HELPDESK)
    [entry] = await entries(database)
    with pytest.raises(TypeError, match="never changed"):
        async with database.transaction() as session:
            (await session.get(AuditEntry, entry.id)).action = "key.revoked"
    assert await entries(database) == [entry]


async def test_changes_are_old_and_new_but_private_texts_are_only_named(
    database, make_tenant
) -> None:
    tenant = await make_tenant(
        system_prompt="Our secret recipe", limits=Limits(requests_per_minute=5)
    )
    patch = TenantPatch(
        name="Acme Ltd",
        system_prompt="Another recipe",
        limits=Limits(requests_per_minute=9, tokens_per_day=100),
    )
    for _ in range(2):  # the second time nothing differs, and nothing is recorded
        async with database.transaction() as session:
            await tenants.update(session, "acme", patch)
    limits, changed, _ = await entries(database, tenant)
    assert (limits.action, changed.action) == ("tenant.limits_changed", "tenant.changed")
    assert [line.text for line in words.lines_of(limits.details)] == [
        "limits, requests per minute: 5 -> 9",
        "limits, tokens per day: none -> 100",
    ]
    assert [line.text for line in words.lines_of(changed.details)] == [
        "name: acme -> Acme Ltd",
        "system prompt: changed",
    ]
    assert "recipe" not in str(await entries(database))


async def test_the_actor_is_the_one_that_other_records_of_the_change_name(
    database, make_tenant
) -> None:
    tenant = await make_tenant()
    async with database.transaction() as session:
        for version in (1, 2):
            session.add(
                Adapter(
                    tenant_id=tenant.id,
                    version=version,
                    engine_name=f"acme.{version}",
                    base_name="b",
                    base_sha256="0" * 64,
                    system_prompt="",
                    state="ready",
                )
            )
    with acting(WORKER):
        async with database.transaction() as session:
            tenant = await tenants.get(session, "acme")
            await adapters.promote(session, tenant, version=1, actor="job 77")
    with acting(ANA):
        async with database.transaction() as session:
            tenant = await tenants.get(session, "acme")
            await adapters.promote(session, tenant, version=2, actor=ANA.reference)
    with acting(COMMAND_LINE):
        async with database.transaction() as session:
            tenant = await tenants.get(session, "acme")
            await adapters.roll_back(session, tenant, actor=COMMAND_LINE.reference)
    found = (await entries(database, tenant))[:3]
    assert [each.text for each in reversed(found)] == [
        "The worker, job 77 made live acme@1.",
        "Ana (ana@example.com) made live acme@2.",
        "The command line rolled back to acme@1.",
    ]
    async with database.reading() as session:
        steps = await adapters.history(session, tenant)
    assert [step.actor for step in steps] == ["command line", ANA.reference, "job 77"]
    assert [Actor(*msgspec.structs.astuple(each.actor)).reference for each in found] == [
        step.actor for step in steps
    ]
    assert words.lines_of(found[0].details)[0].text == "live: acme@2 -> acme@1"


async def test_the_log_is_filtered_and_goes_on_page_by_page(database, make_tenant) -> None:
    acme, zoo = await make_tenant("acme"), await make_tenant("zoo")
    for actor, tenant in ((ANA, acme), (COMMAND_LINE, acme), (ANA, zoo)):
        with acting(actor):
            await record(database, "key.revoked", tenant_id=tenant.id, subject=HELPDESK)
    await record(database, "sign_in.succeeded")
    assert len(await entries(database)) == 6
    assert [each.tenant for each in await entries(database)] == [
        None, "zoo", "acme", "acme", "zoo", "acme",
    ]  # fmt: skip
    mine = await entries(database, acme)
    assert {each.tenant for each in mine} == {"acme"}
    first = await entries(database, acme, limit=2)
    assert [*first, *await entries(database, acme, after=first[-1].id)] == mine
    for matching, count in (
        (Filter(by="ANA@example"), 2),
        (Filter(by="a" * 32), 2),
        (Filter(by="a" * 31), 0),
        (Filter(by="%"), 0),
        (Filter(by="command", group="key"), 1),
        (Filter(group="tenant"), 2),
        (Filter(first=now().date(), last=now().date()), 6),
        (Filter(last=now().date() - timedelta(days=1)), 0),
        (Filter(first=now().date() + timedelta(days=1)), 0),
    ):
        assert len(await entries(database, matching=matching)) == count, matching


async def test_a_tenant_takes_its_entries_along_and_its_end_is_recorded(
    database, make_tenant
) -> None:
    await make_tenant("zoo")
    await make_tenant("acme")
    with acting(COMMAND_LINE):
        async with database.transaction() as session:
            await tenants.delete(session, "acme")
    ended, other = await entries(database)
    assert ended.text == "The command line deleted, with all that it owned, the tenant acme."
    assert (ended.tenant, other.tenant) == (None, "zoo")


async def test_entries_are_kept_for_as_long_as_the_setting_says(database, blobs) -> None:
    for age in (29, 31):
        await record(database, "key.created", subject=HELPDESK, details={"age": age})
        async with database.transaction() as session:
            [entry, *_] = await service.list_entries(session, None)
            old = update(AuditEntry).where(AuditEntry.id == entry.id)
            await session.execute(old.values(created_at=now() - timedelta(days=age)))
    await Cleaner(database, blobs).clean_up()
    assert len(await entries(database)) == 2
    await Cleaner(database, blobs, audit_keep_days=30).clean_up()
    assert [each.details["age"] for each in await entries(database)] == [29]


@only_sqlite
async def test_a_table_runs_no_formula_and_is_bounded(database, monkeypatch) -> None:
    with acting(Actor("key", "k", "=HYPERLINK(1)")):
        await record(database, "key.created", subject=Subject("key", "k", "@x"), details={"a": 1})
    async with database.reading() as session:
        [row] = csv.DictReader(
            io.StringIO(service.to_csv(await service.export(session, None)).decode())
        )
        assert (row["by"], row["subject"], row["details"]) == ("'=HYPERLINK(1)", "'@x", "a: 1")
        monkeypatch.setattr(service, "MAX_EXPORTED", 0)
        with pytest.raises(Invalid, match="fewer days"):
            await service.export(session, None)


@only_sqlite
async def test_wrong_passwords_are_recorded_once_and_when_they_were_too_many(
    database, monkeypatch
) -> None:
    monkeypatch.setattr(tries, "PER_EMAIL", 3)
    passwords = Passwords()
    signing_in = SigningIn(database, passwords)
    hashed = await passwords.hash("correct horse battery")
    async with database.transaction() as session:
        session.add(Person(email="ana@example.com", name="Ana", password_hash=hashed))

    async def attempt(email: str, password: str, address: str = "203.0.113.7") -> None:
        with acting(actors.ANONYMOUS, address=address):
            await signing_in.with_password(email, password, address=address, agent="test")

    for _ in range(2):
        with pytest.raises(Invalid):
            await attempt("ana@example.com", "wrong")
    await attempt("ana@example.com", "correct horse battery")
    for _ in range(3):
        with pytest.raises(Invalid):
            await attempt("ana@example.com", "wrong", "198.51.100.1")
        with pytest.raises(Invalid):
            await attempt("my-password-in-the-wrong-field", "wrong", "198.51.100.2")
    with pytest.raises(TooMany):
        await attempt("ana@example.com", "wrong", "198.51.100.1")
    found = await entries(database)
    assert [(each.action, each.address, each.subject and each.subject.name) for each in found] == [
        ("sign_in.blocked", "198.51.100.2", "an e-mail address that nobody has"),
        ("sign_in.blocked", "198.51.100.1", "ana@example.com"),
        ("sign_in.failed", "198.51.100.2", "an e-mail address that nobody has"),
        ("sign_in.failed", "198.51.100.1", "ana@example.com"),
        ("sign_in.succeeded", "203.0.113.7", None),
        ("sign_in.failed", "203.0.113.7", "ana@example.com"),
    ]
    assert found[4].details == {"with": "password", "wrong_passwords_before": 2}
    assert found[4].actor.name == "Ana (ana@example.com)"
    assert found[5].actor.kind == "anonymous"
    assert "my-password" not in str(found)


@only_sqlite
async def test_people_are_recorded_by_their_address(database, make_tenant) -> None:
    tenant = await make_tenant()
    with acting(COMMAND_LINE):
        async with database.transaction() as session:
            tenant = await tenants.get(session, "acme")
            person = await people.invite(
                session, "ana@example.com", is_operator=True, tenant=tenant, role="admin"
            )
            await people.set_role(session, person, tenant, None)
    found = (await entries(database))[:4]
    assert [each.text for each in reversed(found)] == [
        "The command line added the person ana@example.com.",
        "The command line made an operator of ana@example.com.",
        "The command line changed the role of ana@example.com.",
        "The command line changed the role of ana@example.com.",
    ]
    assert [words.details_text(each) for each in found[:2]] == [
        "role: admin -> none",
        "role: none -> admin",
    ]
    # what somebody may do in a tenant is in its log, and that they exist is not
    assert len(await entries(database, tenant)) == 3


@only_sqlite
async def test_what_the_organisation_decides_is_not_said_of_the_person(
    database, make_tenant
) -> None:
    await make_tenant()
    signing_in = SigningIn(database, Passwords())
    identity = Identity(
        issuer="https://login.example.com",
        subject="7",
        email="ana@example.com",
        name="Ana",
        roles=("acme:admin",),
    )

    async def come(domains: list[str]) -> None:
        with acting(actors.ANONYMOUS):
            await signing_in.with_identity(identity, domains=domains, address="", agent="test")

    for _ in range(2):
        with pytest.raises(Forbidden):
            await come([])
    await come(["example.com"])
    assert [each.text for each in reversed((await entries(database))[:-1])] == [
        "Somebody who has not signed in came through single sign-on, and was not let in, as "
        "ana@example.com.",
        "The system, single sign-on added the person ana@example.com.",
        "The system, single sign-on changed the role of ana@example.com.",
        "Ana (ana@example.com) signed in.",
    ]


async def test_what_a_step_of_a_job_does_is_the_workers(monkeypatch) -> None:
    async def run(_options: Any, work: Any, *args: Any) -> Any:
        return await work(*args)

    async def who(_context: Any) -> Actor:
        return actors.circumstances().actor

    monkeypatch.setattr(DBOS, "run_step_async", run)
    workflows: Any = SimpleNamespace(_context=None)
    assert await Workflows._step(workflows, who) == WORKER
