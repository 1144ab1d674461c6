"""A dataset's exchanges, found by nearness in meaning. Needs numpy and safetensors, no torch.

An index is one file of an adapter version (``retrieval.safetensors``), so no tenant's index holds a
row of another's::

    vectors   (exchanges, 2 x dimensions) float16: the question's unit vector, and that of the turn
              before it
    texts     bytes: the exchanges as JSON lines
    ends      (exchanges) int64: where each line ends

Searching is exact up to `EXACT_ROWS`, which is quick enough for what most tenants have
(``tests/bench/retrieval.py``). A larger index stays in its file and is searched by a graph (`training.retrieval.large`).
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from training.data.contexts import Context, contexts_of
from training.data.dataset import Example
from training.errors import ArtifactError
from training.filesystem import write_atomically
from training.references import Reference
from training.retrieval import large
from training.retrieval.large import GraphedVectors, Parts, RowsByKey, Slices

ENCODER = "all-MiniLM-L6-v2"
SUPPORTED_SHARE = 0.95
"""Of a tenant's own questions, how many the thresholds call supported."""

CALIBRATED_BY = 250
"""Questions of either sort, of a beginning and later ones: so many stand for all."""
FEWEST = 20
"""With fewer questions there is no telling what is usual."""

SORTED_AT_FIRST = 64
"""Of the exchanges, for a search. The nearest are often one conversation's, or one template: those are passed over."""

ENCODED_TEXTS = 512  # between two looks at whether to stop

Vectors = npt.NDArray[np.float32]
Stored = npt.NDArray[np.float16]
Embed = Callable[[Sequence[str]], Vectors]
"""Texts -> (texts, dimensions); each row has length 1, so a product of two is their cosine."""


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent once replied. ``before``: the assistant's turn before the question; perhaps none."""

    conversation: str
    turn: int
    question: str
    before: str
    reply: str


class Found(NamedTuple):
    """An exchange, and how near it is: the mean of two cosines, in [-1, 1]."""

    exchange: Exchange
    score: float


class Thresholds(NamedTuple):
    """The scores under which nothing here supports an answer; -1 where there is no telling.

    A question that begins a conversation has no turn before it, as every other beginning has none: half of its
    score is 1 whatever it asks. So it has a threshold of its own.
    """

    first: float = -1.0
    later: float = -1.0


class ExchangeIndex:
    """The exchanges of one dataset version.

        index = ExchangeIndex.build(dataset.read("train"), embed=embed)
        (found,) = index.search(encode([("Where is it?", "")], embed), 2)
        print(found[0].exchange.reply, found[0].score)

    Args:
        exchanges: in the order of the rows.
        vectors: (exchanges, 2 x dimensions), see the module.
        thresholds: what tells whether something here supports an answer; see `calibrate`.
        tokens: of each exchange's reply the base's token ids, each once, and those that end a turn; None
            where no words are copied.
        copy_bias: nats by which the tokens of the nearest reply are raised, see `training.evaluation.copying`.
        draft_weight: how much a written draft counts beside past replies, see `training.retrieval.quoting`; with
            1 no reply is quoted.
        products: names that are facts when replies are compared, see `training.data.products`.
    """

    def __init__(
        self,
        exchanges: Sequence[Exchange],
        vectors: Stored | GraphedVectors,
        *,
        thresholds: Thresholds = Thresholds(),  # noqa: B008 - a constant
        tokens: Sequence[Sequence[int]] | None = None,
        copy_bias: float = 0.0,
        draft_weight: float = 1.0,
        products: tuple[str, ...] = (),
    ) -> None:
        self.exchanges = exchanges
        self.copy_bias = copy_bias
        self.draft_weight = draft_weight
        self.products = products
        self.thresholds = thresholds
        self.tokens = tokens
        # float32 in memory: converting 10,000 rows for each search takes 44 ms, the product 8
        self._vectors = (
            vectors if isinstance(vectors, GraphedVectors) else vectors.astype(np.float32)
        )

    def __len__(self) -> int:
        return len(self.exchanges)

    @property
    def held_rows(self) -> int:
        """Exchanges that are in memory."""
        return 0 if isinstance(self._vectors, GraphedVectors) else len(self)

    @classmethod
    def build(
        cls,
        examples: Iterable[Example],
        *,
        embed: Embed,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        tokenize: Callable[[str], Sequence[int]] | None = None,
    ) -> "ExchangeIndex":
        """Index every reply that counts of ``examples``, and calibrate.

        Nearness is the mean of two cosines: of the customers' turns, and of the assistant's turns
        just before them (a customer's "yes" says little without the question). On five tenants this was
        compared with the customer's turn alone, and with TF-IDF of words and characters, with and
        without the turn before. It was the best, or within two replies in a hundred of the best, on
        all five (exact replies on one: 48 %, against 36 % for the customer's turn alone and 43 % for
        TF-IDF).

        Args:
            examples: the training split: what is held out must not be found.
            embed: the sentence encoder, in float32, as it is at serving.
            on_progress: called with the texts that are encoded, and all of them; may raise to stop.
            tokenize: gives the ``tokens`` of a reply.
        """
        exchanges = [
            Exchange(
                conversation=context.conversation,
                turn=context.turn,
                question=context.question,
                before=context.before,
                reply=context.reference,
            )
            for example in examples
            for context in contexts_of(example)
        ]
        pairs = [(exchange.question, exchange.before) for exchange in exchanges]
        vectors = encode(pairs, embed, on_progress=on_progress).astype(np.float16)
        tokens = [tokenize(each.reply) for each in exchanges] if tokenize is not None else None
        index = cls(exchanges, vectors, tokens=tokens)
        index.thresholds = index.calibrate()
        return index

    def search(
        self, queries: Vectors, count: int, *, excluding: Sequence[str] | None = None
    ) -> list[list[Found]]:
        """For each query the nearest exchanges, the nearest first, no reply twice.

        Args:
            queries: (queries, 2 x dimensions), as `encode` makes them.
            count: how many, at most.
            excluding: for each query a conversation whose exchanges are not looked at.
        """
        if not self.exchanges or not len(queries):
            return [[] for _ in queries]
        if isinstance(self._vectors, GraphedVectors):
            nearest = map(self._vectors.nearest, queries)
            hidden = excluding if excluding is not None else [None] * len(queries)
            return [self._distinct(*each, count) for each in zip(nearest, hidden, strict=True)]
        scores = queries @ self._vectors.T
        scores /= 2
        return [
            self._nearest(row, count, excluding[number] if excluding is not None else None)
            for number, row in enumerate(scores)
        ]

    def neighbours(self, contexts: Sequence[Context], count: int) -> list[list[Found]]:
        """For contexts that the index holds: the nearest exchanges of other conversations.

        Raises:
            KeyError: a context is not in it.
        """
        rows = [self._rows[context.conversation, context.turn] for context in contexts]
        return self.search(
            self._vectors[rows],
            count,
            excluding=[context.conversation for context in contexts],
        )

    def _distinct(
        self, ranked: Iterator[tuple[int, float]], excluded: str | None, count: int
    ) -> list[Found]:
        """What is found among products of vectors, of which the greatest come first, but for a few."""
        found: dict[str, Found] = {}
        for row, product in ranked:
            if len(found) == count:
                break
            exchange = self.exchanges[row]
            if exchange.conversation != excluded:
                found.setdefault(exchange.reply, Found(exchange, round(product / 2, 4)))
        return sorted(found.values(), key=lambda each: -each.score)

    @cached_property
    def _rows(self) -> Mapping[tuple[str, int], int] | RowsByKey:
        if isinstance(self._vectors, GraphedVectors):
            return RowsByKey(self._vectors.keys, lambda row: _place(self.exchanges[row]))
        return {_place(one): row for row, one in enumerate(self.exchanges)}

    def copied(self, references: Sequence[Reference]) -> Sequence[int]:
        """The ``tokens`` of the nearest past reply among references; none where there is none."""
        for reference in references:
            conversation, _, turn = reference.id.rpartition(":")
            if reference.kind == "exchange" and self.tokens is not None:
                return self.tokens[self._rows[conversation, int(turn)]]
        return ()

    def supports(self, score: float, *, is_first: bool) -> bool:
        """Whether the nearest exchange is as near as for most of the tenant's own questions.

        Args:
            score: of the nearest exchange.
            is_first: whether the question begins a conversation: there is no turn before it.
        """
        return score >= (self.thresholds.first if is_first else self.thresholds.later)

    def calibrate(self) -> Thresholds:
        """The scores that `SUPPORTED_SHARE` of the exchanges reach among the other conversations.

        So they are quantiles of what is normal for this tenant's own questions. Where it has too few of one
        sort, both sorts together stand for it. How often they are wrong is in ``training/LOG.md``
        (``tests/bench/support.py``).
        """
        sorts: dict[bool, list[int]] = {True: [], False: []}
        for row, exchange in enumerate(self.exchanges):
            sorts[not exchange.before].append(row)
        first, later = (self._nearest_scores(sorts[is_first]) for is_first in (True, False))
        return Thresholds(
            *(
                _usual(scores if len(scores) >= FEWEST else first + later)
                for scores in (first, later)
            )
        )

    def _nearest_scores(self, rows: Sequence[int]) -> list[float]:
        """How near the nearest exchange of another conversation is to some of these, evenly chosen."""
        some = rows[:: -(-len(rows) // CALIBRATED_BY) or 1]
        found = self.search(
            self._vectors[some], 1, excluding=[self.exchanges[row].conversation for row in some]
        )
        return [hits[0].score for hits in found if hits]

    def _nearest(self, scores: Vectors, count: int, excluded: str | None) -> list[Found]:
        found: list[Found] = []
        replies: set[str] = set()
        for row in _ranked(scores):
            exchange = self.exchanges[row]
            if exchange.conversation == excluded or exchange.reply in replies:
                continue
            replies.add(exchange.reply)
            found.append(Found(exchange, round(float(scores[row]), 4)))
            if len(found) == count:
                break
        return found

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        lines = [msgspec.json.encode(exchange) for exchange in self.exchanges]
        ends = np.cumsum([len(line) for line in lines], dtype=np.int64)
        about = {
            "encoder": ENCODER,
            "thresholds": self.thresholds,
            "copy_bias": self.copy_bias,
            "draft_weight": self.draft_weight,
            "products": self.products,
        }
        arrays = {
            "vectors": self._vectors.astype(np.float16),
            "texts": np.frombuffer(b"".join(lines), dtype=np.uint8),
            "ends": ends,
        }
        if len(self) > large.EXACT_ROWS:
            arrays |= large.graph_parts(self._vectors, map(_place, self.exchanges))
        if self.tokens is not None:
            arrays["tokens"] = np.array([one for row in self.tokens for one in row], dtype=np.int32)
            arrays["token_ends"] = np.cumsum([len(row) for row in self.tokens], dtype=np.int64)
        data = save(
            arrays,
            # one entry: the library writes several in any order
            metadata={"about": json.dumps(about)},
        )
        write_atomically(path, data)

    @classmethod
    def load(cls, path: Path) -> "ExchangeIndex":
        """Read a file that `save` wrote.

        Raises:
            ArtifactError: it is not there, or is not one.
        """
        try:
            with safe_open(path, framework="numpy") as stored:
                about = json.loads((stored.metadata() or {})["about"])
                names = stored.keys()
                parts = (
                    large.map_parts(path)
                    if "graph" in names
                    else {name: stored.get_tensor(name) for name in names}
                )
            exchanges, vectors, tokens = (_mapped if "graph" in parts else _held)(parts)
            # the first indexes had one for both sorts
            first, later = about.get("thresholds") or [about["threshold"]] * 2
            thresholds = Thresholds(float(first), float(later))
        except (
            OSError,
            SafetensorError,
            KeyError,
            TypeError,
            ValueError,
            msgspec.MsgspecError,
        ) as exc:
            raise ArtifactError(f"{path} is no index of exchanges: {exc}") from exc
        if about.get("encoder") != ENCODER:
            raise ArtifactError(f"{path} was made with another encoder than {ENCODER}")
        whole = len(exchanges) == len(vectors) == len(vectors if tokens is None else tokens)
        if not whole or vectors.dtype != np.float16:
            raise ArtifactError(f"{path} is no index of exchanges: its parts do not fit together")
        return cls(
            exchanges,
            vectors,
            thresholds=thresholds,
            tokens=tokens,
            copy_bias=float(about.get("copy_bias", 0.0)),
            draft_weight=float(about.get("draft_weight", 1.0)),
            products=tuple(about.get("products", ())),
        )


def _ranked(scores: Vectors) -> Iterator[int]:
    """The places of scores, the highest first, of equal ones the first: as a stable sort of all has them.

    No more of them are sorted than are looked at, in steps that grow.
    """
    done, count = 0, SORTED_AT_FIRST
    while count < len(scores):
        least = np.partition(scores, -count)[-count]
        places = np.flatnonzero(scores >= least)  # with all that are equal to the last of them
        yield from places[np.argsort(-scores[places], kind="stable")][done:].tolist()
        done, count = len(places), count * 8
    yield from np.argsort(-scores, kind="stable")[done:].tolist()


def _usual(scores: Sequence[float]) -> float:
    return float(np.quantile(scores, 1 - SUPPORTED_SHARE)) if len(scores) >= FEWEST else -1.0


def reference_of(found: Found) -> Reference:
    """What was found, as it stands in a prompt and in a receipt."""
    return Reference(
        kind="exchange",
        id=f"{found.exchange.conversation}:{found.exchange.turn}",
        title=found.exchange.question,
        text=found.exchange.reply,
        score=found.score,
    )


def query_of(context: Context) -> tuple[str, str]:
    """The texts by which a context is looked up: the customer's turn, and the turn before it."""
    return context.question, context.before


def question_vectors(queries: Vectors) -> Vectors:
    """(queries, dimensions): of what `encode` made, the vectors of the customers' turns."""
    return queries[:, : queries.shape[1] // 2]


def encode(
    pairs: Sequence[tuple[str, str]],
    embed: Embed,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Vectors:
    """(pairs, 2 x dimensions): the vectors of both texts, side by side. Equal texts are encoded once."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair)) or [""]
    row = {text: number for number, text in enumerate(texts)}
    parts = []
    for start in range(0, len(texts), ENCODED_TEXTS):
        parts.append(embed(texts[start : start + ENCODED_TEXTS]))
        on_progress(min(start + ENCODED_TEXTS, len(texts)), len(texts))
    vectors = np.concatenate(parts)
    sides = [[row[pair[side]] for pair in pairs] for side in (0, 1)]
    joined: Vectors = np.concatenate([vectors[side] for side in sides], axis=1)
    return joined


def _place(exchange: Exchange) -> tuple[str, int]:
    return exchange.conversation, exchange.turn


_Contents = tuple[Sequence[Exchange], Stored | GraphedVectors, Sequence[Sequence[int]] | None]


def _held(parts: Parts) -> _Contents:
    """Exchanges, vectors and tokens of a file, in memory."""
    tokens = None
    if "tokens" in parts:
        tokens = [each.tolist() for each in np.split(parts["tokens"], parts["token_ends"][:-1])]
    return _exchanges(parts["texts"].tobytes(), parts["ends"].tolist()), parts["vectors"], tokens


def _mapped(parts: Parts) -> _Contents:
    """The same, to be read from the file where they are used."""
    decoder = msgspec.json.Decoder(Exchange)
    tokens = None
    if "tokens" in parts:
        tokens = Slices(parts["tokens"], parts["token_ends"], lambda part: part.tolist())
    return (
        Slices(parts["texts"], parts["ends"], decoder.decode),
        GraphedVectors(parts["vectors"], graph=parts["graph"], keys=parts["keys"]),
        tokens,
    )


def _exchanges(texts: bytes, ends: Sequence[int]) -> list[Exchange]:
    starts = [0, *ends][: len(ends)]
    decoder = msgspec.json.Decoder(Exchange)
    return [decoder.decode(texts[start:end]) for start, end in zip(starts, ends, strict=True)]
