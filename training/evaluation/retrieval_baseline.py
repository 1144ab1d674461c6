"""The baseline without a model: answer with the reply that followed the nearest training question.

A model that does not beat it has learned nothing that a search could not do.
"""

import random
from collections.abc import Sequence

from training.data.contexts import Context
from training.data.dataset import Example
from training.retrieval.index import Embed, ExchangeIndex
from training.retrieval.prompts import find_references

# Encoding more turns than this takes longer than the rest of an evaluation (some 20 CPU seconds a
# thousand). Conversations are drawn at random until they have so many turns.
MAX_LOOKUP_TURNS = 5_000


def look_up(
    training: Sequence[Example], contexts: Sequence[Context], *, embed: Embed, seed: int
) -> list[str]:
    """Answer each context with the reply that followed the nearest training context.

    "" where there is none. What is nearest, `ExchangeIndex` says.
    """
    chosen: list[Example] = []
    turns = 0
    chooser = random.Random(seed)  # noqa: S311 - a sample, not a secret
    for example in chooser.sample(training, len(training)):
        turns += len(example.messages) // 2
        if chosen and turns > MAX_LOOKUP_TURNS:
            break
        chosen.append(example)
    index = ExchangeIndex.build(chosen, embed=embed)
    found = find_references(contexts, index, 1, embed=embed)
    return [hits[0].text if hits else "" for hits in found]
