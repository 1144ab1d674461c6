"""A run's curve out of its history, on both databases."""

import csv
import io

import pytest

from server.db.models import Job
from server.db.scope import of_tenant
from server.jobs import curve
from server.jobs.curve import Curve, CurveReader, Point, Reference, read_curve
from server.jobs.service import list_events
from tests.server.jobs.fake_runs import (
    STARTED,
    happen,
    make_run,
    make_version,
    move,
    step,
    validation,
)


async def read(database, job: Job) -> Curve:
    async with database.reading() as session:
        return await read_curve(session, job)


async def test_a_curve_holds_each_step_once_with_what_was_measured(database, make_tenant) -> None:
    job = await make_run(database, await make_tenant())
    for number in (1, 2):
        await step(database, job, number)
    await validation(database, job, 2, loss=2.31)
    found = await read(database, job)
    assert [p.step for p in found.points] == [1, 2]
    last = found.points[-1]
    assert (last.tokens, last.tokens_per_second, last.memory_bytes) == (1300, 114.0, 2_402_000_000)
    assert (last.valid_loss, last.best) == (2.31, True)
    assert found.peak_memory_bytes == 2_402_000_000
    async with database.reading() as session:
        events = await list_events(session, job.tenant_id, job.id)
    assert found.seq == events[-1].seq == 6


async def test_a_step_that_was_repeated_after_a_resumption_counts_as_its_last(
    database, make_tenant
) -> None:
    job = await make_run(database, await make_tenant())
    await step(database, job, 1)
    await step(database, job, 2, loss=9.0)
    await validation(database, job, 2, loss=8.0)
    await step(database, job, 2, loss=2.0, at=STARTED + 500)
    # a step of before that comes into the history late is not the last of its number
    await step(database, job, 2, loss=7.0, at=STARTED + 1)
    found = await read(database, job)
    assert [(p.step, p.train_loss, p.valid_loss) for p in found.points] == [
        (1, 3.6, None),
        (2, 2.0, None),
    ]


async def test_a_curve_of_nothing_is_empty(database, make_tenant) -> None:
    job = await make_run(database, await make_tenant())
    found = await read(database, job)
    assert found.points == ()
    assert found.last is None
    assert found.peak_memory_bytes is None
    assert curve.loss_sentence(found, None) == ("", "")
    assert curve.speed_sentence(found) == ("", "")
    assert curve.memory_sentence(found, expected_bytes=None) == ("", "")


async def test_marks_of_events_are_those_of_the_curve(database, make_tenant) -> None:
    job = await make_run(database, await make_tenant())
    for number in (1, 2, 3):
        await step(database, job, number)
    await validation(database, job, 3, loss=2.0)
    whole = curve.marks_of((await read(database, job)).points)
    async with database.reading() as session:
        events = await list_events(session, job.tenant_id, job.id)
    assert [mark for event in events if (mark := curve.mark_of(event))] == whole
    assert whole[-1] == ("validation", STARTED + 19, 3, 2.0, 1.0, None, None)


async def test_the_csv_has_every_point(database, make_tenant) -> None:
    job = await make_run(database, await make_tenant())
    await step(database, job, 1, memory_bytes=None)
    await validation(database, job, 1, loss=-2.5, best=False)
    rows = list(csv.reader(io.StringIO(curve.to_csv(await read(database, job)).decode())))
    assert rows[0] == list(curve.CSV_COLUMNS)
    (row,) = rows[1:]
    assert row[:7] == ["1", "3.60000", "-2.50000", "false", "650", "113.00000", ""]
    assert float(row[7]) == STARTED + 6


async def test_the_reference_is_what_the_live_versions_weights_had(database, make_tenant) -> None:
    tenant = await make_tenant()
    before = await make_run(database, tenant, state="succeeded")
    await validation(database, before, 10, loss=1.78)
    await validation(database, before, 20, loss=1.9, best=False)
    live = await make_version(database, tenant, before, version=2, live=True)
    job = await make_run(database, tenant)
    other_base = await make_run(database, tenant, base="another")
    by_pairs = await make_run(database, tenant, method={"type": "dpo"})
    async with database.reading() as session:
        found = await curve.live_reference(session, job, live)
        assert found == Reference(name="@2", loss=1.78)
        for each in (before, other_base, by_pairs):
            assert await curve.live_reference(session, each, live) is None
        assert await curve.live_reference(session, job, None) is None


async def test_another_tenants_live_version_is_no_reference(database, make_tenant) -> None:
    theirs = await make_tenant("other")
    before = await make_run(database, theirs, state="succeeded")
    await validation(database, before, 10, loss=1.78)
    live = await make_version(database, theirs, before, version=1, live=True)
    job = await make_run(database, await make_tenant())
    async with database.reading() as session:
        assert await curve.live_reference(session, job, live) is None


async def test_a_reader_reads_on_from_where_it_was_and_gives_the_same(
    database, make_tenant, monkeypatch
) -> None:
    monkeypatch.setattr(curve, "MAX_KEPT", 1)
    reader, tenant = CurveReader(), await make_tenant()
    job, other = await make_run(database, tenant), await make_run(database, tenant)
    for number in range(1, 5):
        await step(database, job, number)
        await validation(database, job, number, loss=1.0 / number)
        async with database.reading() as session:
            assert await reader.read(session, job) == await read_curve(session, job)
            # nothing came: nothing is read again
            assert await reader.read(session, job) is await reader.read(session, job)
    # an event that comes late, of a step that was repeated
    await step(database, job, 2, at=STARTED + 99, loss=0.25)
    await step(database, job, 2, at=STARTED + 1, loss=9.0)
    await move(database, job, "paused")
    async with database.reading() as session:
        grown = await reader.read(session, job)
        assert grown == await read_curve(session, job)
        assert grown.points[1].train_loss == 0.25
        assert (grown.seq, grown.step_seq) == (14, 13)
        assert (await reader.read(session, other)).points == ()
        assert await reader.read(session, job) == grown


def points(*losses: float, validated: dict[int, float] | None = None) -> Curve:
    found = [Point(step=n, train_loss=loss) for n, loss in enumerate(losses, start=1)]
    for number, loss in (validated or {}).items():
        found[number - 1].valid_loss = loss
    return Curve(points=tuple(found), seq=1, step_seq=1)


@pytest.mark.parametrize(
    ("validated", "reference", "claim"),
    [
        ({}, None, "No validation yet."),
        ({2: 2.0}, None, "One validation so far."),
        ({2: 2.0, 3: 1.5}, None, "Validation is still falling."),
        ({2: 1.5, 3: 2.0}, None, "Validation rises again: the best weights are kept."),
        ({2: 1.5, 3: 2.0}, 1.6, "Validation is already below what is live."),
        ({2: 1.5}, 1.5, "Validation is not below what is live yet."),
    ],
)
def test_the_sentence_says_what_the_losses_show(
    validated: dict[int, float], reference: float | None, claim: str
) -> None:
    live = None if reference is None else Reference(name="@2", loss=reference)
    said, figures = curve.loss_sentence(points(3.0, 2.5, 2.0, validated=validated), live)
    assert said == claim
    assert "fell from 3.00 to 2.00 at step 3" in figures
    if validated:
        best = min(validated, key=lambda number: validated[number])
        assert f"{validated[best]:.2f} at step {best}" in figures


def test_the_memory_is_held_against_its_estimate() -> None:
    found = Curve(points=(Point(step=1, train_loss=1.0, memory_bytes=3 << 30),), seq=1, step_seq=1)
    assert curve.memory_sentence(found, expected_bytes=2 << 30) == (
        "3.0 GiB at most so far.",
        "That is more than the 2.0 GiB that was estimated.",
    )


def test_a_long_curve_is_thinned_but_for_its_validations_and_its_end() -> None:
    long = points(*[1.0] * 9_999, validated={7: 1.0})
    kept = [point.step for point in curve.thinned(long.points)]
    assert len(kept) <= curve.MAX_POINTS + 2
    assert {1, 7, 9_999} <= set(kept)
    assert curve.thinned(long.points[:100]) == list(long.points[:100])


async def test_a_paused_runs_curve_goes_on_where_it_was(database, make_tenant) -> None:
    job = await make_run(database, await make_tenant())
    await step(database, job, 1)
    await move(database, job, "paused")
    await move(database, job, "queued")
    await move(database, job, "running")
    await happen(database, job, "resumed", at=STARTED + 90, step=1)
    await step(database, job, 2)
    assert [point.step for point in (await read(database, job)).points] == [1, 2]
    async with database.reading() as session:
        assert await of_tenant(job.tenant_id).get(session, Job, job.id) is not None
