"""Replies to one question whose facts differ: a price that has changed, hours that two agents know differently.

Facts are compared by kind and unit: 14 days against 30 days, not against 5 EUR. What differs from
conversation to conversation (an order's price, a driver's minutes) is no contradiction: it shows as
many values with few replies each.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from connectors.conversation import Conversation, Role
from training.data.deduplication import SAME_SPLIT, candidates, jaccard, normalise, shingles
from training.data.facts import Fact, FactKind, facts_of

Vectors = npt.NDArray[np.float32]

SAME_QUESTION = 0.80
"""Cosine of the sentence encoder's vectors. all-MiniLM-L6-v2 gives paraphrases of a support question
0.8 and more, and other questions on the same topic 0.4 to 0.7."""

_KINDS: frozenset[FactKind] = frozenset(
    {"amount", "quantity", "date", "time", "weekday", "phone", "link", "email"}
)
_MIN_QUESTION = 5  # words; fewer is "That is correct.", or too little to know a question by
_REPLIES_A_VALUE = 3  # on average, from the third value on
_BLOCK = 512  # rows of the matrix of cosines at a time


class Exchange(NamedTuple):
    """A customer's question and the reply to it. ``at``: when, as the source wrote it; may be empty.

    ``facts``: those of the reply that can be compared, and that the customer did not bring up.
    """

    conversation: int
    turn: int
    question: str
    reply: str
    at: str
    facts: frozenset[Fact]


class Statement(NamedTuple):
    """What some replies say: equal facts. ``newest`` is the last of the ``exchanges``."""

    facts: tuple[Fact, ...]
    exchanges: tuple[Exchange, ...]

    @property
    def newest(self) -> Exchange:
        """The last reply that says it."""
        return self.exchanges[-1]


class Contradiction(NamedTuple):
    """Replies to one question that differ in facts of one kind and unit.

    ``statements``: what was said last comes first.
    """

    question: str
    kind: FactKind
    unit: str
    statements: tuple[Statement, ...]


def exchanges_of(conversations: Sequence[Conversation]) -> list[Exchange]:
    """Each customer's message of five words or more, with the agent's message behind it."""
    found = []
    for at, conversation in enumerate(conversations):
        question = ""
        for place, turn in enumerate(conversation.turns):
            if turn.role is Role.CUSTOMER:
                question = f"{question}\n{turn.text}".strip()
            elif turn.role is Role.AGENT:
                if len(question.split()) >= _MIN_QUESTION:
                    facts = _own_facts(question, turn.text)
                    found.append(
                        Exchange(at, place, question, turn.text, turn.sent_at or "", facts)
                    )
                question = ""
    return found


def find_contradictions(
    exchanges: Sequence[Exchange], vectors: Mapping[int, Vectors] = MappingProxyType({})
) -> list[Contradiction]:
    """Group replies by question, compare their facts; the contradiction with the newest reply first.

    Questions are the same where their wording nearly is (Jaccard of 4-grams, 0.70), and where their
    vectors are as near as ``SAME_QUESTION``.

    Args:
        exchanges: From `exchanges_of`, oldest first where they have no times.
        vectors: The sentence encoder's, of length 1, by the position in ``exchanges``; of as many as
            there are, whose reply has facts.
    """
    stated = [at for at, exchange in enumerate(exchanges) if exchange.facts]
    questions = [normalise(exchanges[at].question) for at in stated]
    embedded = [place for place, at in enumerate(stated) if at in vectors]
    pairs = _near(embedded, [vectors[stated[place]] for place in embedded])
    found: list[Contradiction] = []
    for group in _groups(questions, pairs):
        found += _differences([exchanges[stated[place]] for place in group])
    return sorted(found, key=lambda one: _age(one.statements[0].newest), reverse=True)


def _own_facts(question: str, reply: str) -> frozenset[Fact]:
    facts = frozenset(fact for fact in facts_of(reply) if fact.kind in _KINDS)
    return facts - facts_of(question) if facts else facts


def _age(exchange: Exchange) -> tuple[str, int, int]:
    return exchange.at, exchange.conversation, exchange.turn


def _groups(questions: Sequence[str], pairs: Iterator[tuple[int, int]]) -> list[list[int]]:
    from scipy.cluster.hierarchy import DisjointSet  # noqa: PLC0415 - 1 s

    groups = DisjointSet(range(len(questions)))
    for i, j in chain(_alike(questions), pairs):
        groups.merge(i, j)
    return [sorted(group) for group in groups.subsets() if len(group) > 1]


def _near(places: Sequence[int], rows: Sequence[Vectors]) -> Iterator[tuple[int, int]]:
    if not rows:
        return
    vectors = np.stack(rows)
    for start in range(0, len(vectors), _BLOCK):
        cosines = vectors[start : start + _BLOCK] @ vectors.T
        for row, column in zip(*(cosines >= SAME_QUESTION).nonzero(), strict=True):
            if column < start + row:
                yield places[start + row], places[column]


def _alike(questions: Sequence[str]) -> Iterator[tuple[int, int]]:
    texts = [shingles(question) for question in questions]
    for i, j in candidates(texts):
        if jaccard(texts[i], texts[j]) >= SAME_SPLIT:
            yield i, j


def _differences(group: Sequence[Exchange]) -> Iterator[Contradiction]:
    by_key: dict[tuple[FactKind, str], dict[tuple[Fact, ...], list[Exchange]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for exchange in group:
        keys = {(fact.kind, fact.unit) for fact in exchange.facts}
        for kind, unit in keys:
            said = tuple(
                sorted(fact for fact in exchange.facts if (fact.kind, fact.unit) == (kind, unit))
            )
            by_key[kind, unit][said].append(exchange)
    for (kind, unit), said_by in sorted(by_key.items()):
        replies = sum(map(len, said_by.values()))
        if len(said_by) < 2 or (len(said_by) > 2 and len(said_by) * _REPLIES_A_VALUE > replies):  # noqa: PLR2004
            continue
        if len({exchange.conversation for those in said_by.values() for exchange in those}) < 2:  # noqa: PLR2004
            continue
        if not _disjoint(said_by):
            continue
        statements = [
            Statement(facts, tuple(sorted(those, key=_age))) for facts, those in said_by.items()
        ]
        statements.sort(key=lambda one: _age(one.newest), reverse=True)
        asked = Counter(one.question for those in said_by.values() for one in those)
        yield Contradiction(asked.most_common(1)[0][0], kind, unit, tuple(statements))


def _disjoint(said_by: dict[tuple[Fact, ...], list[Exchange]]) -> bool:
    """Whether two replies share no fact of the kind: "3 to 5 days" and "5 days" may both be right."""
    sets = [set(facts) for facts in said_by]
    return any(a.isdisjoint(b) for at, a in enumerate(sets) for b in sets[:at])
