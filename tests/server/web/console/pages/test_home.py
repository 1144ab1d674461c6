"""All tenants, and the home of one."""

from datetime import timedelta
from typing import Any

import pytest

from server.db.models import (
    Adapter,
    ConversationRow,
    Import,
    Job,
    JobState,
    Membership,
    Promotion,
    Record,
    Tenant,
    UsageDay,
    now,
)
from server.db.scope import across_tenants
from server.db.session import Database
from server.web.console.pages import home
from training.data.dataset import MIN_EXAMPLES


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


async def add(database: Database, *rows: Record) -> None:
    async with database.transaction() as session:
        session.add_all(rows)
        await session.flush()


def a_job(tenant: Tenant, state: JobState, **fields: Any) -> Job:
    return Job(tenant_id=tenant.id, state=state, base="b", recipe_name="cpu-small", **fields)


def a_version(tenant: Tenant, version: int) -> Adapter:
    return Adapter(
        tenant_id=tenant.id,
        version=version,
        engine_name=f"{tenant.slug}.{version:012x}",
        base_name="b",
        base_sha256="0" * 64,
        state="ready",
    )


async def test_operators_see_every_tenant_and_others_theirs(sign_in, make_tenant):
    for slug in ("acme", "zoo", "bistro"):
        await make_tenant(slug)
    operator = (await (await sign_in()).get("/console")).text
    assert [operator.index(f'<a href="/console/t/{slug}">') for slug in ("acme", "bistro", "zoo")]
    answer = await (await sign_in("acme", "viewer")).get("/console")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/t/acme")
    page = (await (await sign_in("zoo")).get("/console/t/zoo")).text
    assert "acme" not in page
    assert "bistro" not in page


async def test_a_tenants_line_says_what_is_live_what_waits_and_what_was_used(
    sign_in, make_tenant, database
):
    acme, zoo = await make_tenant("acme"), await make_tenant("zoo")
    version = a_version(acme, 4)
    await add(
        database,
        version,
        *(a_job(acme, state) for state in ("running", "queued", "awaiting_approval", "failed")),
        *(
            UsageDay(
                tenant_id=acme.id, model="acme", day=now().date() - timedelta(days=days), requests=5
            )
            for days in (0, 6, 7)
        ),
        UsageDay(tenant_id=zoo.id, model="zoo", day=now().date(), requests=0, errors=0),
    )
    async with database.transaction() as session:
        (await session.merge(acme)).live_adapter_id = version.id
    page = (await (await sign_in()).get("/console")).text
    line = page[page.index('<a href="/console/t/acme">acme</a></th>') :]
    line = line[: line.index("</tr>")]
    assert "acme@4" in line
    assert "1 to approve" in line
    assert '<td class="num">2</td>' in line  # runs going on
    assert "today last: 5, 0, 0, 0, 0, 0, 5" in line
    assert "<span>10</span>" in line


async def test_tenants_are_paged_by_name(sign_in, make_tenant, monkeypatch):
    monkeypatch.setattr(home, "TENANTS_MOST", 2)
    for slug, name in (("a1", "Same"), ("a2", "Same"), ("a0", "Zoo")):
        await make_tenant(slug, name=name)
    browser = await sign_in()
    first = (await browser.get("/console")).text
    assert ('href="/console/t/a1">Same' in first, 'href="/console/t/a0">Zoo' in first) == (
        True,
        False,
    )
    assert '<a class="btn" rel="next" href="/console?after=a2">Next</a>' in first
    rest = (await browser.get("/console?after=a2")).text
    assert ('href="/console/t/a1">Same' in rest, 'href="/console/t/a0">Zoo' in rest) == (
        False,
        True,
    )
    assert 'rel="next"' not in rest
    assert "There are no more tenants" in (await browser.get("/console?after=a0")).text


async def test_who_belongs_nowhere_is_told_what_to_do(sign_in, make_tenant, database):
    page = (await (await sign_in()).get("/console")).text
    assert 'class="btn main" href="/console/tenants/new"' in page
    await make_tenant("acme")
    browser = await sign_in("acme")
    async with database.transaction() as session:
        await session.execute(across_tenants("this test has one role").delete(Membership))
    assert "You do not belong to a tenant yet" in (await browser.get("/console")).text


async def test_home_begins_with_what_needs_a_person(sign_in, make_tenant, make_upload, database):
    acme, zoo = await make_tenant("acme"), await make_tenant("zoo")
    await make_upload("acme", state="failed", finished_at=now(), error={"message": "no <text>"})
    await add(database, a_job(acme, "awaiting_approval"), a_job(acme, "running"))
    await add(database, a_job(zoo, "awaiting_approval"))
    page = (await (await sign_in("acme", "viewer")).get("/console/t/acme")).text
    needs = page[page.index('id="needs"') : page.index('id="going"')]
    assert needs.count("Needs approval") == 1
    assert "no &lt;text&gt;" in needs
    going = page[page.index('id="going"') : page.index('id="live"')]
    assert ">Training</span>" in going


async def test_an_import_that_was_tried_again_needs_nobody(
    sign_in, make_tenant, make_upload, database
):
    await make_tenant("acme")
    failed = await make_upload("acme", state="failed", finished_at=now(), error={"message": "bad"})
    browser = await sign_in("acme")
    assert "Import failed" in (await browser.get("/console/t/acme")).text
    again = Import(tenant_id=failed.tenant_id, source_file_id=failed.source_file_id, state="queued")
    await add(database, again)
    assert "Import failed" not in (await browser.get("/console/t/acme")).text


async def test_an_import_that_failed_long_ago_is_forgotten(sign_in, make_tenant, make_upload):
    await make_tenant("acme")
    long_ago = now() - timedelta(days=home.FAILED_DAYS, minutes=1)
    await make_upload("acme", state="failed", finished_at=long_ago)
    assert "Import failed" not in (await (await sign_in("acme")).get("/console/t/acme")).text


async def test_the_steps_tick_themselves_and_then_go(sign_in, make_tenant, make_upload, database):
    acme = await make_tenant("acme")
    browser = await sign_in("acme")

    async def steps() -> tuple[list[str], str]:
        """The names of those that are done, and the one that is now."""
        page = (await browser.get("/console/t/acme")).text
        names = ("Company", "Transcripts", "Train", "Try")
        is_now = page.partition('aria-current="step"')[2].partition("</li>")[0]
        return [name for name in names if f'<b>{name}<span class="sr">, done' in page], is_now

    done, is_now = await steps()
    assert done == ["Company"]
    assert 'action="/console/t/acme/data/sample"' in is_now
    assert 'href="/console/t/acme/data"' in is_now
    upload = await make_upload("acme", state="running")
    _, is_now = await steps()
    assert "being read" in is_now
    assert 'hx-trigger="every 2s"' in (await browser.get("/console/t/acme")).text
    async with database.transaction() as session:
        (await session.merge(upload)).state = "done"
    await add(
        database,
        *(
            ConversationRow(
                tenant_id=acme.id,
                import_id=upload.id,
                external_id="",
                digest=f"{number:064}",
                body={},
            )
            for number in range(MIN_EXAMPLES)
        ),
    )
    done, is_now = await steps()
    assert done == ["Company", "Transcripts"]
    assert 'href="/console/t/acme/training/new"' in is_now
    run = a_job(acme, "running")
    await add(database, run)
    _, is_now = await steps()
    assert f'href="/console/t/acme/training/{run.id}"' in is_now
    version = a_version(acme, 1)
    await add(database, version)
    done, is_now = await steps()
    assert done == ["Company", "Transcripts", "Train"]
    assert 'href="/console/t/acme/release/1"' in is_now
    async with database.transaction() as session:
        (await session.merge(acme)).live_adapter_id = version.id
    _, is_now = await steps()
    assert 'href="/console/t/acme/release/ask"' in is_now
    long_ago = now().date() - timedelta(days=400)
    await add(database, UsageDay(tenant_id=acme.id, model="acme", day=long_ago, requests=1))
    page = (await browser.get("/console/t/acme")).text
    assert "From nothing to an assistant" not in page


async def test_the_steps_say_how_long_a_run_takes_by_one_that_was_measured(
    sign_in, make_tenant, database, settings
):
    await make_tenant("acme")
    browser = await sign_in("acme")
    assert "a run measures its first batch" in (await browser.get("/console/t/acme")).text
    zoo = await make_tenant("zoo")
    speed = {"tokens_per_second": 10, "tokens": 100}
    measured = a_job(zoo, "succeeded", progress=speed, gpu_seconds=250.0)
    measured.base = settings.base
    await add(database, measured)
    assert "A run takes about 4 minutes." in (await browser.get("/console/t/acme")).text


async def test_a_viewer_reads_the_steps_and_is_not_led_on(sign_in, make_tenant):
    await make_tenant("acme")
    page = (await (await sign_in("acme", "viewer")).get("/console/t/acme")).text
    assert 'aria-current="step"' in page
    assert "/data/sample" not in page


async def test_what_is_live_says_since_when(sign_in, make_tenant, database):
    acme = await make_tenant("acme")
    browser = await sign_in("acme")
    assert "The base model answers" in (await browser.get("/console/t/acme")).text
    version = a_version(acme, 2)
    await add(database, version)
    async with database.transaction() as session:
        (await session.merge(acme)).live_adapter_id = version.id
        session.add(
            Promotion(
                tenant_id=acme.id,
                revision=1,
                to_adapter_id=version.id,
                kind="promote",
                actor="job:1",
            )
        )
    page = (await browser.get("/console/t/acme")).text
    live = page[page.index('id="live"') : page.index('id="use"')]
    assert "acme@2" in live
    assert f'since <time datetime="{now():%Y-%m-%d}' in live
