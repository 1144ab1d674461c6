"""Versions as people choose among them: how each stands, and its figures; on both databases."""

import pytest

from server.adapters import service, versions
from server.db.models import Tenant
from server.errors import Conflict, NotFound
from server.jobs import history, states
from server.tenants import service as tenants
from tests.server.adapters.fake_reports import make_report
from tests.server.jobs.fake_runs import make_run, make_version


async def listed(database, tenant: Tenant, **how) -> list[versions.Version]:
    async with database.reading() as session:
        fresh = await tenants.get(session, tenant.slug)
        return await versions.list_versions(session, fresh, **how)


async def promote(database, version: int, *, force: bool = False) -> None:
    async with database.transaction() as session:
        tenant = await tenants.get(session, "acme")
        await service.promote(session, tenant, version=version, actor="person:1", force=force)


@pytest.fixture
async def tenant(make_tenant) -> Tenant:
    made: Tenant = await make_tenant("acme")
    return made


async def test_each_version_stands_somewhere_and_some_may_be_promoted(database, tenant) -> None:
    async def make(version: int, adapter: str = "ready", job: str = "succeeded", **more) -> None:
        run = await make_run(database, tenant, state=job, **more)  # type: ignore[arg-type]
        await make_version(database, tenant, run, version=version, state=adapter)

    await make(1)
    await make(2)
    await make(3)
    await make(4, "candidate")
    await make(5, "failed_gates")
    await make(6, "unsafe")
    await make(7, decision="rejected")
    await make(8, "candidate", "awaiting_approval")
    await make(9, "ready", "awaiting_approval", decision="approved")
    await make(10, "failed_gates")
    await make(11, "deleted")
    await promote(database, 10, force=True)
    await promote(database, 1)
    await promote(database, 2)
    found = await listed(database, tenant)
    assert [(each.version, each.standing, each.promotable) for each in found] == [
        (10, "replaced", False),  # it needs force again
        (9, "approved", False),
        (8, "waiting", False),
        (7, "rejected", True),
        (6, "unsafe", False),
        (5, "failed", False),
        (4, "undecided", True),
        (3, "ready", True),
        (2, "live", False),
        (1, "replaced", True),
    ]
    async with database.reading() as session:
        fresh = await tenants.get(session, "acme")
        assert [each.version for each in await versions.list_waiting(session, fresh)] == [8]
        newest = await versions.newest_candidate(session, fresh, base="tiny-base")
        assert newest is not None
        assert newest.version == 10
        assert await versions.newest_candidate(session, fresh, base="other") is None


async def test_the_figures_are_of_the_version_and_the_report_is_not_loaded(
    database, tenant
) -> None:
    run = await make_run(database, tenant, state="succeeded")
    await make_version(database, tenant, run, version=1, report=make_report())
    bare = await make_run(database, tenant, state="succeeded")
    await make_version(database, tenant, bare, version=2, scores={}, dataset_id=None)
    second, first = await listed(database, tenant)
    assert (first.name, first.job_id, first.base) == ("acme@1", run.id, "tiny-base")
    assert (first.perplexity, first.token_f1, first.parity) == (5.9, 0.41, 0.0042)
    assert first.conversations == 260
    assert (second.perplexity, second.token_f1, second.parity) == (None, None, None)
    assert second.conversations is None


async def test_versions_and_changes_are_paged_by_the_last_one(database, tenant) -> None:
    for version in (1, 2, 3):
        run = await make_run(database, tenant, state="succeeded")
        await make_version(database, tenant, run, version=version)
        await promote(database, version)
    first = await listed(database, tenant, limit=2)
    assert [each.version for each in first] == [3, 2]
    assert [each.version for each in await listed(database, tenant, below=2)] == [1]
    assert len(await listed(database, tenant, below=1 << 70)) == 3
    async with database.reading() as session:
        fresh = await tenants.get(session, "acme")
        newest = await service.history(session, fresh, limit=2)
        assert [step.revision for step in newest] == [3, 2]
        (oldest,) = await service.history(session, fresh, below=2)
        assert (oldest.from_version, oldest.to_version, oldest.actor) == (None, 1, "person:1")
        of_two = await service.history(session, fresh, version=2)
        assert [(step.from_version, step.to_version) for step in of_two] == [(2, 3), (1, 2)]
        assert await service.history(session, fresh, version=9) == []


async def test_another_tenants_versions_are_not_there(database, tenant, make_tenant) -> None:
    other = await make_tenant("zoo")
    run = await make_run(database, other, state="awaiting_approval")
    await make_version(database, other, run, version=1, live=True)
    assert await listed(database, tenant) == []
    async with database.reading() as session:
        fresh = await tenants.get(session, "acme")
        assert await versions.list_waiting(session, fresh) == []
        assert await versions.newest_candidate(session, fresh, base="tiny-base") is None
        for version in (1, 0, -1, 1 << 70):
            with pytest.raises(NotFound):
                await versions.get_version(session, fresh, version)


async def test_what_a_roll_back_leads_to_is_known_before(database, tenant) -> None:
    runs = [await make_run(database, tenant, state="succeeded") for _ in range(2)]
    made = [
        await make_version(database, tenant, run, version=number)
        for number, run in enumerate(runs, start=1)
    ]
    async with database.transaction() as session:
        owner = await tenants.get(session, "acme")
        with pytest.raises(Conflict, match="no earlier version"):
            await service.before_live(session, owner)
        await service.promote(session, owner, version=1, actor="a")
        assert await service.before_live(session, owner) is None
        await service.promote(session, owner, version=2, actor="a")
        assert await service.before_live(session, owner) == made[0].id
        await service.roll_back(session, owner, actor="a")
        assert owner.live_adapter_id == made[0].id
        assert await service.before_live(session, owner) is None


async def test_a_decision_is_known_with_who_made_it(database, tenant) -> None:
    run = await make_run(database, tenant, state="awaiting_approval")
    async with database.transaction() as session:
        assert await history.read_decision(session, tenant.id, run.id) is None
        await states.decide(session, tenant.id, run.id, decision="rejected", actor="person:7")
        await states.cancel(session, tenant.id, run.id, actor="person:8")
        found = await history.read_decision(session, tenant.id, run.id)
        assert found is not None
        assert (found.approved, found.actor) == (False, "person:7")
        assert await history.read_decision(session, tenant.id, None) is None


async def test_topics_are_those_of_the_newest_version_that_has_some(
    database, tenant, make_tenant
) -> None:
    other = await make_tenant("other")
    for version, report in (
        (1, make_report(questions=4)),
        (2, make_report(questions=5)),
        (3, make_report(live=False)),  # it found none
        (4, None),
    ):
        run = await make_run(database, tenant)
        await make_version(database, tenant, run, version=version, report=report)
    async with database.reading() as session:
        found = await versions.newest_topics(session, tenant)
        assert await versions.newest_topics(session, other) is None
    assert found is not None
    assert found.name == "acme@2"
    assert [topic.conversations for topic in found.topics] == [81, 70, 45, 12]
    # few conversations, and replies below the average; nothing is known of the fourth
    assert [topic.words[0] for topic in found.thin] == ["refund"]
    assert found.languages == ("en", "de", "und")
    assert {(topic.words[0], code) for topic, code in found.thin_cells} == {
        ("delivery", "de"),
        ("refund", "de"),
    }


@pytest.mark.parametrize("told", [True, False])
async def test_topics_of_one_language_or_from_before_languages_have_no_map(
    database, tenant, *, told: bool
) -> None:
    report = make_report()
    for topic in report["evaluation"]["topics"]:
        languages = topic.pop("languages")
        if told:
            topic["languages"] = [one for one in languages if one["language"] != "de"]
    run = await make_run(database, tenant)
    await make_version(database, tenant, run, version=1, report=report)
    async with database.reading() as session:
        found = await versions.newest_topics(session, tenant)
    assert found is not None
    assert (found.languages, found.thin_cells) == ((), set())
    assert versions.topics_to_csv(found.topics).count(b"\n") == 1 + len(found.topics)
