"""The pages about versions, without a browser: what they say, who may do what, forms without a script."""

from typing import Any

import pytest
from bs4 import BeautifulSoup, Tag
from sqlalchemy import select

from server.adapters import service, versions
from server.db.models import Adapter, Job, Tenant
from server.tenants import service as tenants
from server.web.console.pages import release, release_view
from tests.server.adapters.fake_reports import make_report
from tests.server.jobs.fake_runs import make_run, make_version

PAGE = "/console/t/acme/release"


def soup(answer: Any) -> BeautifulSoup:
    return BeautifulSoup(answer.text, "html.parser")


def words(answer: Any, element: str = "main") -> str:
    found = soup(answer).select_one(element)
    assert found is not None, f"no {element}"
    return " ".join(found.get_text(" ").split())


def fields(answer: Any, form: str = "main form") -> tuple[str, dict[str, str]]:
    """Where a page's form goes, and what it sends; without the token, which the client's header has."""
    found = soup(answer).select_one(form)
    assert isinstance(found, Tag), f"no {form}"
    values = {str(each["name"]): str(each["value"]) for each in found.select("input[type=hidden]")}
    del values["csrf_token"]
    return str(found["action"]), values


async def live_of(database) -> str | None:
    async with database.reading() as session:
        tenant = await tenants.get(session, "acme")
        live = await service.live_version(session, tenant)
        return f"{tenant.slug}@{live}" if live else None


async def promote(database, version: int, *, actor: str = "command line") -> None:
    async with database.transaction() as session:
        tenant = await tenants.get(session, "acme")
        await service.promote(session, tenant, version=version, actor=actor)


@pytest.fixture
async def tenant(make_tenant) -> Tenant:
    made: Tenant = await make_tenant("acme", name="Acme")
    return made


@pytest.fixture
async def two(tenant, database) -> list[Adapter]:
    """Two versions that passed; the first is live."""
    made = []
    for version in (1, 2):
        job = await make_run(database, tenant, state="succeeded")
        report = make_report(version=version, live=version == 2)
        made.append(await make_version(database, tenant, job, version=version, report=report))
    await promote(database, 1)
    return made


async def test_a_tenant_without_versions_is_told_where_they_come_from(sign_in, tenant) -> None:
    browser = await sign_in("acme", "viewer")
    answer = await browser.get(PAGE)
    assert answer.status_code == 200
    assert "No version yet" in words(answer)
    assert soup(answer).select('main a[href="/console/t/acme/training"]')


async def test_versions_are_listed_with_how_they_stand_and_their_figures(
    sign_in, tenant, two, database
) -> None:
    waits = await make_run(database, tenant, state="awaiting_approval")
    await make_version(database, tenant, waits, version=3, state="candidate")
    failed = await make_run(database, tenant, state="succeeded")
    await make_version(database, tenant, failed, version=4, state="failed_gates")
    await promote(database, 2)
    browser = await sign_in("acme", "viewer")
    answer = await browser.get(PAGE)
    rows = [" ".join(row.get_text(" ").split()) for row in soup(answer).select("tbody tr")]
    assert [row[:25] for row in rows] == [
        "acme@4 Gate failed 5.90 0",
        "acme@3 Needs approval 5.9",
        "acme@2 Live 5.90 0.41 0.0",
        "acme@1 Replaced 5.90 0.41",
    ]
    assert "5.90 0.41 0.0042 260" in rows[2]
    assert "acme@3 waits for a decision. An admin of this tenant decides." in words(answer)
    assert "acme@2 went live in place of acme@1 , by the command line" in words(answer)
    assert not soup(answer).select("#roll-back")


async def test_the_lists_are_paged(sign_in, tenant, database, monkeypatch) -> None:
    monkeypatch.setattr(versions, "PAGE", 2)
    monkeypatch.setattr(release, "STEPS", 1)
    monkeypatch.setattr(release, "STEPS_PAGE", 2)
    for version in (1, 2, 3):
        job = await make_run(database, tenant, state="succeeded")
        await make_version(database, tenant, job, version=version)
        await promote(database, version)
    browser = await sign_in("acme", "viewer")
    first = soup(await browser.get(PAGE))
    assert len(first.select("tbody tr")) == 2
    assert len(first.select(".list li")) == 1
    assert first.select(f'a[href="{PAGE}/history"]')
    (older,) = first.select("a[rel=next]")
    second = soup(await browser.get(str(older["href"])))
    assert len(second.select("tbody tr")) == 1
    assert not second.select("a[rel=next]")
    assert "no older versions" in words(await browser.get(f"{PAGE}?below=1"))
    changes = soup(await browser.get(f"{PAGE}/history"))
    assert len(changes.select(".list li")) == 2
    (older,) = changes.select("a[rel=next]")
    rest = await browser.get(str(older["href"]))
    assert "acme@1 went live in place of the base" in words(rest)
    assert "no older changes" in words(await browser.get(f"{PAGE}/history?below=1"))
    for query in ("below=99999999999999999999", "done=99999999999999999999"):
        assert (await browser.get(f"{PAGE}?{query}")).status_code == 200
    assert (await browser.get(f"{PAGE}/history?below=99999999999999999999")).status_code == 200


async def test_a_version_shows_its_gates_with_evidence_and_what_it_was_made_of(
    sign_in, tenant, two
) -> None:
    browser = await sign_in("acme", "viewer")
    answer = await browser.get(f"{PAGE}/2")
    gates = [
        [" ".join(part.get_text(" ").split()) for part in row.select("b, dd, .val")]
        for row in soup(answer).select(".evidence li")
    ]
    assert gates == [
        ["Perplexity against the base", "at most 0.80", "0.52", "0.49 to 0.55", "passed"],
        ["Perplexity against what is live", "at most 1.05", "0.90", "0.85 to 0.96", "passed"],
        [
            "Closer to the agents than the base",
            "at least -0.10",
            "+0.46",
            "+0.40 to +0.52",
            "passed",
        ],
        [
            "Not worse than a plain look-up",
            "at least -0.05",
            "+0.19",
            "+0.13 to +0.25",
            "passed",
        ],
        ["Invents no more than the base", "at most +0.05", "-0.10", "-0.16 to -0.04", "passed"],
        ["Served as trained", "at most 0.05", "0.0042", "no sample", "passed"],
    ]
    shown = words(answer)
    for expected in (
        "acme@2 Ready It passed its gates and is not live.",
        "260 conversations",
        "Base tiny-base (aaaaaaaaaaaa)",
        "Conversations, train 208",
        "Pieces of articles 1,234 (555555555555)",
        "Rank 16",
        "torch 2.13.0",
        "Perplexity is 48% lower than the base's",
        "It has not been live.",
    ):
        assert expected in shown, expected
    taste = soup(answer).select(".taste .voices")
    assert len(taste) == 3
    assert [chip.get_text() for chip in taste[0].select(".chip")] == [
        "Base",
        "Live then",
        "acme@2",
        "What the agent wrote",
    ]
    # a viewer reads, and changes nothing
    assert not soup(answer).select("main form, #promote")
    report = await browser.get(f"{PAGE}/2/report")
    assert report.status_code == 200
    assert report.headers["content-security-policy"].endswith("; sandbox")


async def test_texts_of_customers_are_escaped(sign_in, tenant, database) -> None:
    report = make_report()
    report["evaluation"]["samples"][0]["new"]["text"] = "<script>alert(1)</script>"
    job = await make_run(database, tenant, state="succeeded")
    await make_version(database, tenant, job, version=1, report=report)
    browser = await sign_in("acme", "viewer")
    answer = await browser.get(f"{PAGE}/1")
    assert "<script>alert" not in answer.text
    assert "<script>alert(1)</script>" in words(answer, ".taste")


async def test_a_version_without_a_report_or_of_another_base_says_so(
    sign_in, tenant, database
) -> None:
    job = await make_run(database, tenant, state="succeeded")
    await make_version(database, tenant, job, version=1, base_name="other-base")
    browser = await sign_in("acme")
    answer = await browser.get(f"{PAGE}/1")
    assert "Nothing was measured of it" in words(answer)
    assert "It was trained on the base other-base, and this server runs tiny-base" in words(answer)
    assert not soup(answer).select("#promote")
    assert (await browser.get(f"{PAGE}/1/report")).status_code == 404
    asked = await browser.get(f"{PAGE}/1/promote")
    assert "trained on the base other-base; this server runs tiny-base" in words(asked)
    assert not soup(asked).select("main form")


async def test_an_admin_promotes_takes_it_back_and_rolls_back_with_plain_forms(
    sign_in, tenant, two, database
) -> None:
    browser = await sign_in("acme")
    assert soup(await browser.get(f"{PAGE}/2")).select(f'a[href="{PAGE}/2/promote"]')
    asked = await browser.get(f"{PAGE}/2/promote")
    assert "Make acme@2 live?" in words(asked, "h1")
    assert "acme@2 answers everybody who asks acme. Now it is acme@1." in words(asked)
    assert "acme@1 stays: you can roll back to it" in words(asked)
    address, values = fields(asked)
    answer = await browser.post(address, data=values)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{PAGE}/2?done=2")
    assert await live_of(database) == "acme@2"
    done = await browser.get(answer.headers["location"])
    assert "acme@2 went live in place of acme@1." in words(done, "#toasts")
    assert "by Ana" in words(done)
    address, values = fields(done, "#toasts form")
    answer = await browser.post(address, data=values)
    assert answer.status_code == 303
    assert await live_of(database) == "acme@1"
    # what undid it can be undone, too
    done = await browser.get(answer.headers["location"])
    assert "Rolled back from acme@2 to acme@1." in words(done, "#toasts")
    address, values = fields(done, "#toasts form")
    assert (await browser.post(address, data=values)).status_code == 303
    assert await live_of(database) == "acme@2"
    # back and back again, at last to the base
    for expected in ("acme@1", None):
        asked = await browser.get(f"{PAGE}/roll-back")
        assert f"Roll back to {expected or 'the base'}?" in words(asked, "h1")
        address, values = fields(asked)
        assert (await browser.post(address, data=values)).status_code == 303
        assert await live_of(database) == expected
    asked = await browser.get(f"{PAGE}/roll-back")
    assert "no earlier version to go back to" in words(asked)
    assert not soup(asked).select("main form")
    assert not soup(await browser.get(PAGE)).select("#roll-back")


async def test_a_message_about_what_was_done_is_only_for_who_did_it_and_only_then(
    sign_in, tenant, two, database, monkeypatch
) -> None:
    await promote(database, 2)
    browser = await sign_in("acme")
    assert soup(await browser.get(f"{PAGE}?done=2")).select("#toasts .toast") == []
    await browser.post(f"{PAGE}/roll-back", data={"revision": "2"})
    assert soup(await browser.get(f"{PAGE}?done=3")).select("#toasts .toast")
    assert soup(await browser.get(f"{PAGE}?done=2")).select("#toasts .toast") == []
    monkeypatch.setattr(release, "UNDO_SECONDS", 0.0)
    assert soup(await browser.get(f"{PAGE}?done=3")).select("#toasts .toast") == []


@pytest.mark.parametrize("what", ["2/promote", "roll-back"])
async def test_who_was_slower_is_told_who_was_faster(
    sign_in, tenant, two, database, what: str
) -> None:
    browser = await sign_in("acme")
    address, values = fields(await browser.get(f"{PAGE}/{what}"))
    await promote(database, 2)
    answer = await browser.post(address, data=values)
    assert answer.status_code == 409
    assert "Somebody was faster, and nothing was changed." in words(answer)
    assert "acme@2 went live in place of acme@1, by the command line" in words(answer)
    assert await live_of(database) == "acme@2"


@pytest.mark.parametrize("revision", ["", "x", "-1", "9" * 30])
async def test_a_form_must_say_what_was_live_when_it_was_opened(
    sign_in, tenant, two, database, revision: str
) -> None:
    browser = await sign_in("acme")
    for what in ("2/promote", "roll-back"):
        answer = await browser.post(f"{PAGE}/{what}", data={"revision": revision})
        assert answer.status_code == 422, what
    assert await live_of(database) == "acme@1"


async def test_what_failed_its_gates_is_not_promoted_here(sign_in, tenant, database) -> None:
    job = await make_run(database, tenant, state="succeeded")
    report = make_report(ratio=1.3)
    await make_version(database, tenant, job, version=1, state="failed_gates", report=report)
    browser = await sign_in()  # the operator's way is the command line
    answer = await browser.get(f"{PAGE}/1")
    assert not soup(answer).select("#promote")
    assert soup(answer).select(".evidence .chip.bad")
    assert "only the operator can make it live" in words(await browser.get(f"{PAGE}/1/promote"))
    refused = await browser.post(f"{PAGE}/1/promote", data={"revision": "0"})
    assert refused.status_code == 409
    assert "This is not possible now." in words(refused)
    assert await live_of(database) is None


async def test_what_the_gates_cannot_tell_is_said_before_it_goes_live(
    sign_in, tenant, database
) -> None:
    job = await make_run(database, tenant, state="succeeded")
    report = make_report(few=True)
    await make_version(database, tenant, job, version=1, state="candidate", report=report)
    browser = await sign_in("acme")
    assert "cannot tell" in words(await browser.get(f"{PAGE}/1"), ".evidence")
    asked = await browser.get(f"{PAGE}/1/promote")
    assert "Its gates cannot tell: it left 5 of 6 gates open" in words(asked)
    address, values = fields(asked)
    assert (await browser.post(address, data=values)).status_code == 303
    assert await live_of(database) == "acme@1"


@pytest.mark.parametrize(
    ("what", "decision", "said"),
    [("approve", "approved", "Approved"), ("reject", "rejected", "Rejected")],
)
async def test_an_admin_decides_once_with_plain_forms(
    sign_in, tenant, database, *, what: str, decision: str, said: str
) -> None:
    job = await make_run(database, tenant, state="awaiting_approval", require_approval=True)
    await make_version(database, tenant, job, version=1, report=make_report())
    browser = await sign_in("acme")
    before = soup(await browser.get(f"{PAGE}/1"))
    assert before.select("#approve")
    assert before.select("#reject")
    assert not before.select("#promote")
    address, values = fields(await browser.get(f"{PAGE}/1/{what}"))
    answer = await browser.post(address, data=values)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{PAGE}/1")
    async with database.reading() as session:
        (found,) = await session.scalars(select(Job))
    assert found.decision == decision
    text = words(await browser.get(f"{PAGE}/1"))
    assert f"acme@1 {said}" in text
    assert "by Ana" in text
    again = await browser.post(address)
    assert again.status_code == 409
    assert f"Ana has {decision} acme@1 already; the first decision stands." in words(again)


async def test_what_waits_for_nobody_is_not_decided(sign_in, tenant, two) -> None:
    browser = await sign_in("acme")
    for what in ("approve", "reject"):
        asked = await browser.get(f"{PAGE}/2/{what}")
        assert "acme@2 does not await a decision." in words(asked)
        assert not soup(asked).select("main form")
        assert (await browser.post(f"{PAGE}/2/{what}")).status_code == 409


READ = ("", "/history", "/1", "/1/report")
ADMIN = ("/1/promote", "/roll-back", "/1/approve", "/1/reject", "/1/canary", "/take-back")


async def test_another_tenants_versions_are_not_there(sign_in, make_tenant, database, two) -> None:
    other = await make_tenant("zoo")
    job = await make_run(database, other, state="succeeded")
    await make_version(database, other, job, version=7, report=make_report())
    browser = await sign_in("acme")
    for path in (
        "/7",
        "/7/report",
        "/7/promote",
        "/7/approve",
        "/7/canary",
        "/0",
        "/99999999999999999999",
    ):
        assert (await browser.get(f"{PAGE}{path}")).status_code == 404, path
    form = {"revision": "1"}
    for path in ("/7/promote", "/7/approve", "/7/reject"):
        assert (await browser.post(f"{PAGE}{path}", data=form)).status_code == 404, path
    for path in (*READ, *ADMIN):
        where = f"/console/t/zoo/release{path.replace('1', '7')}"
        assert (await browser.get(where)).status_code == 404, where


async def test_viewers_and_reviewers_change_nothing(sign_in, tenant, two, database) -> None:
    for role in ("viewer", "reviewer"):
        browser = await sign_in("acme", role)
        for path in READ:
            assert (await browser.get(f"{PAGE}{path}")).status_code == 200, (role, path)
        for path in ADMIN:
            assert (await browser.get(f"{PAGE}{path}")).status_code == 403, (role, path)
            answer = await browser.post(f"{PAGE}{path}", data={"revision": "1"})
            assert answer.status_code == 403, (role, path)
    assert await live_of(database) == "acme@1"


def test_the_places_of_an_interval_are_inside_its_picture() -> None:
    for gate in release_view.verdict_of(make_report()).gates:  # type: ignore[union-attr]
        span = release_view._span(gate)
        assert span is not None
        assert span.bound is not None
        assert span.value is not None
        assert 0 < span.value < 100
        assert 0 < span.bound < 100
        if span.low is not None:
            assert 0 < span.low < span.value < span.low + span.width < 100
