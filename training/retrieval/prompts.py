"""Which references each reply of a dataset is shown: in training, and in evaluation as at serving.

They are past exchanges, the nearest first, and behind them what is near of the tenant's articles. In
training a reply is never shown its own conversation. Some references are taken from anywhere in the data
and the articles, and some replies are shown none, so that the model copies what fits, leaves what does not, and
answers without (RAFT, Zhang et al. 2024, arXiv 2403.10131).
"""

import random
from collections.abc import Sequence

from training.data.contexts import Context, contexts_of
from training.data.dataset import Example
from training.references import Reference, show
from training.retrieval.articles import ArticleIndex
from training.retrieval.index import (
    Embed,
    Exchange,
    ExchangeIndex,
    Found,
    encode,
    query_of,
    question_vectors,
    reference_of,
)

Shown = dict[str, dict[int, str]]
"""Of each conversation, for replies by their place: the customer's turn as it is shown."""

QUERIES = 1024  # searched together: their scores are 40 MB in an index of 10,000


def find_references(
    contexts: Sequence[Context],
    index: ExchangeIndex | None,
    count: int,
    *,
    embed: Embed,
    articles: ArticleIndex | None = None,
) -> list[list[Reference]]:
    """What each context is shown at serving: ``count`` exchanges at most, and behind them articles."""
    exchanges = index if count else None
    if not contexts or (exchanges is None and articles is None):
        return [[] for _ in contexts]
    pairs = [query_of(each) if exchanges is not None else (each.question, "") for each in contexts]
    queries = encode(pairs, embed)
    found: list[list[Reference]] = []
    for start in range(0, len(contexts), QUERIES):
        part = queries[start : start + QUERIES]
        past = exchanges.search(part, count) if exchanges is not None else [[] for _ in part]
        near = articles.search(question_vectors(part)) if articles is not None else [()] * len(part)
        found += [
            [*map(reference_of, hits), *pieces] for hits, pieces in zip(past, near, strict=True)
        ]
    return found


def supporting(
    index: ExchangeIndex, contexts: Sequence[Context], found: Sequence[Sequence[Reference]]
) -> list[Sequence[Reference]]:
    """What was ``found`` for each context, where the nearest supports an answer; otherwise nothing."""
    return [
        some if some and index.supports(some[0].score, is_first=not context.before) else ()
        for context, some in zip(contexts, found, strict=True)
    ]


def training_turns(
    examples: Sequence[Example],
    index: ExchangeIndex | None,
    count: int,
    *,
    unreferenced: float,
    distractors: float,
    seed: int,
    embed: Embed,
    articles: ArticleIndex | None = None,
) -> Shown:
    """What the replies of ``examples`` are shown in training.

    Args:
        examples: the training split.
        index: of these examples; None where no exchanges are shown.
        count: exchanges of a reply.
        unreferenced: the share of replies that are shown nothing.
        distractors: the share of references that are drawn from anywhere in the index, or the articles, instead.
        seed: the same seed draws the same.
        embed: encodes the questions for ``articles``, in float32, as it is at serving.
        articles: those of the tenant; None where there are none.
    """
    chooser = random.Random(f"{seed}:references")  # noqa: S311 - a sample, not a secret
    contexts = [context for example in examples for context in contexts_of(example)]
    near = find_references(contexts, None, 0, embed=embed, articles=articles)
    shown: Shown = {}
    for start in range(0, len(contexts), QUERIES):
        part = contexts[start : start + QUERIES]
        past = index.neighbours(part, count) if index is not None and count else [[] for _ in part]
        for context, hits, pieces in zip(part, past, near[start : start + QUERIES], strict=True):
            if chooser.random() < unreferenced or not (hits or pieces):
                continue
            exchanges = [
                _anywhere(index.exchanges, context, chooser)
                if index is not None and chooser.random() < distractors
                else found
                for found in hits
            ]
            shown_pieces = [
                chooser.choice(articles.pieces).reference(0.0)
                if articles is not None and chooser.random() < distractors
                else piece
                for piece in pieces
            ]
            text = show(context.question, [*map(reference_of, exchanges), *shown_pieces])
            shown.setdefault(context.conversation, {})[context.turn] = text
    return shown


def shown_turns(contexts: Sequence[Context], references: Sequence[Sequence[Reference]]) -> Shown:
    """The same form for contexts whose references are known; those without any are not in it."""
    shown: Shown = {}
    for context, found in zip(contexts, references, strict=True):
        if found:
            text = show(context.question, found)
            shown.setdefault(context.conversation, {})[context.turn] = text
    return shown


def _anywhere(exchanges: Sequence[Exchange], context: Context, chooser: random.Random) -> Found:
    """An exchange of another conversation, whatever it is about; there is one."""
    while True:
        exchange = chooser.choice(exchanges)
        if exchange.conversation != context.conversation:
            return Found(exchange, 0.0)
