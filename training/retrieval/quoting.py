"""Which text answers: what the adapter wrote, or a reply that an agent once gave to the like.

The adapter knows how this tenant talks and what an answer here is about; an agent's own reply has the policy,
with no made-up amount in it. So what the adapter writes is a draft, one vote among the replies to the nearest
past questions, and what most of them agree with is sent: minimum Bayes risk (Kumar & Byrne 2004; Eikema
& Aziz 2022, arXiv 2108.04718) with token F1 as the gain, under the distribution

    q(text) = w [text = draft] + (1 - w) softmax(score of its question / TEMPERATURE)

A reply with a placeholder of redaction has a vote too, but is never sent. A fact that few of the others state
costs `INVENTED_COST`. ``w`` says how far the adapter is to be trusted beside
its agents' replies; it is settled on the validation split (`training.evaluation.draft_weight`). What this is
worth is in ``training/LOG.md``. No torch or numpy here.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from connectors.redaction.placeholders import PLACEHOLDER
from training.data.facts import Fact
from training.data.products import facts_with_products
from training.data.words import f1_of_words, squad_words
from training.references import Reference

CANDIDATES = 8
"""Past replies that are compared; 4 to 16 were alike."""
TEMPERATURE = 0.03
"""Of nearness scores, which differ by some hundredths among the nearest. Templates want it low, other replies high."""
INVENTED_COST = 0.2
"""Token F1 that a fact costs which no other text states."""


class Answer(NamedTuple):
    """What is sent. ``quoted``: the past exchange whose reply it is; None where it is the draft."""

    text: str
    quoted: Reference | None = None


class _Text(NamedTuple):
    words: Counter[str]
    facts: frozenset[Fact]


def choose(
    draft: str,
    references: Sequence[Reference],
    said: Sequence[str],
    *,
    draft_weight: float,
    products: tuple[str, ...] = (),
) -> Answer:
    """The draft, or the past reply that agrees best with the others.

    Args:
        draft: what the adapter wrote.
        references: past exchanges, the nearest first; those beyond `CANDIDATES` are not looked at.
        said: the texts of the conversation so far, whose facts are nobody's invention.
        draft_weight: w above, in [0, 1]. With 1 the draft is always sent.
        products: names that are facts too (`training.data.products`).
    """
    exchanges = [each for each in references if each.kind == "exchange"][:CANDIDATES]
    if not exchanges:
        return Answer(draft)
    nearest = exchanges[0].score
    shares = [math.exp((each.score - nearest) / TEMPERATURE) for each in exchanges]
    others = (1 - draft_weight) / sum(shares)
    weights = [draft_weight, *(others * share for share in shares)]
    known = frozenset[Fact]().union(*(facts_with_products(text, products) for text in said))
    texts = [
        _Text(Counter(squad_words(text)), facts_with_products(text, products) - known)
        for text in (draft, *(each.text for each in exchanges))
    ]
    gains = [
        sum(
            weight
            * (f1_of_words(one.words, other.words) - INVENTED_COST * len(one.facts - other.facts))
            for weight, other in zip(weights, texts, strict=True)
        )
        for one in texts
    ]
    best = max(
        (
            number
            for number in range(len(gains))
            if not number or _is_sendable(exchanges[number - 1])
        ),
        key=gains.__getitem__,
    )
    return Answer(exchanges[best - 1].text, exchanges[best - 1]) if best else Answer(draft)


def _is_sendable(exchange: Reference) -> bool:
    """Whether a reply says to nobody in particular what it says."""
    return PLACEHOLDER.search(exchange.text) is None
