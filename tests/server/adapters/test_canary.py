"""The canary: which requests it answers, what begins, changes and ends it, and what is counted of it."""

import math

import pytest
from sqlalchemy import event, func, select

from server.adapters import canary, changes, names, service
from server.adapters.catalog import ModelCatalog
from server.adapters.schemas import Resolved
from server.adapters.split import Split, bucket
from server.db.models import (
    Adapter,
    AdapterState,
    Canary,
    LiveConversation,
    LiveMessage,
    Promotion,
    Tenant,
    Visitor,
    now,
)
from server.errors import Conflict, Invalid, NotFound
from server.jobs import states
from server.tenants import service as tenants
from server.usage.ledger import UsageLedger
from server.usage.schemas import Usage
from tests.server.jobs.fake_runs import make_run, make_version

BASE = "tiny-base"
KEYS = [f"visitor-{number}" for number in range(10_000)]


def version_of(number: int | None, **fields: object) -> Resolved:
    return Resolved(
        model="acme",
        tenant_id="t1",
        slug="acme",
        adapter=None,
        version=number,
        system_prompt="",
        **fields,  # type: ignore[arg-type]
    )


def split_of(percent: int, *, version: int = 2) -> Split:
    return Split(live=version_of(1), canary=version_of(version), percent=percent)


def taken(split: Split) -> set[str]:
    """The keys that a canary answers."""
    return {key for key in KEYS if split.choose(key) is split.canary}


# --- which requests ---


@pytest.mark.parametrize("percent", [1, 10, 50])
def test_a_canary_answers_its_share_of_keys_and_a_greater_share_keeps_them(percent: int) -> None:
    mine = taken(split_of(percent))
    # four standard deviations of a binomial draw: the keys are fixed, so that this holds or does not
    share = percent / 100
    spread = 4 * math.sqrt(len(KEYS) * share * (1 - share))
    assert abs(len(mine) - len(KEYS) * share) < spread
    assert taken(split_of(percent)) == mine
    if percent < 50:
        assert mine < taken(split_of(percent + 5))


def test_another_canary_and_another_tenant_meet_other_people() -> None:
    first, second = taken(split_of(20)), taken(split_of(20, version=3))
    # of two independent shares of a fifth, a twenty-fifth is in both
    assert abs(len(first & second) - 400) < 4 * math.sqrt(10_000 * 0.04 * 0.96)
    here, there = ([bucket(tenant, 2, key) for key in KEYS] for tenant in ("t1", "t2"))
    same = sum(one == other for one, other in zip(here, there, strict=True))
    assert same < 200  # a hundredth by chance


def test_requests_without_a_key_are_drawn_one_by_one() -> None:
    split = split_of(50)
    drawn = [split.choose(None) is split.canary for _ in range(400)]
    assert 100 < sum(drawn) < 300


def test_without_a_canary_what_is_live_answers() -> None:
    live = version_of(1)
    assert Split(live=live).choose("a") is Split(live=live).choose(None) is live


# --- what begins, changes and ends it ---


@pytest.fixture
async def acme(make_tenant) -> Tenant:
    tenant: Tenant = await make_tenant("acme")
    return tenant


@pytest.fixture
def add(database, acme):
    """Add a version; 1 is live."""

    async def do(version: int, state: AdapterState = "ready", **fields: object) -> Adapter:
        made = Adapter(
            tenant_id=acme.id,
            version=version,
            engine_name=f"acme.{version:012x}",
            base_sha256="0" * 64,
            state=state,
            **{"base_name": BASE, **fields},
        )
        async with database.transaction() as session:
            session.add(made)
        if version == 1:
            await change(database, service.promote, version=1)
        return made

    return do


async def change(database, what, **more) -> None:
    async with database.transaction() as session:
        tenant = await tenants.get(session, "acme")
        await what(session, tenant, actor="person:1", **more)


async def start(database, version: int = 2, percent: int = 10, **more) -> None:
    await change(database, canary.start, version=version, percent=percent, base=BASE, **more)


async def running(database) -> Canary | None:
    async with database.reading() as session:
        return await changes.running_canary(session, await tenants.get(session, "acme"))


async def steps(database, **more) -> list[tuple[object, ...]]:
    async with database.reading() as session:
        found = await service.history(session, await tenants.get(session, "acme"), **more)
    return [
        (s.revision, s.kind, s.from_version, s.to_version, s.canary_version, s.canary_percent)
        for s in found
    ]


async def test_a_canary_begins_changes_its_share_and_is_taken_back(database, acme, add) -> None:
    await add(1)
    await add(2, "candidate")
    await start(database, expected_revision=1)
    first = await running(database)
    await start(database, percent=25)
    await start(database, percent=25)  # changes nothing
    second = await running(database)
    assert first is not None
    assert second is not None
    assert (first.revision, second.revision, second.percent) == (2, 3, 25)
    assert second.since > first.since
    with pytest.raises(Conflict) as late:
        await change(database, canary.end, expected_revision=2)
    assert late.value.code == "revision_changed"
    await change(database, canary.end, expected_revision=3)
    assert await running(database) is None
    with pytest.raises(NotFound):
        await change(database, canary.end)
    told = [
        (4, "canary_end", 1, 1, 2, 25),
        (3, "canary", 1, 1, 2, 25),
        (2, "canary", 1, 1, 2, 10),
        (1, "promote", None, 1, None, None),
    ]
    assert await steps(database) == told
    assert await steps(database, version=2) == told[:3]
    assert await steps(database, version=1) == told[3:]
    # roll-back passes over all that, and so does "since when"
    async with database.reading() as session:
        tenant = await tenants.get(session, "acme")
        last = await service.last_change(session, tenant)
        assert last is not None
        assert (last.revision, await service.before_live(session, tenant)) == (1, None)


@pytest.mark.parametrize(
    ("version", "percent", "code"),
    [
        (1, 10, "adapter_is_live"),
        (3, 10, "gates_failed"),
        (4, 10, "gates_failed"),
        (5, 10, "base_changed"),
        (6, 10, "canary_is_running"),
    ],
)
async def test_only_what_may_go_live_can_be_a_canary(
    database, acme, add, *, version: int, percent: int, code: str
) -> None:
    await add(1)
    for number, state in ((2, "ready"), (3, "failed_gates"), (4, "unsafe"), (6, "ready")):
        await add(number, state)
    await add(5, base_name="old-base")
    await start(database)
    with pytest.raises(Conflict) as refused:
        await start(database, version, percent)
    assert refused.value.code == code
    found = await running(database)
    assert found is not None
    assert found.revision == 2


async def test_shares_and_versions_that_are_none_are_refused(database, acme, add) -> None:
    await add(1)
    await add(2, "deleted")
    for percent in (0, 51, -1):
        with pytest.raises(Invalid):
            await start(database, 1, percent)
    for version in (2, 9):
        with pytest.raises(NotFound):
            await start(database, version)
    assert await running(database) is None


@pytest.mark.parametrize(
    ("what", "more", "told"),
    [
        (service.promote, {"version": 2}, (3, "promote", 1, 2, 2, 10)),
        (service.promote, {"version": 3}, (3, "promote", 1, 3, 2, 10)),
        (service.roll_back, {}, (3, "rollback", 1, None, 2, 10)),
    ],
)
async def test_a_change_of_what_is_live_ends_the_canary_and_tells_so(
    database, acme, add, *, what, more, told
) -> None:
    for version in (1, 2, 3):
        await add(version)
    await start(database)
    await change(database, service.promote, version=1)  # it is live: nothing changes
    assert await running(database) is not None
    await change(database, what, **more)
    assert await running(database) is None
    assert (await steps(database))[0] == told


async def test_a_canary_is_not_deleted_before_it_is_taken_back(database, acme, add) -> None:
    await add(1)
    await add(2)
    await start(database)
    async with database.transaction() as session:
        tenant = await tenants.get(session, "acme")
        with pytest.raises(Conflict) as refused:
            await service.delete(session, tenant, version=2)
    assert refused.value.code == "adapter_is_canary"
    await change(database, canary.end)
    async with database.transaction() as session:
        await service.delete(session, await tenants.get(session, "acme"), version=2)


async def test_what_a_person_rejects_answers_nobody_and_a_canarys_run_is_not_cancelled(
    database, acme
) -> None:
    job = await make_run(database, acme, state="awaiting_approval")
    await make_version(database, acme, job, version=2, state="candidate")
    await start(database)
    async with database.transaction() as session:
        with pytest.raises(Conflict) as refused:
            await states.cancel(session, acme.id, job.id)
    assert refused.value.code == "adapter_is_canary"
    async with database.transaction() as session:
        await states.decide(session, acme.id, job.id, decision="rejected", actor="person:1")
    assert await running(database) is None
    assert (await steps(database))[0] == (2, "canary_end", None, None, 2, 10)


async def test_what_the_engine_refuses_is_stopped_once_with_its_reason(database, acme, add) -> None:
    await add(1)
    await add(2)
    await start(database)
    for revision in (1, 2, 2):  # of an earlier share, of this one, and late
        async with database.transaction() as session:
            await canary.end_refused(session, acme.id, revision=revision)
    assert await running(database) is None
    async with database.reading() as session:
        (step, *_) = await service.history(session, await tenants.get(session, "acme"))
        count = await session.scalar(select(func.count()).select_from(Promotion))
    assert (step.kind, step.actor, step.reason) == ("canary_end", "engine", canary.REFUSED)
    assert count == 3


async def test_a_tenant_goes_with_its_canary(database, acme, add, make_tenant) -> None:
    await add(1)
    await add(2)
    await start(database)
    other = await make_tenant("other")
    async with database.reading() as session:
        assert await changes.running_canary(session, other) is None
        views = await tenants.views(session, [await tenants.get(session, "acme"), other])
        assert [view.canary and (view.canary.version, view.canary.percent) for view in views] == [
            (2, 10),
            None,
        ]
    async with database.transaction() as session:
        await tenants.delete(session, "acme")
    async with database.reading() as session:
        assert await session.scalar(select(func.count()).select_from(Canary)) == 0


# --- what names mean ---


async def test_the_alias_alone_is_split_and_every_key_keeps_its_version(
    database, acme, add, settings
) -> None:
    await add(1)
    await add(2)
    catalog = ModelCatalog(database, base=BASE, adapters=settings.adapters)

    async def versions_of(model: str) -> list[int | None]:
        return [(await catalog.resolve(acme.id, model, key=f"key-{n}")).version for n in range(60)]

    assert set(await versions_of("acme")) == {1}
    await start(database, percent=50)
    drawn = await versions_of("acme")
    assert drawn == await versions_of("acme")
    assert drawn == [2 if bucket(acme.id, 2, f"key-{n}") < 50 else 1 for n in range(60)]
    assert set(drawn) == {1, 2}
    assert set(await versions_of("acme@1")) == {1}
    assert set(await versions_of("acme@2")) == {2}
    assert set(await versions_of(BASE)) == {None}
    key = f"key-{drawn.index(2)}"
    tried = await catalog.resolve(acme.id, "acme", key=key)
    assert tried.arm is not None
    assert tried.fallback is not None
    assert (tried.model, tried.arm.is_canary, tried.fallback.version) == ("acme", True, 1)
    assert (await catalog.resolve(acme.id, "acme@2", key=key)).arm is None
    async with database.reading() as session:  # what else asks for the name means what is live
        found = await names.resolve(session, acme.id, "acme", base=BASE, adapters=settings.adapters)
    assert found.version == 1
    # rolled back to the base: the canary has ended, and beside the base there can be one as well
    await change(database, service.roll_back)
    assert set(await versions_of("acme")) == {None}
    await start(database, percent=50)
    assert set(await versions_of("acme")) == {None, 2}
    catalog.close()


async def test_a_split_costs_one_query_and_none_while_nothing_was_written(
    database, acme, add, settings
) -> None:
    await add(1)
    await add(2)
    await start(database, percent=50)
    catalog = ModelCatalog(database, base=BASE, adapters=settings.adapters)
    asked: list[str] = []

    def note_query(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            asked.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note_query)
    for key in ("a", "b", "c", None):
        await catalog.resolve(acme.id, "acme", key=key)
    assert len(asked) == (1 if database.is_sqlite else 4)
    catalog.close()


async def test_a_canary_that_cannot_answer_any_more_leaves_everything_to_what_is_live(
    database, acme, add, settings
) -> None:
    await add(1)
    await add(2)
    await start(database, percent=50)
    for fields in ({"base_name": "old-base"}, {"base_name": BASE, "state": "unsafe"}):
        async with database.transaction() as session:
            row = (await session.scalars(select(Adapter).where(Adapter.version == 2))).one()
            for name, value in fields.items():
                setattr(row, name, value)
        async with database.reading() as session:
            split = await names.resolve_split(
                session, acme.id, "acme", base=BASE, adapters=settings.adapters
            )
        assert (split.live.version, split.canary) == (1, None)


# --- what is counted ---


async def note(database, acme, *votes: tuple[int | None, str | None], when=None) -> None:
    """Answers of the widget: their version, and what their visitors think of them."""
    async with database.transaction() as session:
        visitor = Visitor(tenant_id=acme.id)
        session.add(visitor)
        await session.flush()
        talk = LiveConversation(
            tenant_id=acme.id, visitor_id=visitor.id, last_at=now(), message_count=len(votes)
        )
        session.add(talk)
        await session.flush()
        for seq, (version, vote) in enumerate(votes, start=1):
            session.add(
                LiveMessage(
                    tenant_id=acme.id,
                    conversation_id=talk.id,
                    seq=seq,
                    role="assistant",
                    model=f"acme@{version}" if version else BASE,
                    adapter_version=version,
                    vote=vote,
                    created_at=when or now(),
                )
            )


async def test_both_versions_are_counted_from_when_the_share_was_set(
    database, acme, add, make_tenant
) -> None:
    await add(1)
    await add(2)
    before = now()
    await start(database)
    ledger = UsageLedger(database)
    used = Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15)

    def count(times: int, arm: tuple[int, bool] | None, *, failed: bool = False) -> None:
        for _ in range(times):
            ledger.add(used, tenant_id=acme.id, key_id="", model="acme@1", failed=failed, arm=arm)

    count(90, (2, False))
    count(3, (2, True))
    await ledger.flush()
    count(7, (2, True), failed=True)
    count(5, (1, True))  # of an earlier share, written late
    count(4, None)  # asked for by its own name
    await ledger.flush()
    await note(database, acme, *[(1, "up")] * 2, *[(1, "down")] * 8, *[(2, "up")] * 9, (2, None))
    await note(database, acme, *[(2, "down")] * 9, when=before)
    other = await make_tenant("other")
    await note(database, other, *[(2, "down")] * 9)
    async with database.reading() as session:
        found = await canary.required(session, await tenants.get(session, "acme"), base=BASE)
        with pytest.raises(NotFound):
            await canary.required(session, other, base=BASE)
    assert (found.version, found.percent, found.able, found.live_revision) == (2, 10, True, 2)
    assert (found.live.requests, found.live.errors.count, found.live.prompt_tokens) == (90, 0, 900)
    assert (found.canary.requests, found.canary.errors.count) == (10, 7)
    assert (found.canary.completion_tokens, found.errors_compared) == (50, "worse")
    assert (found.live.liked.count, found.live.liked.of) == (2, 10)
    assert (found.canary.liked.count, found.canary.liked.of) == (9, 9)
    assert found.liked_compared == "better"
    # another share: everything is counted anew, and there is too little to tell
    await start(database, percent=20)
    async with database.reading() as session:
        found = await canary.required(session, await tenants.get(session, "acme"), base="new-base")
    assert (found.able, found.canary.requests, found.live.liked.of) == (False, 0, 0)
    assert (found.errors_compared, found.liked_compared) == ("too_little", "too_little")


async def test_beside_the_base_its_answers_are_counted(database, acme, add) -> None:
    await add(2)
    await start(database)
    await note(database, acme, *[(None, "up")] * 7, *[(2, "up")] * 6)
    async with database.reading() as session:
        found = await canary.required(session, await tenants.get(session, "acme"), base=BASE)
    assert (found.live.version, found.live.liked.of, found.canary.liked.of) == (None, 7, 6)
    assert found.liked_compared == "cannot_tell"
