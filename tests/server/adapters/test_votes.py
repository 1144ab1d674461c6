"""Blind votes: once for each person and question, whose order says nothing; on both databases."""

import pytest

from server.adapters import votes
from server.db.models import Adapter, Person, Tenant
from server.errors import Conflict, NotFound
from tests.server.adapters.fake_reports import make_report
from tests.server.jobs.fake_runs import make_run, make_version


@pytest.fixture
async def tenant(make_tenant) -> Tenant:
    made: Tenant = await make_tenant("acme")
    return made


@pytest.fixture
async def adapter(database, tenant) -> Adapter:
    """A version that was compared with a live one over eight questions; to one both say the same."""
    run = await make_run(database, tenant, state="succeeded")
    return await make_version(database, tenant, run, version=1, report=make_report())


@pytest.fixture
async def people(database) -> list[str]:
    async with database.transaction() as session:
        rows = [Person(email=f"{name}@example.com") for name in ("ana", "ben")]
        session.add_all(rows)
        await session.flush()
        return [row.id for row in rows]


async def vote(database, adapter: Adapter, person: str, wanted: str) -> int:
    """Vote about the next pair, for the version ("new"), the other or neither; returns the question."""
    async with database.transaction() as session:
        pair = (await votes.ballot(session, adapter, person)).pair
        assert pair is not None
        is_first = votes._new_is_first(adapter, person, pair.question)
        side: votes.Side = "tie"
        if wanted != "tie":
            side = "first" if (wanted == "new") == is_first else "second"
        cast = await votes.cast(session, adapter, person, question=pair.question, side=side)
        assert cast.choice == wanted
        return pair.question


async def test_each_person_gets_each_question_once_but_those_without_a_difference(
    database, adapter, people
) -> None:
    seen = [await vote(database, adapter, people[0], "new") for _ in range(7)]
    assert seen == [0, 1, 2, 4, 5, 6, 7]  # to number 3 both answered the same
    async with database.reading() as session:
        mine = await votes.ballot(session, adapter, people[0])
        assert (mine.pair, mine.done, mine.total) == (None, 7, 7)
        theirs = await votes.ballot(session, adapter, people[1])
        assert theirs.pair is not None
        assert (theirs.pair.question, theirs.done) == (0, 0)


async def test_a_pair_holds_both_answers_in_an_order_that_stays_and_differs(
    database, adapter, people
) -> None:
    sample = adapter.report["evaluation"]["samples"][0]
    async with database.reading() as session:
        pairs = [(await votes.ballot(session, adapter, people[0])).pair for _ in range(3)]
    assert pairs[0] == pairs[1] == pairs[2]
    pair = pairs[0]
    assert pair is not None
    assert pair.text == "Do you ship to Switzerland?"
    assert {pair.first, pair.second} == {sample["new"]["text"], sample["live"]["text"]}
    drawn = [votes._new_is_first(adapter, f"{n:032x}", n % 7) for n in range(400)]
    assert 150 < sum(drawn) < 250


async def test_the_last_vote_is_taken_back_and_asked_again(database, adapter, people) -> None:
    await vote(database, adapter, people[0], "new")
    second = await vote(database, adapter, people[0], "other")
    await vote(database, adapter, people[1], "tie")
    async with database.transaction() as session:
        assert await votes.undo(session, adapter, people[0])
        pair = (await votes.ballot(session, adapter, people[0])).pair
        assert pair is not None
        assert pair.question == second
        assert (await votes.ballot(session, adapter, people[1])).done == 1
        assert await votes.undo(session, adapter, people[0])
        assert not await votes.undo(session, adapter, people[0])


async def test_a_second_vote_about_a_question_is_refused(database, adapter, people) -> None:
    question = await vote(database, adapter, people[0], "new")
    async with database.transaction() as session:
        with pytest.raises(Conflict):
            await votes.cast(session, adapter, people[0], question=question, side="tie")
        for number in (3, 8, 1 << 40):
            with pytest.raises(NotFound):
                await votes.cast(session, adapter, people[0], question=number, side="tie")


async def test_the_tally_says_what_was_preferred_by_whom_and_how_sure_that_is(
    database, adapter, people
) -> None:
    for wanted in ("new", "new", "other", "tie", "new", "new", "new"):
        await vote(database, adapter, people[0], wanted)
    for wanted in ("new", "tie"):
        await vote(database, adapter, people[1], wanted)
    async with database.reading() as session:
        found = await votes.tally(session, adapter)
    assert found.count == votes.Count(new=6, other=1, tie=2)
    assert found.against == "live"
    assert found.share == pytest.approx(6 / 7)
    # Wilson's interval of 6 in 7
    assert (found.low, found.high) == pytest.approx((0.4869, 0.9743), abs=1e-3)
    assert found.by_person == {
        people[0]: votes.Count(new=5, other=1, tie=1),
        people[1]: votes.Count(new=1, tie=1),
    }
    first, second = found.by_question[:2]
    assert (first.new, first.other, first.tie) == ((people[0], people[1]), (), ())
    assert (second.new, second.tie) == ((people[0],), (people[1],))
    assert len(found.by_question) == 7


async def test_a_version_that_was_not_compared_with_a_live_one_stands_against_the_base(
    database, tenant, people
) -> None:
    run = await make_run(database, tenant, state="succeeded")
    report = make_report(live=False, questions=2)
    adapter = await make_version(database, tenant, run, version=1, report=report)
    await vote(database, adapter, people[0], "tie")
    async with database.reading() as session:
        found = await votes.tally(session, adapter)
    assert found.against == "base"
    assert (found.share, found.low, found.high) == (None, None, None)


async def test_a_version_without_answers_has_no_ballot(database, tenant, people) -> None:
    for version, report in ((1, None), (2, {"seconds": 1}), (3, make_report(questions=0))):
        run = await make_run(database, tenant, state="succeeded")
        adapter = await make_version(database, tenant, run, version=version, report=report)
        async with database.reading() as session:
            found = await votes.ballot(session, adapter, people[0])
            assert (found.pair, found.total) == (None, 0)
            assert (await votes.tally(session, adapter)).by_person == {}
