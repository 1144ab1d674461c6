"""What a run's history says: stages, the time left, the log; on both databases."""

import datetime
from typing import Any

import pytest

from server.db.models import Job, JobEvent
from server.db.scope import of_tenant
from server.jobs import history, states
from server.jobs.curve import read_curve
from server.jobs.schemas import JobEventView
from tests.server.jobs.fake_runs import STARTED, estimate, happen, make_run, move, step

AT = datetime.datetime(2026, 11, 29, 14, 0, tzinfo=datetime.UTC)


def after(seconds: float) -> datetime.datetime:
    return AT + datetime.timedelta(seconds=seconds)


def events(*given: tuple[float, str] | tuple[float, str, dict[str, Any]]) -> list[JobEventView]:
    """Events at seconds since ``AT``: states by their name, others with a body."""
    found = []
    for seq, (seconds, word, *body) in enumerate(given, start=1):
        kind, content = (word, body[0]) if body else ("state", {"state": word})
        found.append(JobEventView(seq=seq, kind=kind, body=content, at=after(seconds)))
    return found


def job(state: str, **fields: Any) -> Job:
    return Job(
        **{
            "state": state,
            "stage": "",
            "created_at": AT,
            "progress": {},
            "require_approval": False,
            **fields,
        }
    )


WORKED = ((0, "queued"), (12, "validating"), (50, "running"))


def test_each_stage_has_the_time_that_was_worked_on_it() -> None:
    running = job("running", progress={"step": 24, "steps": 40})
    found = history.read_stages(running, events(*WORKED), declared=4, now=after(80))
    assert [(s.key, s.progress, s.seconds) for s in found] == [
        ("queued", "done", 12.0),
        ("checked", "done", 38.0),
        ("training", "now", 30.0),
        ("evaluation", "later", None),
        ("gates", "later", None),
        ("approval", "later", None),
    ]
    training, gates, release = found[2], found[4], found[5]
    assert (training.note, training.part) == ("step 24 of 40", 0.6)
    assert (gates.note, release.name, release.note) == ("4 declared", "Release", "by the gates")


def test_a_full_evaluation_says_which_model_it_trains() -> None:
    for subject, note in (("new", "the new model"), ("training from scratch",) * 2):
        run = job("evaluating", progress={"subject": subject, "done": 3, "total": 12})
        found = history.read_stages(
            run, events(*WORKED, (60, "evaluating")), declared=1, now=after(70)
        )
        assert (found[3].note, found[3].part) == (note, 0.25)


def test_a_pause_belongs_to_no_stage() -> None:
    paused = events(*WORKED, (60, "paused"))
    found = history.read_stages(job("paused"), paused, declared=1, now=after(4_000))
    assert (found[2].progress, found[2].seconds) == ("now", 10.0)
    again = events(
        *WORKED, (60, "paused"), (4_000, "queued"), (4_500, "validating"), (4_501, "running")
    )
    found = history.read_stages(job("running"), again, declared=1, now=after(4_511))
    assert (found[0].seconds, found[2].progress, found[2].seconds) == (12.0, "now", 21.0)


def test_a_run_that_ended_well_is_done_in_every_stage() -> None:
    done = events(
        *WORKED,
        (100, "evaluating"),
        (130, "verdict", {"passed": True, "adapter": "acme@1", "summary": "passed"}),
        (131, "awaiting_approval"),
        (200, "succeeded"),
    )
    ended = job("succeeded", require_approval=True, outcome={"promoted": True})
    found = history.read_stages(ended, done, declared=4, now=after(9_999))
    assert {stage.progress for stage in found} == {"done"}
    assert [stage.seconds for stage in found] == [12.0, 38.0, 50.0, 30.0, 1.0, 69.0]
    assert found[-1].note == "made live"


def test_a_run_that_failed_says_in_which_stage() -> None:
    failed = job("failed", progress={"step": 3, "steps": 40})
    found = history.read_stages(failed, events(*WORKED, (60, "failed")), declared=1, now=after(99))
    assert [stage.progress for stage in found[:4]] == ["done", "done", "failed", "later"]
    assert found[2].note == "until step 3 of 40"


async def left(database, job: Job, *, at: float) -> float | None:
    async with database.reading() as session:
        found = await of_tenant(job.tenant_id).get_one(session, Job, job.id)
        return history.seconds_left(
            found,
            stepped=history.stepped_since_resumption(
                await history.read_history(session, found),
                (await read_curve(session, found)).step_seq,
            ),
            last_at=found.progress.get("at", 0.0),
            now=datetime.datetime.fromtimestamp(at, datetime.UTC),
        )


async def test_the_time_left_comes_from_the_steps_since_the_last_resumption(
    database, make_tenant
) -> None:
    job = await make_run(database, await make_tenant())
    await estimate(database, job)
    assert await left(database, job, at=STARTED) is None
    await step(database, job, 1, eta_seconds=200.0)
    assert await left(database, job, at=STARTED + 6) == 200.0
    assert await left(database, job, at=STARTED + 16) == 190.0
    assert await left(database, job, at=STARTED + 999) == 0.0
    await move(database, job, "paused")
    assert await left(database, job, at=STARTED + 60) is None
    await move(database, job, "queued")
    await move(database, job, "running")
    # what was reckoned before the pause says nothing about now
    assert await left(database, job, at=STARTED + 60) is None
    await happen(database, job, "resumed", at=STARTED + 61, step=1)
    assert await left(database, job, at=STARTED + 62) is None
    await step(database, job, 2, at=STARTED + 70, eta_seconds=50.0)
    assert await left(database, job, at=STARTED + 72) == 48.0


async def test_the_log_tells_what_happened_newest_first_and_who_asked(
    database, make_tenant
) -> None:
    job = await make_run(database, await make_tenant())
    await estimate(database, job)
    for number in range(1, 8):
        await step(database, job, number)
        await happen(database, job, "checkpoint", at=STARTED, step=number)
    async with database.transaction() as session:
        await states.pause(session, job.tenant_id, job.id, actor="person:1")
        # a second request changes nothing, and says nothing
        await states.pause(session, job.tenant_id, job.id, actor="person:2")
    async with database.reading() as session:
        log = history.read_log(await history.read_history(session, job))
    assert [(line.text, line.actor) for line in log[:2]] == [
        ("Asked to pause the run", "person:1"),
        ("Kept a checkpoint at step 7", None),
    ]
    assert [line.text for line in log if "checkpoint" in line.text] == [
        f"Kept a checkpoint at step {number}" for number in (7, 6, 5)
    ]
    assert log[-1].text == "Put into the queue"
    assert any("3.2 min, 2.5 GiB, 26,103 tokens in 40 steps" in line.text for line in log)


async def test_an_error_says_what_to_do(database, make_tenant) -> None:
    job = await make_run(database, await make_tenant())
    error = {"code": "disk_full", "message": "the disk has 3 MB free"}
    await move(database, job, "failed", error=error)
    async with database.reading() as session:
        newest = history.read_log(await history.read_history(session, job))[0]
    assert newest.level == "error"
    assert newest.text == "The run failed: the disk has 3 MB free"
    assert newest.advice == "Make room on the worker's disk, then start a new run."


async def test_a_history_of_thousands_is_cut_at_its_newest(database, make_tenant) -> None:
    job = await make_run(database, await make_tenant(), state="queued")
    async with database.transaction() as session:
        for seq in range(2, history.MAX_LOG + 10):
            session.add(
                JobEvent(
                    tenant_id=job.tenant_id,
                    job_id=job.id,
                    seq=seq,
                    kind="warning",
                    body={"message": f"w{seq}"},
                )
            )
    async with database.reading() as session:
        found = await history.read_history(session, job)
    assert len(found) == history.MAX_LOG
    assert found[-1].body == {"message": f"w{history.MAX_LOG + 9}"}


@pytest.mark.parametrize("code", ["bad_input", "out_of_memory", "killed", "internal"])
def test_each_way_to_fail_has_advice(code: str) -> None:
    assert history.advice_for(code)


def test_an_unknown_way_to_fail_has_none() -> None:
    assert history.advice_for("something new") == ""
