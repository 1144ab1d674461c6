"""How close a reply is to the one that the agent really wrote.

No torch here: the caller passes the function that turns texts into vectors.
"""

from collections import Counter
from collections.abc import Sequence

from training.data.products import facts_with_products
from training.data.words import f1_of_words, squad_words
from training.results import FactCount
from training.retrieval.index import Embed as Embed  # noqa: PLC0414 - both are for our callers too
from training.retrieval.index import Vectors as Vectors  # noqa: PLC0414


def exact_match(reply: str, reference: str) -> bool:
    """Equal when runs of white space count as one blank."""
    return reply.split() == reference.split()


def token_f1(reply: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words, as SQuAD's evaluation script defines it.

    Lower case, without punctuation and English articles; two empty texts are equal (Rajpurkar et
    al. 2016 and 2018, https://rajpurkar.github.io/SQuAD-explorer/, ``compute_f1``).
    """
    return f1_of_words(Counter(squad_words(reply)), Counter(squad_words(reference)))


def count_facts(
    reply: str, reference: str, said: Sequence[str], products: tuple[str, ...] = ()
) -> FactCount:
    """Compare the facts of a reply with those of the agent's, and of what was ``said`` before it.

    So a reply may repeat what the customer has said, but not state an amount, a date, a link or one
    of the tenant's ``products`` that nobody has.
    """
    given, wanted = (facts_with_products(text, products) for text in (reply, reference))
    known = wanted.union(*(facts_with_products(text, products) for text in said))
    return FactCount(right=len(given & wanted), wanted=len(wanted), invented=len(given - known))


def similarities(replies: Sequence[str], references: Sequence[str], *, embed: Embed) -> list[float]:
    """Cosine of meaning for each pair; an empty reply has none (0), unless that was right."""
    texts = list(dict.fromkeys([*replies, *references]))
    row = dict(zip(texts, embed(texts), strict=True))
    return [
        float(row[reply] @ row[reference]) if reply.strip() else float(not reference.strip())
        for reply, reference in zip(replies, references, strict=True)
    ]
