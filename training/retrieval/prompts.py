"""Which references each reply of a dataset is shown: in training, and in evaluation as at serving.

In training a reply is never shown its own conversation. Some references are taken from anywhere in the
data, and some replies are shown none, so that the model copies what fits, leaves what does not, and
answers without (RAFT, Zhang et al. 2024, arXiv 2403.10131).
"""

import random
from collections.abc import Sequence

from training.data.contexts import Context, contexts_of
from training.data.dataset import Example
from training.references import Reference, show
from training.retrieval.index import Embed, ExchangeIndex, Found, encode, query_of, reference_of

Shown = dict[str, dict[int, str]]
"""Of each conversation, for replies by their place: the customer's turn as it is shown."""

QUERIES = 1024  # searched together: their scores are 40 MB in an index of 10,000


def find_references(
    contexts: Sequence[Context], index: ExchangeIndex, count: int, *, embed: Embed
) -> list[list[Reference]]:
    """What each context is shown at serving: the nearest first, ``count`` at most."""
    if not contexts or not count:
        return [[] for _ in contexts]
    queries = encode([query_of(context) for context in contexts], embed)
    return [
        [reference_of(found) for found in hits]
        for start in range(0, len(contexts), QUERIES)
        for hits in index.search(queries[start : start + QUERIES], count)
    ]


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
    index: ExchangeIndex,
    count: int,
    *,
    unreferenced: float,
    distractors: float,
    seed: int,
) -> Shown:
    """What the replies of ``examples``, of which ``index`` is, are shown in training.

    Args:
        examples: the training split.
        index: of these examples.
        count: references of a reply.
        unreferenced: the share of replies that are shown nothing.
        distractors: the share of references that are drawn from anywhere in the index instead.
        seed: the same seed draws the same.
    """
    chooser = random.Random(f"{seed}:references")  # noqa: S311 - a sample, not a secret
    contexts = [context for example in examples for context in contexts_of(example)]
    shown: Shown = {}
    for start in range(0, len(contexts), QUERIES):
        part = contexts[start : start + QUERIES]
        for context, hits in zip(part, index.neighbours(part, count), strict=True):
            if chooser.random() < unreferenced or not hits:
                continue
            kept = [
                _anywhere(index, context, chooser) if chooser.random() < distractors else found
                for found in hits
            ]
            text = show(context.question, [reference_of(found) for found in kept])
            shown.setdefault(context.conversation, {})[context.turn] = text
    return shown


def shown_turns(contexts: Sequence[Context], references: Sequence[Sequence[Reference]]) -> Shown:
    """The same form for contexts whose references are known."""
    shown: Shown = {}
    for context, found in zip(contexts, references, strict=True):
        text = show(context.question, found)
        shown.setdefault(context.conversation, {})[context.turn] = text
    return shown


def _anywhere(index: ExchangeIndex, context: Context, chooser: random.Random) -> Found:
    """An exchange of another conversation, whatever it is about; there is one."""
    while True:
        exchange = chooser.choice(index.exchanges)
        if exchange.conversation != context.conversation:
            return Found(exchange, 0.0)
