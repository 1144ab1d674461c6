"""The console's pages about a canary, without a browser: what they ask, say, count and undo."""

from typing import Any

import pytest

from server.adapters import canary, changes, service
from server.db.models import Adapter, CanaryCount, Tenant
from server.jobs import states
from server.tenants import service as tenants
from tests.server.adapters.test_canary import note
from tests.server.jobs.fake_runs import make_run, make_version
from tests.server.web.console.pages.test_release import PAGE, fields, promote, soup, words


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
        made.append(await make_version(database, tenant, job, version=version))
    await promote(database, 1)
    return made


def attribute(answer: Any, element: str, name: str) -> str:
    found = soup(answer).select_one(element)
    assert found is not None, f"no {element}"
    return str(found[name])


async def share_of(database) -> int | None:
    async with database.reading() as session:
        found = await changes.running_canary(session, await tenants.get(session, "acme"))
    return None if found is None else found.percent


async def start(database, version: int = 2, percent: int = 10, actor: str = "command line") -> None:
    async with database.transaction() as session:
        owner = await tenants.get(session, "acme")
        await canary.start(
            session, owner, version=version, percent=percent, base="tiny-base", actor=actor
        )


async def test_a_share_is_sent_changed_taken_back_and_each_step_can_be_undone(
    sign_in, two, database
) -> None:
    browser = await sign_in("acme", "admin")
    assert soup(await browser.get(f"{PAGE}/2")).select_one("#try")
    asked = await browser.get(f"{PAGE}/2/canary")
    assert "acme@2 answers this share of those who ask acme, and acme@1 the others" in words(asked)
    where, sent = fields(asked)
    assert attribute(asked, "#percent", "value") == "10"
    for wrong in ("0", "51", "2.5", "", "ten", "9" * 30):
        again = await browser.post(where, data={**sent, "percent": wrong})
        assert again.status_code == 422
        assert "Write a whole number from 1 to 50." in words(again)
    assert await share_of(database) is None
    done = await browser.post(where, data={**sent, "percent": "20"}, follow_redirects=True)
    assert await share_of(database) == 20
    assert "acme@2 answers 20 % of the requests since" in words(done)
    assert "acme@2 answers 20 % of the requests, acme@1 the others." in words(done, "#toasts")
    # undone at once
    where, sent = fields(done, "#toasts form")
    gone = await browser.post(where, data=sent, follow_redirects=True)
    assert await share_of(database) is None
    assert "The canary acme@2, of 20 %, was taken back." in words(gone, "#toasts")
    where, sent = fields(gone, "#toasts form")
    back = await browser.post(where, data=sent, follow_redirects=True)
    assert await share_of(database) == 20
    # changed, and that undone
    asked = await browser.get(f"{PAGE}/2/canary")
    assert "Change the share of acme@2?" in words(asked)
    where, sent = fields(asked)
    changed = await browser.post(where, data={**sent, "percent": "40"}, follow_redirects=True)
    assert await share_of(database) == 40
    where, sent = fields(changed, "#toasts form")
    assert sent["percent"] == "20"
    await browser.post(where, data=sent)
    assert await share_of(database) == 20
    # a form from before says who was faster, and changes nothing
    where, sent = fields(back, "#toasts form")
    late = await browser.post(where, data=sent)
    assert late.status_code == 409
    assert "Somebody was faster, and nothing was changed." in words(late)
    assert await share_of(database) == 20
    where, sent = fields(await browser.get(f"{PAGE}/take-back"))
    ended = await browser.post(where, data=sent, follow_redirects=True)
    assert await share_of(database) is None
    assert "The canary acme@2, of 20 %, was taken back" in words(ended)
    nothing = await browser.get(f"{PAGE}/take-back")
    assert "There is no canary" in words(nothing)
    history = words(await browser.get(f"{PAGE}/history"))
    for told in (
        "acme@2 answers 40 % of the requests",
        "The canary acme@2, of 20 %, was taken back",
    ):
        assert told in history


async def test_the_banner_compares_both_and_says_when_there_is_too_little_to_tell(
    sign_in, tenant, two, database
) -> None:
    await start(database)
    browser = await sign_in("acme", "viewer")
    first = words(await browser.get(PAGE))
    for told in (
        "acme@2 answers 10 % of the requests since",
        "by the command line",
        "There are too few thumbs to tell: 0 for acme@2, 0 for acme@1. Each needs 6 at least.",
        "There are too few answers to compare failures",
        "acme@1 answers 90 %, acme@2 10 %",
        "Canary, 10 %",
    ):
        assert told in first, told
    async with database.transaction() as session:
        for is_canary, requests, errors in ((True, 10, 7), (False, 90, 0)):
            session.add(
                CanaryCount(
                    tenant_id=tenant.id,
                    revision=2,
                    is_canary=is_canary,
                    requests=requests,
                    errors=errors,
                    prompt_tokens=1200,
                    completion_tokens=30 * requests,
                )
            )
    await note(database, tenant, *[(1, "up")] * 2, *[(1, "down")] * 8, *[(2, "up")] * 9)
    for page in (PAGE, f"{PAGE}/2", f"{PAGE}/1"):
        shown = words(await browser.get(page))
        for told in (
            "Thumbs up 100 % 9 of 9; 70 to 100 % 20 % 2 of 10; 6 to 51 %",
            "Failed or refused 70.0 % 7 of 10; 39.7 to 89.2 % 0.0 % 0 of 90; 0.0 to 4.1 %",
            "Tokens written 300 30 an answer 2,700 30 an answer",
            "Visitors like the answers of acme@2 better than those of acme@1.",
            "acme@2 fails more often than acme@1.",
        ):
            assert told in shown, (page, told)
    # a viewer reads, and changes nothing
    assert not soup(await browser.get(PAGE)).select("#canary-end, #canary-promote, #canary-change")
    for path in (f"{PAGE}/2/canary", f"{PAGE}/take-back"):
        assert (await browser.get(path)).status_code == 403
        assert (await browser.post(path)).status_code == 403
    assert "acme@2 answers 10 % of the requests" in words(await browser.get("/console/t/acme"))


async def test_promoting_or_rolling_back_says_that_the_canary_ends(sign_in, two, database) -> None:
    await start(database)
    browser = await sign_in("acme", "admin")
    assert attribute(await browser.get(PAGE), "#canary-promote", "href") == f"{PAGE}/2/promote"
    for page in (f"{PAGE}/2/promote", f"{PAGE}/roll-back"):
        assert "The canary, acme@2 with 10 % of the requests, ends." in words(
            await browser.get(page)
        )
    where, sent = fields(await browser.get(f"{PAGE}/2/promote"))
    done = await browser.post(where, data=sent, follow_redirects=True)
    told = "acme@2 went live in place of acme@1, and its canary, of 10 %, ended."
    assert told in words(done, "#toasts")
    where, sent = fields(done, "#toasts form")
    back = await browser.post(where, data=sent, follow_redirects=True)
    assert "Rolled back from acme@2 to acme@1." in words(back, "#toasts")
    assert await share_of(database) is None


async def test_what_cannot_be_tried_is_told_with_its_reason(sign_in, tenant, two, database) -> None:
    kinds: tuple[tuple[int, dict[str, Any]], ...] = (
        (3, {"state": "failed_gates"}),
        (4, {"state": "unsafe"}),
        (5, {"base_name": "other-base"}),
    )
    for version, more in kinds:
        job = await make_run(database, tenant, state="succeeded")
        await make_version(database, tenant, job, version=version, **more)
    browser = await sign_in("acme", "admin")
    for version, told in (
        (1, "It answers your customers now."),
        (3, "A gate found it worse"),
        (4, "it must not be served"),
        (5, "trained on the base other-base"),
    ):
        assert not soup(await browser.get(f"{PAGE}/{version}")).select("#try")
        asked = await browser.get(f"{PAGE}/{version}/canary")
        assert told in words(asked)
        assert not soup(asked).select("main form")
        sent = {"revision": "1", "percent": "10"}
        answer = await browser.post(f"{PAGE}/{version}/canary", data=sent)
        assert answer.status_code == 409
    await start(database)
    job = await make_run(database, tenant, state="succeeded")
    await make_version(database, tenant, job, version=6)
    assert "acme@2 is the canary already" in words(await browser.get(f"{PAGE}/6/canary"))
    for path in (f"{PAGE}/9/canary", f"{PAGE}/0/canary"):
        assert (await browser.get(path)).status_code == 404


async def test_a_version_that_waits_is_tried_first_and_the_banner_leads_to_its_approval(
    sign_in, tenant, two, database
) -> None:
    job = await make_run(database, tenant, state="awaiting_approval")
    await make_version(database, tenant, job, version=3, state="candidate")
    browser = await sign_in("acme", "admin")
    assert soup(await browser.get(f"{PAGE}/3")).select("#try")
    await start(database, 3)
    shown = await browser.get(f"{PAGE}/3")
    assert attribute(shown, "#canary-promote", "href") == f"{PAGE}/3/approve"
    assert not soup(shown).select("#try")
    assert attribute(shown, "#version", "hx-trigger") == "every 5s"
    # approved, the page asks again by itself until it is live
    async with database.transaction() as session:
        await states.decide(session, tenant.id, job.id, decision="approved")
    (polled,) = soup(await browser.get(f"{PAGE}/3")).select("#version[hx-get]")
    assert (polled["hx-get"], polled["hx-trigger"]) == (f"{PAGE}/3", "every 2s")
    async with database.transaction() as session:
        owner = await tenants.get(session, "acme")
        await service.promote(session, owner, version=3, actor=f"job {job.id}")
    live = await browser.get(f"{PAGE}/3")
    assert not soup(live).select("[hx-trigger]")
    assert "acme@3 went live in place of acme@1, and its canary, of 10 %, ended" in words(live)


async def test_a_canary_that_the_engine_refused_says_why_in_the_history(
    sign_in, tenant, two, database
) -> None:
    await start(database)
    async with database.transaction() as session:
        await canary.end_refused(session, tenant.id, revision=2)
    browser = await sign_in("acme", "viewer")
    told = "The canary acme@2, of 10 %, was taken back. The engine would not load it."
    assert told in words(await browser.get(f"{PAGE}/history"))
    assert "by the engine" in words(await browser.get(f"{PAGE}/2"))


async def test_a_page_asks_again_by_itself_while_there_is_a_canary(sign_in, two, database) -> None:
    browser = await sign_in("acme", "viewer")
    assert not soup(await browser.get(PAGE)).select("[hx-trigger]")
    await start(database)
    for path, part in ((PAGE, "#release"), (f"{PAGE}/2", "#version"), (f"{PAGE}/1", "#version")):
        shown = await browser.get(path)
        assert attribute(shown, part, "hx-get") == path
        assert attribute(shown, part, "hx-trigger") == "every 5s"
        assert attribute(shown, part, "hx-select-oob").startswith("[data-shell]")
    # read out is a change of who answers, not the figures
    told = "acme@2 answers 10 % of the requests, acme@1 the others"
    assert words(await browser.get(PAGE), "#last-change") == told
    async with database.transaction() as session:
        owner = await tenants.get(session, "acme")
        await canary.end(session, owner, actor="command line")
    for path in (PAGE, f"{PAGE}/2"):
        shown = await browser.get(path)
        assert not soup(shown).select("[hx-trigger]")
        assert words(shown, "#last-change") == "The canary acme@2, of 10 %, was taken back"


async def test_what_came_of_a_canary_stays_in_the_history(sign_in, tenant, two, database) -> None:
    await start(database)
    async with database.transaction() as session:
        for is_canary, requests, errors in ((True, 10, 7), (False, 1_090, 0)):
            session.add(
                CanaryCount(
                    tenant_id=tenant.id,
                    revision=2,
                    is_canary=is_canary,
                    requests=requests,
                    errors=errors,
                )
            )
    await note(database, tenant, *[(1, "down")] * 8, *[(2, "up")] * 9)
    browser = await sign_in("acme", "viewer")
    assert not soup(await browser.get(f"{PAGE}/history")).select("a[href*='/history/']")
    assert (await browser.get(f"{PAGE}/history/2")).status_code == 404  # it goes on
    await start(database, percent=30)
    await note(database, tenant, *[(2, "down")] * 30)
    async with database.transaction() as session:
        await canary.end_refused(session, tenant.id, revision=3)
    for page in (PAGE, f"{PAGE}/2", f"{PAGE}/history"):
        links = soup(await browser.get(page)).select("ol a[href*='/history/']")
        assert [(link["href"], link.get_text()) for link in links] == [
            (f"{PAGE}/history/3", "What came of it: 0 answers beside 0"),
            (f"{PAGE}/history/2", "What came of it: 10 answers beside 1,090"),
        ]
    shown = words(await browser.get(f"{PAGE}/history/2"))
    for told in (
        "acme@2 answered 10 % of the requests",
        "Ended by the command line Then: acme@2 answers 30 % of the requests, acme@1 the others.",
        "Thumbs up 100 % 9 of 9; 70 to 100 % 0 % 0 of 8",
        "Failed or refused 70.0 % 7 of 10",
        "Visitors like the answers of acme@2 better than those of acme@1.",
        "acme@2 fails more often than acme@1.",
    ):
        assert told in shown, told
    shown = words(await browser.get(f"{PAGE}/history/3"))
    assert (
        "Ended by the engine Then: The canary acme@2, of 30 %, was taken back. The engine would not"
        in shown
    )
    assert "Thumbs up 0 % 0 of 30" in shown
    for nothing in (0, 1, 4, 5, 9_999_999_999_999):
        assert (await browser.get(f"{PAGE}/history/{nothing}")).status_code == 404
