"""The pages about runs, without a browser: who may do what, forms without a script, streams."""

import asyncio
import csv
import io
import json
from typing import Any

import msgspec
import pytest
from bs4 import BeautifulSoup
from sqlalchemy import select

from server.accounts import sessions
from server.db.models import Job, Person
from server.jobs import recipes, runs
from server.jobs.feed import Batch, JobFeed
from server.web.console.figures import NOTHING, about, duration
from server.web.console.pages import training
from server.web.console.plots import Level, Series, draw, round_marks
from tests.server.jobs.fake_runs import (
    estimate,
    happen,
    make_run,
    make_version,
    move,
    step,
    validation,
)
from tests.training.reports.test_report import report as a_report

PAGE = "/console/t/acme/training"
FORM = {"content-type": "application/x-www-form-urlencoded"}


def soup(answer: Any) -> BeautifulSoup:
    return BeautifulSoup(answer.text, "html.parser")


def words(answer: Any, element: str = "main") -> str:
    found = soup(answer).select_one(element)
    assert found is not None, f"no {element}"
    return " ".join(found.get_text(" ").split())


async def jobs_of(database) -> list[Job]:
    async with database.reading() as session:
        return list(await session.scalars(select(Job).order_by(Job.id)))


@pytest.fixture
async def tenant(make_tenant):
    return await make_tenant("acme", name="Acme")


async def test_a_tenant_with_nothing_is_told_what_to_do(sign_in, tenant) -> None:
    browser = await sign_in("acme")
    answer = await browser.get(PAGE)
    assert answer.status_code == 200
    assert "a run needs 10 at least: bring 10 more" in words(answer)
    assert not soup(answer).select(f'a[href="{PAGE}/new"]')


async def test_the_list_shows_runs_with_their_states_and_figures(sign_in, tenant, database) -> None:
    before = await make_run(database, tenant, state="succeeded")
    await make_version(database, tenant, before, version=1, live=True)
    await make_run(database, tenant)
    browser = await sign_in("acme", "viewer")
    answer = await browser.get(PAGE)
    rows = [" ".join(row.get_text(" ").split()) for row in soup(answer).select("tbody tr")]
    assert rows[0].startswith("Compare the run of ")
    assert "Training later later 260 cpu-small" in rows[0]
    assert rows[1].startswith("Compare acme@1 acme@1 Live 5.90 0.41 260 cpu-small")
    # a viewer reads, and starts nothing
    assert not soup(answer).select(f'a[href="{PAGE}/new"]')
    admin = await sign_in("acme")
    assert soup(await admin.get(PAGE)).select(f'a[href="{PAGE}/new"]')


async def test_the_list_is_paged(sign_in, tenant, database, monkeypatch) -> None:
    monkeypatch.setattr(runs, "PAGE", 2)
    for _ in range(3):
        await make_run(database, tenant, state="queued")
    browser = await sign_in("acme")
    first = soup(await browser.get(PAGE))
    assert len(first.select("tbody tr")) == 2
    older = first.select_one("a[rel=next]")
    assert older is not None
    second = soup(await browser.get(str(older["href"])))
    assert len(second.select("tbody tr")) == 1
    assert not second.select("a[rel=next]")
    assert second.select_one("a[rel=prev]")
    beyond = await browser.get(f"{PAGE}?after={'0' * 32}")
    assert "no older runs" in words(beyond)


@pytest.mark.parametrize(
    ("gpu_bytes", "first", "impossible"),
    [(0, "cpu-small", ["gpu-24gb", "gpu-80gb"]), (24 * 10**9, "gpu-24gb", ["gpu-80gb"])],
)
async def test_the_form_begins_with_what_the_machine_can_run(
    sign_in, tenant, monkeypatch, *, gpu_bytes, first, impossible
) -> None:
    monkeypatch.setattr(recipes, "_gpu_memory", lambda: gpu_bytes)
    browser = await sign_in("acme")
    form = soup(await browser.get(f"{PAGE}/new"))
    offered = form.select(".recipes .check")
    names = [str(each.select("input")[0]["value"]) for each in offered]
    assert names[0] == first
    assert [str(each["value"]) for each in form.select(".recipes input[checked]")] == [first]
    marked = [
        name
        for name, each in zip(names, offered, strict=True)
        if "cannot run here" in each.get_text()
    ]
    assert marked == impossible


async def test_a_form_without_a_script_starts_a_run(
    sign_in, tenant, make_upload, database, settings
) -> None:
    await make_upload()
    browser = await sign_in("acme")
    form = soup(await browser.get(f"{PAGE}/new"))
    fields = {
        str(each["name"]): str(each.get("value", ""))
        for each in form.select("main form input")
        if each.get("type") not in ("radio", "checkbox") or each.has_attr("checked")
    }
    assert fields["recipe"] == "cpu-small"
    assert fields["max_perplexity_ratio"] == "0.8"
    fields |= {"max_perplexity": "6", "suffix": "warm", "approval": "yes", "recipe": "cpu-demo"}
    fields["full"] = "yes"
    del browser.headers["x-csrf-token"]  # the form has it
    answer = await browser.post(f"{PAGE}/new", data=fields)
    (job,) = await jobs_of(database)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{PAGE}/{job.id}")
    assert (job.recipe_name, job.suffix, job.seed) == ("cpu-demo", "warm", 17)
    assert job.require_approval
    assert job.recipe["full_evaluation"]
    assert job.objectives["max_perplexity"] == 6.0
    assert job.objectives["max_parity_nats"] == settings.objectives.max_parity_nats
    assert job.actor is not None
    assert job.actor.startswith("person:")
    shown = words(await browser.get(f"{PAGE}/{job.id}"))
    assert "by Ana" in shown
    assert "Perplexity at most 6 later" in shown
    assert "A person approves later" in shown


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("seed", "-1", "Give a whole number from 0 to 4,294,967,295."),
        ("seed", "9" * 40, "Give a whole number"),
        ("suffix", "x:y", "Use 1 to 64 letters"),
        ("recipe", "../../etc/passwd", "Choose one of the recipes."),
        ("max_perplexity_ratio", "", "Give a number from 0.01 to 10."),
        ("max_perplexity_ratio", "nan", "Give a number from 0.01 to 10."),
        ("min_exact", "1.5", "Give a number from 0 to 1."),
        ("max_perplexity", "<b>", "Give a number from 1"),
    ],
)
async def test_a_mistake_is_said_at_its_field_and_in_the_summary(
    sign_in, tenant, database, *, make_upload, field: str, value: str, said: str
) -> None:
    await make_upload()
    browser = await sign_in("acme")
    fields = {
        "recipe": "cpu-small",
        "seed": "17",
        "max_perplexity_ratio": "0.7",
        "max_live_perplexity_ratio": "1",
        "min_similarity_gain": "-0.1",
        "max_parity_nats": "0.05",
    }
    answer = await browser.post(f"{PAGE}/new", data={**fields, field: value})
    assert answer.status_code == 422
    page = soup(answer)
    link = page.select_one(".summary a")
    assert link is not None
    assert said in link.get_text()
    assert link["href"] == f"#{field}"
    target = page.select_one(f"#{field}")
    assert target is not None
    if field != "recipe":
        assert target["aria-invalid"] == "true"
        assert target["value"] == value
    # what was typed elsewhere is still there
    other = page.select_one("#seed" if field == "max_perplexity_ratio" else "#max_perplexity_ratio")
    assert other is not None
    assert other["value"] in ("17", "0.7")
    assert await jobs_of(database) == []


async def test_what_the_service_refuses_comes_back_with_the_form(sign_in, tenant, database) -> None:
    browser = await sign_in("acme")
    fields = {
        str(e["name"]): str(e.get("value", ""))
        for e in soup(await browser.get(f"{PAGE}/new")).select("main form input")
        if e.get("type") not in ("radio", "checkbox")
    }
    answer = await browser.post(f"{PAGE}/new", data={**fields, "recipe": "cpu-small"})
    assert answer.status_code == 422
    assert "at least 10 are needed" in words(answer, ".summary")
    assert await jobs_of(database) == []


async def test_a_run_shows_its_own_settings_stages_gates_and_figures(
    sign_in, tenant, database
) -> None:
    before = await make_run(database, tenant, state="succeeded")
    await validation(database, before, 40, loss=1.78)
    await make_version(database, tenant, before, version=2, live=True)
    job = await make_run(database, tenant, seed=5, actor="command line")
    await estimate(database, job)
    for number in range(1, 25):
        await step(database, job, number)
    await validation(database, job, 10, loss=2.31)
    await validation(database, job, 20, loss=1.61)
    browser = await sign_in("acme", "viewer")
    answer = await browser.get(f"{PAGE}/{job.id}")
    shown = words(answer)
    for expected in (
        "Recipe cpu-small",
        "Base tiny-base",
        "260 conversations, version 8f3a91",
        "Seed 5",
        "by the command line",
        "step 24 of 40",
        "Validation is already below what is live.",
        "Best validation so far: 1.61 at step 20.",
        "1.61 validation, step 20",
        "Perplexity against the base later at most 0.80 of its",
        "Perplexity against what is live later at most 1.05 of its; live: 5.90",
        "Training, whole 3 min 12 s",
        "Tokens 26,103 15,600",
        "Memory, most 2.5 GiB 2.3 GiB",
        "acme@2, live: 1.78",
    ):
        assert expected in shown
    page = soup(answer)
    box = page.select_one("#curve")
    assert box is not None
    marks = json.loads(str(box["data-marks"]))
    assert [mark[2] for mark in marks if mark[0] == "step"] == list(range(1, 25))
    assert [mark[2:4] for mark in marks if mark[0] == "validation"] == [[10, 2.31], [20, 1.61]]
    line = page.select_one("polyline.cand")
    assert line is not None
    assert len(str(line["points"]).split()) == 24
    # a viewer may look, and is offered nothing else
    assert not page.select("main form")
    assert not page.select("[style], [onclick]")
    assert len(page.select("#run-points tbody tr")) == 24


@pytest.mark.parametrize(("measure", "said"), [("speed", "tokens a second"), ("memory", "GiB")])
async def test_the_other_measures_are_links(
    sign_in, tenant, database, measure: str, said: str
) -> None:
    job = await make_run(database, tenant)
    await step(database, job, 1)
    browser = await sign_in("acme", "viewer")
    page = soup(await browser.get(f"{PAGE}/{job.id}?measure={measure}"))
    current = page.select_one(".seg a[aria-current]")
    assert current is not None
    assert current["href"] == f"?measure={measure}"
    note = page.select_one("#run-said")
    assert note is not None
    assert said in note.get_text()
    unknown = soup(await browser.get(f"{PAGE}/{job.id}?measure=nonsense"))
    assert "Loss" in str(unknown.select_one("#c-curve"))


async def test_a_run_without_a_point_says_what_will_come(sign_in, tenant, database) -> None:
    job = await make_run(database, tenant, state="queued")
    browser = await sign_in("acme", "viewer")
    shown = words(await browser.get(f"{PAGE}/{job.id}"))
    assert "The first point comes with the first step" in shown
    assert "The trainer measures a first batch" in shown
    assert "Traceback" not in shown


async def test_a_failed_run_says_why_and_what_to_do(sign_in, tenant, database) -> None:
    job = await make_run(database, tenant)
    error = {"code": "out_of_memory", "message": "memory ran out <b>"}
    await move(database, job, "failed", error=error)
    browser = await sign_in("acme")
    answer = await browser.get(f"{PAGE}/{job.id}")
    assert "memory ran out <b>. Start a new run with a recipe that needs less memory" in words(
        answer, "#run-notices"
    )
    assert "<b>" not in str(soup(answer).select_one("#run-notices .notice div b ~ b") or "")
    assert not soup(answer).select("#run-acts form")


async def test_an_admin_pauses_goes_on_and_cancels_with_plain_forms(
    sign_in, tenant, database
) -> None:
    job = await make_run(database, tenant)
    where = f"{PAGE}/{job.id}"
    browser = await sign_in("acme")
    acts = soup(await browser.get(where)).select("#run-acts form")
    assert [str(form["action"]) for form in acts] == [f"{where}/pause"]
    answer = await browser.post(f"{where}/pause")
    assert (answer.status_code, answer.headers["location"]) == (303, where)
    assert "Pausing" in words(await browser.get(where), "#run-head")
    assert (await browser.post(f"{where}/resume")).status_code == 303
    asked = await browser.get(f"{where}/cancel")
    assert "never becomes a version" in words(asked)
    assert soup(asked).select_one(f'form[action="{where}/cancel"] button.danger')
    assert (await browser.post(f"{where}/cancel")).status_code == 303
    shown = await browser.get(where)
    assert "Cancelling" in words(shown, "#run-head")
    assert "Asked to cancel the run, Ana" in words(shown, "#run-log").replace(" ,", ",")
    assert (await jobs_of(database))[0].cancel_requested
    # a run that has ended cannot be cancelled again: the page says so
    await move(database, job, "cancelled")
    again = await browser.post(f"{where}/cancel")
    assert again.status_code == 409
    assert "cannot be cancelled" in words(again)


@pytest.mark.parametrize("decision", ["approved", "rejected"])
async def test_an_admin_decides_about_a_version_that_waits(
    sign_in, tenant, database, decision: str
) -> None:
    told = {"gates": "cannot_tell", "summary": "left 1 of 5 gates open: about 180 held-out replies"}
    job = await make_run(database, tenant, state="awaiting_approval", outcome=told)
    await make_version(database, tenant, job, version=1)
    where = f"{PAGE}/{job.id}"
    reader = await sign_in("acme", "viewer")
    text = words(await reader.get(where))
    assert (
        "acme@1 waits for a person. It left 1 of 5 gates open: about 180 held-out replies." in text
    )
    assert "It did not go live" not in text
    assert "An admin of this tenant decides" in text
    browser = await sign_in("acme")
    page = soup(await browser.get(where))
    assert [b["value"] for b in page.select("form.decide button")] == ["approved", "rejected"]
    assert (await browser.post(f"{where}/decision", data={"decision": "maybe"})).status_code == 422
    assert (await browser.post(f"{where}/decision", data={"decision": decision})).status_code == 303
    (found,) = await jobs_of(database)
    assert found.decision == decision
    shown = await browser.get(where)
    assert f"A person approves {decision}" in words(shown, "#run-gates")
    assert not soup(shown).select("form.decide")


PATHS = (
    "",
    "/new",
    "/runs.csv",
    "/compare",
    "/{id}",
    "/{id}/points.csv",
    "/{id}/report",
    "/{id}/cancel",
    "/{id}/events",
)
ACTS = ("/new", "/{id}/cancel", "/{id}/pause", "/{id}/resume", "/{id}/decision")


async def test_another_tenants_pages_answer_404(sign_in, make_tenant, database) -> None:
    mine, theirs = await make_tenant("acme"), await make_tenant("zoo")
    job = await make_run(database, theirs)
    await make_run(database, mine)
    browser = await sign_in("acme")
    for path in PATHS:
        for slug in ("zoo", "nobody"):
            where = f"/console/t/{slug}/training{path.format(id=job.id)}"
            assert (await browser.get(where)).status_code == 404, where
    for path in ("/{id}", "/{id}/points.csv", "/{id}/report", "/{id}/cancel", "/{id}/events"):
        where = f"{PAGE}{path.format(id=job.id)}"
        assert (await browser.get(where)).status_code == 404, where
    for path in ACTS:
        where = f"/console/t/zoo/training{path.format(id=job.id)}"
        assert (await browser.post(where)).status_code == 404, where
    for path in ACTS[1:4]:
        assert (await browser.post(f"{PAGE}{path.format(id=job.id)}")).status_code == 404, path
    answer = await browser.get(f"{PAGE}/compare", params={"run": [job.id, "0" * 32]})
    assert answer.status_code == 404


async def test_viewers_and_reviewers_start_and_stop_nothing(sign_in, tenant, database) -> None:
    job = await make_run(database, tenant)
    for role in ("viewer", "reviewer"):
        browser = await sign_in("acme", role)
        assert (await browser.get(f"{PAGE}/new")).status_code == 403
        for path in ACTS:
            answer = await browser.post(f"{PAGE}{path.format(id=job.id)}")
            assert answer.status_code == 403, (role, path)
    (found,) = await jobs_of(database)
    assert not found.cancel_requested
    assert not found.pause_requested


async def test_two_runs_are_drawn_over_each_other(sign_in, tenant, database) -> None:
    made = []
    for version in (1, 2):
        job = await make_run(database, tenant, state="succeeded")
        for number in range(1, 5):
            await step(database, job, number, of=4, loss=4.0 - number * version / 4)
        scores = {"new": {"perplexity": 8.0 - version, "token_f1": 0.3, "replies": 5}}
        await make_version(database, tenant, job, version=version, scores=scores)
        made.append(job)
    browser = await sign_in("acme", "viewer")
    answer = await browser.get(f"{PAGE}/compare", params={"run": [job.id for job in made]})
    assert answer.status_code == 200
    page = soup(answer)
    assert len(page.select("polyline.cand, polyline.live")) == 2
    assert [cell.get_text() for cell in page.select("td.best")] == ["0.30, best", "6.00, best"]
    assert "acme@1, acme@2" in str(page.select_one(".curve"))
    links = [str(link["href"]) for link in page.select(".seg a")]
    assert links[1] == f"?measure=speed&run={made[0].id}&run={made[1].id}"
    assert (await browser.get(f"{PAGE}/compare{links[1]}")).status_code == 200


async def test_one_run_cannot_be_compared_and_the_page_says_so(sign_in, tenant, database) -> None:
    job = await make_run(database, tenant)
    browser = await sign_in("acme", "viewer")
    answer = await browser.get(f"{PAGE}/compare", params={"run": job.id})
    assert answer.status_code == 422
    assert "Choose 2 to 4 runs to compare; 1 were chosen." in words(answer)
    box = soup(answer).select_one("input[name=run]")
    assert box is not None
    assert box.has_attr("checked")


async def test_points_and_runs_are_to_be_had_as_csv(sign_in, tenant, database) -> None:
    job = await make_run(database, tenant)
    for number in (1, 2):
        await step(database, job, number)
    browser = await sign_in("acme", "viewer")
    answer = await browser.get(f"{PAGE}/{job.id}/points.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    assert [row["step"] for row in csv.DictReader(io.StringIO(answer.text))] == ["1", "2"]
    answer = await browser.get(f"{PAGE}/runs.csv")
    assert [row["job"] for row in csv.DictReader(io.StringIO(answer.text))] == [job.id]


async def test_a_report_is_a_page_of_its_own_that_runs_nothing(sign_in, tenant, database) -> None:
    job = await make_run(database, tenant, state="succeeded")
    nasty = "<script>alert(1)</script>"
    made = msgspec.to_builtins(a_report(live=True, text=nasty))
    await make_version(database, tenant, job, version=1, report=made)
    browser = await sign_in("acme", "viewer")
    shown = await browser.get(f"{PAGE}/{job.id}")
    assert soup(shown).select(f'a[href="{PAGE}/{job.id}/report"]')
    gates = words(shown, "#run-gates")
    assert "with what was measured" in gates
    assert "Perplexity against the base passed held-out perplexity 2.41 against 12.83" in gates
    answer = await browser.get(f"{PAGE}/{job.id}/report")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert policy.endswith("; sandbox")
    assert nasty not in answer.text
    assert "Northgate" in answer.text


async def test_a_run_without_a_report_has_none(sign_in, tenant, database) -> None:
    job = await make_run(database, tenant)
    browser = await sign_in("acme", "viewer")
    answer = await browser.get(f"{PAGE}/{job.id}/report")
    assert answer.status_code == 404
    assert "no report yet" in words(answer)


def events_of(text: str) -> list[dict[str, str]]:
    """The events of a stream, without its comments."""
    found = []
    for block in text.split("\n\n"):
        lines = [line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")]
        event: dict[str, str] = dict(lines)
        if "event" in event:
            found.append(event)
    return found


async def test_the_stream_begins_behind_what_the_page_holds_and_ends_with_the_run(
    sign_in, tenant, database
) -> None:
    job = await make_run(database, tenant)
    for number in (1, 2, 3):
        await step(database, job, number)
    browser = await sign_in("acme", "viewer")
    box = soup(await browser.get(f"{PAGE}/{job.id}")).select_one("#curve")
    assert box is not None
    after = str(box["data-after"])
    await step(database, job, 4)
    await validation(database, job, 4, loss=2.0)
    await happen(database, job, "checkpoint", step=4)
    await move(database, job, "cancelled")
    answer = await browser.get(str(box["data-events"]), params={"after": after})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.text.startswith("retry: 1000\n\n")
    events = events_of(answer.text)
    assert [event["event"] for event in events] == ["changed", "marks", "end"]
    marks = json.loads(events[1]["data"])
    assert [(mark[0], mark[2]) for mark in marks] == [("step", 4), ("validation", 4)]
    # the id is of the last event that the message holds
    assert int(events[1]["id"]) == int(after) + 4
    again = await browser.get(
        str(box["data-events"]), params={"after": after}, headers={"last-event-id": events[1]["id"]}
    )
    assert [event["event"] for event in events_of(again.text)] == ["end"]


async def test_a_broken_last_event_id_is_passed_over(sign_in, tenant, database) -> None:
    job = await make_run(database, tenant, state="failed")
    browser = await sign_in("acme", "viewer")
    for given in (b"x", b"-1", b"\xd9\xa3", b"9" * 50):
        answer = await browser.get(f"{PAGE}/{job.id}/events", headers=[(b"last-event-id", given)])
        assert answer.status_code == 200, given
    assert (await browser.get(f"{PAGE}/{job.id}/events?after=-1")).status_code == 422


async def test_more_open_pages_than_allowed_are_asked_to_come_later(
    sign_in, tenant, database, monkeypatch
) -> None:
    monkeypatch.setattr("server.jobs.feed.MAX_FOLLOWED", 0)
    job = await make_run(database, tenant)
    browser = await sign_in("acme", "viewer")
    answer = await browser.get(f"{PAGE}/{job.id}/events")
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


async def _yes() -> bool:
    return True


async def test_an_open_stream_ends_when_its_reader_is_signed_out(
    sign_in, tenant, database, monkeypatch
) -> None:
    monkeypatch.setattr(training, "_COMMENT_SECONDS", 0.0)
    job = await make_run(database, tenant)
    browser = await sign_in("acme", "viewer")
    open_stream = asyncio.create_task(browser.get(f"{PAGE}/{job.id}/events"))
    await asyncio.sleep(0.3)
    assert not open_stream.done()
    async with database.transaction() as session:
        (person,) = await session.scalars(select(Person))
        await sessions.end_all(session, person.id)
    async with asyncio.timeout(20):
        answer = await open_stream
    assert answer.status_code == 200
    assert "event: end" not in answer.text


async def test_a_quiet_stream_says_now_and_then_that_it_is_there(
    tenant, database, monkeypatch
) -> None:
    monkeypatch.setattr(training, "_COMMENT_SECONDS", 0.0)
    job = await make_run(database, tenant)
    feed = JobFeed(database, look_seconds=0.01)
    stream = training._stream(feed.follow(tenant.id, job.id, after=3), _yes)
    assert [await anext(stream) for _ in range(3)] == [
        b"retry: 1000\n\n",
        b": still here\n\n",
        b": still here\n\n",
    ]
    feed.close()
    async with asyncio.timeout(20):
        assert [line async for line in stream] == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, NOTHING),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (192, "3 min 12 s"),
        (3_600, "1 h 00 min"),
        (100_000, "1 d 3 h"),
    ],
)
def test_durations_are_short(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, NOTHING),
        (3, "about 10 s"),
        (64, "about 60 s"),
        (240, "about 4 minutes"),
        (9_000, "about 2 hours"),
    ],
)
def test_estimates_are_rounded(seconds: float | None, said: str) -> None:
    assert about(seconds) == said


def test_a_curve_is_laid_out_in_a_box_of_a_thousand() -> None:
    line = Series("training", "cand", [(1, 4.0), (20, 2.0)])
    plot = draw([line], last=40, levels=[Level("live", "live", 1.0)], now=20, now_text="2.00 now")
    assert plot is not None
    assert plot.lines[0].points == "25.0,0.0 500.0,500.0"
    assert plot.levels == [("live", 750.0)]
    assert [tick.text for tick in plot.y_ticks] == ["4", "3", "2", "1", "0"]
    assert [tick.text for tick in plot.x_ticks] == ["0", "10", "20", "30", "step 40"]
    assert plot.now == 500.0
    assert draw([Series("", "cand", [])], last=1) is None


@pytest.mark.parametrize("most", [0.0004, 0.07, 0.9, 1.0, 3.6, 4.0, 17, 99, 130, 2_684, 1e6])
def test_marks_are_few_round_and_around_the_values(most: float) -> None:
    marks = round_marks(0, most)
    assert marks[0] == 0
    assert marks[-1] >= most
    assert 2 <= len(marks) <= 6
    assert round_marks(-0.5, most)[0] <= -0.5
    assert all(float(mark).is_integer() for mark in round_marks(0, most, whole=True))


def test_a_message_of_words_alone_has_an_id() -> None:
    event = Batch(
        events=[
            msgspec.convert(
                {"seq": 7, "kind": "warning", "body": {}, "at": "2026-11-29T00:00:00Z"},
                type=Batch.__annotations__["events"].__args__[0],
            )
        ],
        ended=False,
    )
    assert training._message(event) == b"id: 7\nevent: changed\ndata: 1\n\n"
