"""The page of blind votes, without a browser: forms without a script, roles, other tenants."""

import re
from typing import Any

import pytest
from bs4 import BeautifulSoup
from sqlalchemy import select

from server.db.models import BlindVote
from tests.server.adapters.fake_reports import make_report
from tests.server.jobs.fake_runs import make_run, make_version

PAGE = "/console/t/acme/release/1/vote"
NAMES = re.compile(r"acme@1|\b(?:live|candidate|base)\b", re.IGNORECASE)


def soup(answer: Any) -> BeautifulSoup:
    return BeautifulSoup(answer.text, "html.parser")


def words(answer: Any) -> str:
    found = soup(answer).select_one("main")
    assert found is not None
    return " ".join(found.get_text(" ").split())


def question_of(answer: Any) -> str:
    found = soup(answer).select_one("#vote input[name=question]")
    assert found is not None
    return str(found["value"])


async def cast_votes(database) -> list[tuple[int, str]]:
    async with database.reading() as session:
        return [
            (v.question, v.choice)
            for v in await session.scalars(select(BlindVote).order_by(BlindVote.id))
        ]


@pytest.fixture
async def tenant(make_tenant, database):
    made = await make_tenant("acme")
    run = await make_run(database, made, state="succeeded")
    await make_version(database, made, run, version=1, report=make_report(questions=3))
    return made


async def test_a_reviewer_votes_undoes_and_sees_the_result_with_plain_forms(
    sign_in, tenant, database
) -> None:
    browser = await sign_in("acme", "reviewer")
    shown = await browser.get(PAGE)
    assert "Do you ship to Switzerland?" in words(shown)
    assert "1 of 3" in words(shown)
    # nothing on the page tells whose the answers are
    form = soup(shown).select_one("#vote")
    assert form is not None
    assert not NAMES.search(form.get_text(" "))
    assert not soup(shown).select("#undo")
    answer = await browser.post(PAGE, data={"choice": "1", "question": question_of(shown)})
    assert (answer.status_code, answer.headers["location"]) == (303, PAGE)
    shown = await browser.get(PAGE)
    assert "My bread arrived squashed." in words(shown)
    assert "What was said before Customer Hello!" in words(shown)
    await browser.post(PAGE, data={"choice": "2", "question": question_of(shown)})
    undo = soup(await browser.get(PAGE)).select_one("#undo")
    assert undo is not None
    answer = await browser.post(f"{PAGE}/undo")
    assert answer.status_code == 303
    shown = await browser.get(PAGE)
    assert "My bread arrived squashed." in words(shown)
    # sent twice, as by a double click
    for _ in range(2):
        sent = await browser.post(PAGE, data={"choice": "0", "question": question_of(shown)})
        assert sent.status_code == 303
    last = await browser.get(PAGE)
    await browser.post(PAGE, data={"choice": "0", "question": question_of(last)})
    found = await cast_votes(database)
    assert found[1:] == [(1, "tie"), (2, "tie")]
    assert found[0][1] in ("new", "other")
    done = words(await browser.get(PAGE))
    assert "These votes cannot tell whether people prefer acme@1 or what was live." in done
    assert "2 saw no difference" in done
    assert "Ana" in done
    page = words(await browser.get("/console/t/acme/release/1"))
    assert "Blind vote 1 person" in page


async def test_keys_can_be_turned_off_and_stay_so(sign_in, tenant) -> None:
    browser = await sign_in("acme", "reviewer")
    shown = soup(await browser.get(PAGE))
    assert [key.get_text() for key in shown.select("#vote kbd")] == ["1", "2", "0"]
    assert shown.select('script[src$="/vote.js"]')
    off = await browser.get(f"{PAGE}?keys=off")
    assert not soup(off).select("kbd, dialog")
    assert not soup(off).select('script[src$="/vote.js"]')
    form = soup(off).select_one("#vote")
    assert form is not None
    data = {"choice": "0", "question": question_of(off)}
    answer = await browser.post(str(form["action"]), data=data)
    assert answer.headers["location"] == f"{PAGE}?keys=off"


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"choice": "3", "question": "0"},
        {"choice": "1"},
        {"choice": "1", "question": "-1"},
        {"choice": "1", "question": "x"},
    ],
)
async def test_a_form_that_says_nothing_is_refused(
    sign_in, tenant, database, form: dict[str, str]
) -> None:
    browser = await sign_in("acme", "reviewer")
    assert (await browser.post(PAGE, data=form)).status_code == 422
    unknown = await browser.post(PAGE, data={"choice": "1", "question": "9" * 40})
    assert unknown.status_code == 404
    assert await cast_votes(database) == []


async def test_a_version_without_answers_says_so(sign_in, tenant, database) -> None:
    run = await make_run(database, tenant, state="succeeded")
    await make_version(database, tenant, run, version=2)
    browser = await sign_in("acme", "reviewer")
    answer = await browser.get("/console/t/acme/release/2/vote")
    assert "There is nothing to vote about" in words(answer)
    assert not soup(answer).select("main form")
    assert not soup(await browser.get("/console/t/acme/release/2")).select("#to-vote")


async def test_viewers_do_not_vote_and_other_tenants_find_nothing(
    sign_in, tenant, make_tenant, database
) -> None:
    await make_tenant("zoo")
    reader = await sign_in("acme", "viewer")
    other = await sign_in("zoo", "admin")
    form = {"choice": "1", "question": "0"}
    for path in (PAGE, PAGE.replace("acme", "zoo")):
        expected = 403 if path == PAGE else 404
        assert (await reader.get(path)).status_code == expected
        assert (await reader.post(path, data=form)).status_code == expected
        assert (await reader.post(f"{path}/undo")).status_code == expected
        assert (await other.get(path)).status_code == 404
        assert (await other.post(path, data=form)).status_code == 404
        assert (await other.post(f"{path}/undo")).status_code == 404
    assert await cast_votes(database) == []
