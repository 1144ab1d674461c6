"""Replies compared with what the agent really wrote, and the trivial baseline of looking them up.

Nothing here needs torch: whoever calls hands in the function that turns texts into vectors.
"""

import random
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from connectors.conversation import ChatMessage
from training.evaluation.confidence_intervals import CONFIDENCE

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]  # texts -> (texts, dimensions), rows of length 1

# Looking up among more turns than this takes longer than the rest of an evaluation (about 600
# turns a second on two cores); a random sample of so many stands for the whole.
MAX_LOOKUP_TURNS = 5_000
BOOTSTRAP_SAMPLES = 2_000


class Conversation(Protocol):
    """What is read of a dataset's example."""

    @property
    def id(self) -> str:
        """Unique within the dataset."""

    @property
    def messages(self) -> Sequence[ChatMessage]:
        """Customer and assistant in turn, without the system message."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """A true history that ends in a customer's turn, and the reply that followed it."""

    conversation: str
    turn: int
    history: tuple[ChatMessage, ...]
    reference: str


def contexts_of(conversation: Conversation) -> list[Context]:
    """Every reply of a conversation that counts (weight 1), with the history before it."""
    messages = tuple(conversation.messages)
    return [
        Context(
            conversation=conversation.id, turn=turn, history=messages[:turn], reference=m.content
        )
        for turn, m in enumerate(messages)
        if turn and m.role == "assistant" and m.weight
    ]


def choose_contexts(
    conversations: Iterable[Conversation], count: int, *, seed: int
) -> list[Context]:
    """Choose ``count`` contexts by seed, one from each conversation before a second from any."""
    chooser = random.Random(seed)  # noqa: S311 - a sample, not a secret
    queues = [contexts_of(conversation) for conversation in conversations]
    chooser.shuffle(queues)
    for queue in queues:
        chooser.shuffle(queue)
    chosen: list[Context] = []
    while len(chosen) < count and any(queues):
        chosen += [queue.pop() for queue in queues if queue]
    return chosen[:count]


def exact_match(reply: str, reference: str) -> bool:
    """Equal when runs of white space count as one blank."""
    return reply.split() == reference.split()


def token_f1(reply: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words, as SQuAD's evaluation script defines it.

    Lower case, without punctuation and English articles; two empty texts are equal (Rajpurkar et
    al. 2016 and 2018, https://rajpurkar.github.io/SQuAD-explorer/, ``compute_f1``).
    """
    given, wanted = _squad_words(reply), _squad_words(reference)
    if not given or not wanted:
        return float(given == wanted)
    common = (Counter(given) & Counter(wanted)).total()
    return 2 * common / (len(given) + len(wanted))


def _squad_words(text: str) -> list[str]:
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def similarities(replies: Sequence[str], references: Sequence[str], *, embed: Embed) -> list[float]:
    """Cosine of meaning for each pair; an empty reply has none (0), unless that was right."""
    texts = list(dict.fromkeys([*replies, *references]))
    row = dict(zip(texts, embed(texts), strict=True))
    return [
        float(row[reply] @ row[reference]) if reply.strip() else float(not reference.strip())
        for reply, reference in zip(replies, references, strict=True)
    ]


def look_up(
    training: Iterable[Conversation], contexts: Sequence[Context], *, embed: Embed, seed: int
) -> list[str]:
    """Answer each context with the reply that followed the nearest training context.

    Nearness is the mean of two cosines: of the customers' turns, and of the assistant's turns
    just before them (a customer's "yes" says little without the question). Tried on five tenants
    beside the customer's turn alone, and word and character TF-IDF with and without the turn
    before: this was the best, or within two replies in a hundred of it, on all five (exact
    replies on bank: 48 %, against 36 % for the customer's turn alone and 43 % for TF-IDF).
    """
    candidates = [context for conversation in training for context in contexts_of(conversation)]
    if not candidates:
        return ["" for _ in contexts]
    if len(candidates) > MAX_LOOKUP_TURNS:
        chooser = random.Random(seed)  # noqa: S311 - a sample, not a secret
        candidates = chooser.sample(candidates, MAX_LOOKUP_TURNS)
    questions = [_question(context) for context in candidates]
    asked = [_question(context) for context in contexts]
    texts = list(dict.fromkeys(text for pair in questions + asked for text in pair))
    row = {text: number for number, text in enumerate(texts)}
    vectors = embed(texts)
    # One row for each context asked about, one column for each candidate.
    nearness = sum(
        vectors[[row[pair[part]] for pair in asked]]
        @ vectors[[row[pair[part]] for pair in questions]].T
        for part in (0, 1)
    )
    best = np.argmax(nearness, axis=1)
    return [candidates[int(index)].reference for index in best]


def _question(context: Context) -> tuple[str, str]:
    """The customer's turn, and the assistant's before it ("" at the start)."""
    before = context.history[-2].content if len(context.history) > 1 else ""
    return context.history[-1].content, before


def bootstrap_interval(
    differences: Sequence[float],
    *,
    seed: int,
    sizes: Sequence[float] | None = None,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of paired differences (Efron 1979).

    With ``sizes``, of the sum of differences over the sum of sizes: items are drawn whole, since
    what is within one (the tokens of a conversation) is not independent.
    """
    values = np.asarray(differences, dtype=np.float64)
    weights = np.ones_like(values) if sizes is None else np.asarray(sizes, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(
        0, len(values), size=(BOOTSTRAP_SAMPLES, len(values))
    )
    means = values[picks].sum(axis=1) / weights[picks].sum(axis=1)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)
