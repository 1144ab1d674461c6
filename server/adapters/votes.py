"""Blind votes: two answers to a held-out question, in an order that says nothing about whose they are.

The answers are those of the version's evaluation: its own, and those of what was live then or, where
nothing was compared, of the base. Questions to which both answered the same are left out.
"""

import hashlib
from collections import Counter
from typing import Literal

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from server.db.models import Adapter, BlindVote, VoteChoice, VotedAgainst
from server.db.scope import of_tenant
from server.errors import Conflict, NotFound
from training.evaluation.confidence_intervals import share_interval
from training.results import Evaluation, ReplySample

Side = Literal["first", "second", "tie"]


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two answers to a question, whose authors are not told. ``before``: (role, text) of earlier turns."""

    question: int
    text: str
    before: tuple[tuple[str, str], ...]
    first: str
    second: str


class Ballot(msgspec.Struct, frozen=True, kw_only=True):
    """Where a person is: the next pair (None after the last), how many they have done, of how many."""

    pair: Pair | None
    done: int
    total: int


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How often each answer was preferred."""

    new: int = 0
    other: int = 0
    tie: int = 0


class QuestionVotes(msgspec.Struct, frozen=True, kw_only=True):
    """Who preferred what, of one question: ids of people."""

    text: str
    new: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    tie: tuple[str, ...] = ()


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What came of all votes about a version.

    ``share``: of the votes that chose, those for the version, with Wilson's 95 % interval; None where
    nobody has chosen. ``against``: whose the other answers are.
    """

    count: Count
    against: VotedAgainst
    share: float | None
    low: float | None
    high: float | None
    by_person: dict[str, Count]
    by_question: tuple[QuestionVotes, ...]


async def ballot(session: AsyncSession, adapter: Adapter, person_id: str) -> Ballot:
    """The next pair for a person; without questions where the version has no answers to compare."""
    questions = _questions(adapter)
    mine = of_tenant(adapter.tenant_id).select(BlindVote.question)
    done = set(
        await session.scalars(
            mine.where(BlindVote.adapter_id == adapter.id, BlindVote.person_id == person_id)
        )
    )
    left = [number for number in questions if number not in done]
    pair = _pair(adapter, person_id, left[0], questions[left[0]]) if left else None
    return Ballot(pair=pair, done=len(questions) - len(left), total=len(questions))


async def cast(
    session: AsyncSession, adapter: Adapter, person_id: str, *, question: int, side: Side
) -> BlindVote:
    """Keep what a person prefers.

    Raises:
        NotFound: there is no such question.
        Conflict: they have voted about it already, for instance in another window.
    """
    await _lock(session, adapter)
    sample = _questions(adapter).get(question)
    if sample is None:
        raise NotFound(f"There is no question {question} to vote about.")
    if await _find(session, adapter, person_id, question) is not None:
        raise Conflict("You have voted about this question already.", code="voted_already")
    choice: VoteChoice = "tie"
    if side != "tie":
        is_new = (side == "first") == _new_is_first(adapter, person_id, question)
        choice = "new" if is_new else "other"
    vote = BlindVote(
        tenant_id=adapter.tenant_id,
        adapter_id=adapter.id,
        person_id=person_id,
        question=question,
        against=_against(sample),
        choice=choice,
    )
    session.add(vote)
    await session.flush()
    return vote


async def undo(session: AsyncSession, adapter: Adapter, person_id: str) -> bool:
    """Take a person's last vote about a version back; False where there is none."""
    await _lock(session, adapter)
    query = of_tenant(adapter.tenant_id).select(BlindVote)
    query = query.where(BlindVote.adapter_id == adapter.id, BlindVote.person_id == person_id)
    last = await session.scalar(query.order_by(BlindVote.id.desc()).limit(1))
    if last is None:
        return False
    await session.delete(last)
    await session.flush()
    return True


async def tally(session: AsyncSession, adapter: Adapter) -> Tally:
    """All votes about a version."""
    query = of_tenant(adapter.tenant_id).select(BlindVote).where(BlindVote.adapter_id == adapter.id)
    votes = list(await session.scalars(query.order_by(BlindVote.id)))
    questions = _questions(adapter)
    counted = _count(votes)
    chosen = counted.new + counted.other
    share = counted.new / chosen if chosen else None
    ends = None if share is None else share_interval(share, chosen)
    people = list(dict.fromkeys(vote.person_id for vote in votes))
    against: VotedAgainst = "base"
    if any(_against(sample) == "live" for sample in questions.values()):
        against = "live"
    return Tally(
        count=counted,
        against=against,
        share=share,
        low=ends[0] if ends else None,
        high=ends[1] if ends else None,
        by_person={
            person: _count([vote for vote in votes if vote.person_id == person])
            for person in people
        },
        by_question=tuple(
            _of_question(sample, [vote for vote in votes if vote.question == number])
            for number, sample in questions.items()
            if any(vote.question == number for vote in votes)
        ),
    )


def _count(votes: list[BlindVote]) -> Count:
    found = Counter(vote.choice for vote in votes)
    return Count(new=found["new"], other=found["other"], tie=found["tie"])


def _of_question(sample: ReplySample, votes: list[BlindVote]) -> QuestionVotes:
    def of(choice: VoteChoice) -> tuple[str, ...]:
        return tuple(vote.person_id for vote in votes if vote.choice == choice)

    return QuestionVotes(text=_text(sample), new=of("new"), other=of("other"), tie=of("tie"))


def _questions(adapter: Adapter) -> dict[int, ReplySample]:
    """By their places in the report: those to which the two answers differ."""
    told = (adapter.report or {}).get("evaluation")
    if told is None:
        return {}
    samples = msgspec.convert(told, Evaluation).samples
    return {
        number: sample
        for number, sample in enumerate(samples)
        if sample.new.text.strip() != _other(sample).strip()
    }


def _against(sample: ReplySample) -> VotedAgainst:
    return "base" if sample.live is None else "live"


def _other(sample: ReplySample) -> str:
    return sample.base.text if sample.live is None else sample.live.text


def _text(sample: ReplySample) -> str:
    return sample.history[-1].content if sample.history else ""


def _pair(adapter: Adapter, person_id: str, number: int, sample: ReplySample) -> Pair:
    texts = [sample.new.text, _other(sample)]
    if not _new_is_first(adapter, person_id, number):
        texts.reverse()
    return Pair(
        question=number,
        text=_text(sample),
        before=tuple((turn.role, turn.content) for turn in sample.history[:-1]),
        first=texts[0],
        second=texts[1],
    )


def _new_is_first(adapter: Adapter, person_id: str, question: int) -> bool:
    """By chance, and the same each time that the page is loaded."""
    drawn = hashlib.sha256(f"{adapter.id} {person_id} {question}".encode()).digest()
    return drawn[0] % 2 == 0


async def _find(
    session: AsyncSession, adapter: Adapter, person_id: str, question: int
) -> BlindVote | None:
    query = of_tenant(adapter.tenant_id).select(BlindVote)
    return await session.scalar(
        query.where(
            BlindVote.adapter_id == adapter.id,
            BlindVote.person_id == person_id,
            BlindVote.question == question,
        )
    )


async def _lock(session: AsyncSession, adapter: Adapter) -> None:
    """Let votes about a version come one after the other."""
    mine = of_tenant(adapter.tenant_id).select(Adapter.id)
    await session.execute(mine.where(Adapter.id == adapter.id).with_for_update())
