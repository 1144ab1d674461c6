"""What a tenant's conversations are about, and how good the replies to each topic are.

A topic with few training conversations and low scores is where more transcripts would help most.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import silhouette_score

from training.data.curation.languages import UNKNOWN, first_language
from training.data.dataset import Example
from training.evaluation.metrics import Embed, Vectors
from training.results import LanguageCoverage, ReplySample, TopicCoverage

MIN_CONVERSATIONS = 30  # below this a topic would be a handful
MAX_CONVERSATIONS = 5_000  # a sample stands for more, as in the lookup, whose vectors these are too
TOPICS = range(3, 13)  # what a person reads at a glance
SILHOUETTE_SAMPLE = 1_000
EXAMPLE_CHARACTERS = 160
MIN_OF_A_LANGUAGE = 5  # conversations; fewer are as likely to be a short message that was mistaken
_NAME_WORDS = 3
_MARKS = 1.96  # standard deviations: 95 %
_QUESTION_WORDS = 6  # fewer is a greeting, or too little to know a topic by
# letters of any script, three or more; digits and placeholders like [EMAIL_1] name no topic
_WORD = r"(?u)(?<![\[\w])[^\W\d_]{3,20}(?![\]\w])"


def find_coverage(
    training: Sequence[Example],
    held_out: Sequence[Example],
    samples: Sequence[ReplySample],
    *,
    embed: Embed,
    seed: int,
) -> tuple[TopicCoverage, ...]:
    """Group training conversations by what the customer first asks; score the replies to each group.

    k-means over the sentence encoder's vectors; the number of groups is the one of `TOPICS` with the
    highest silhouette (Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7). A held-out conversation
    belongs to the nearest centre.

    Args:
        training: conversations that were learnt from.
        held_out: those that were not.
        samples: rated replies to ``held_out``.
        embed: the sentence encoder.
        seed: of the sample and of k-means.

    Returns:
        Topics, the largest first; none where ``training`` has fewer than `MIN_CONVERSATIONS`.
    """
    asked = [(example.id, question) for example in training if (question := _question(example))]
    if len(asked) > MAX_CONVERSATIONS:
        asked = random.Random(seed).sample(asked, MAX_CONVERSATIONS)  # noqa: S311 - not a secret
    if len(asked) < MIN_CONVERSATIONS:
        return ()
    texts = [text for _, text in asked]
    found = find_topics(texts, embed(texts), seed=seed)
    if not found:
        return ()
    replies = _replies_by_topic(held_out, samples, np.stack([t.centre for t in found]), embed=embed)
    grouped = {name for name, _ in asked}
    languages = _languages([each for each in training if each.id in grouped], held_out)
    return tuple(
        TopicCoverage(
            words=topic.words,
            example=topic.example,
            share=round(len(topic.members) / len(texts), 4),
            conversations=len(topic.members),
            replies=len(rated),
            new=_mean([sample.new.token_f1 for sample in rated]),
            lookup=_mean([sample.lookup.token_f1 for sample in rated]),
            languages=_by_language(
                Counter(languages[asked[at][0]] for at in topic.members), rated, languages
            ),
        )
        for topic, rated in zip(found, replies, strict=True)
    )


class Topic(NamedTuple):
    """Texts about the same: their positions, words that mark them, and the beginning of the most typical.

    ``centre``: the mean of their vectors, (384,).
    """

    words: tuple[str, ...]
    example: str
    members: list[int]
    centre: Vectors


def find_topics(texts: Sequence[str], vectors: Vectors, *, seed: int) -> list[Topic]:
    """Group texts, the largest group first; none where all are (nearly) the same.

    Args:
        texts: what customers ask first, from `first_question`.
        vectors: the sentence encoder's, (texts, 384), of length 1.
        seed: of k-means.
    """
    found = _cluster(vectors, seed=seed)
    if found is None:
        return []
    names = _names(texts, found.labels, len(found.centres))
    topics = [
        Topic(
            names[at],
            texts[found.nearest[at]][:EXAMPLE_CHARACTERS],
            (found.labels == at).nonzero()[0].tolist(),
            found.centres[at],
        )
        for at in range(len(found.centres))
    ]
    return sorted(topics, key=lambda topic: -len(topic.members))


class _Clusters(NamedTuple):
    """``labels[i]``: the topic of text i. ``nearest[t]``: the text that is nearest to centre t."""

    labels: npt.NDArray[np.int32]
    centres: Vectors
    nearest: list[int]


def _cluster(vectors: Vectors, *, seed: int) -> _Clusters | None:
    """None where all texts are (nearly) the same."""
    distinct = len(np.unique(vectors.round(3), axis=0))
    best: tuple[float, KMeans] | None = None
    for count in TOPICS:
        if count >= distinct:
            break
        model = KMeans(count, n_init=1, random_state=seed).fit(vectors)
        score = silhouette_score(
            vectors,
            model.labels_,
            sample_size=min(len(vectors), SILHOUETTE_SAMPLE),
            random_state=seed,
        )
        if best is None or score > best[0]:
            best = score, model
    if best is None:
        return None
    centres = best[1].cluster_centers_.astype(np.float32)
    nearest = np.argmax(vectors @ centres.T, axis=0).tolist()
    return _Clusters(best[1].labels_, centres, nearest)


def _names(
    texts: Sequence[str], labels: npt.NDArray[np.int32], count: int
) -> list[tuple[str, ...]]:
    """The words that mark each topic most, at most three; none where no word does.

    By the log-odds ratio of a topic's texts against the others, with all texts as prior, in standard
    deviations ("Fightin' Words", Monroe et al. 2008, doi:10.1093/pan/mpn018, equations 15 to 22):
    common words cancel without a list of them, in any language.
    """
    vectorizer = CountVectorizer(token_pattern=_WORD, binary=True)
    try:
        counts = vectorizer.fit_transform(texts)
    except ValueError:  # not one word
        return [()] * count
    words = vectorizer.get_feature_names_out()
    everywhere = np.asarray(counts.sum(axis=0)).ravel().astype(float)
    prior, total = everywhere + 0.01, everywhere.sum()
    named = []
    for topic in range(count):
        here = np.asarray(counts[labels == topic].sum(axis=0)).ravel().astype(float)
        elsewhere = everywhere - here
        odds = _log_odds(here, prior, total) - _log_odds(elsewhere, prior, total)
        deviations = odds / np.sqrt(1 / (here + prior) + 1 / (elsewhere + prior))
        ranked = np.argsort(-deviations, kind="stable")[:_NAME_WORDS]
        named.append(tuple(str(words[i]) for i in ranked if deviations[i] > _MARKS))
    return named


def _log_odds(
    counts: npt.NDArray[np.float64], prior: npt.NDArray[np.float64], total: float
) -> npt.NDArray[np.float64]:
    all_here = counts.sum() + total
    odds: npt.NDArray[np.float64] = np.log(counts + prior) - np.log(all_here - counts - prior + 1)
    return odds


def _replies_by_topic(
    held_out: Sequence[Example],
    samples: Sequence[ReplySample],
    centres: Vectors,
    *,
    embed: Embed,
) -> list[list[ReplySample]]:
    found: list[list[ReplySample]] = [[] for _ in centres]
    asked = [(example.id, question) for example in held_out if (question := _question(example))]
    if not asked:
        return found
    vectors = embed([text for _, text in asked])
    distances = ((vectors[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2)
    topics = dict(zip((name for name, _ in asked), distances.argmin(axis=1).tolist(), strict=True))
    for sample in samples:
        if sample.conversation in topics:
            found[topics[sample.conversation]].append(sample)
    return found


def _languages(training: Sequence[Example], held_out: Sequence[Example]) -> dict[str, str]:
    """Each conversation's language by its id; ``und`` for what fewer than `MIN_OF_A_LANGUAGE` are in."""
    found = {each.id: _language(each) for each in (*training, *held_out)}
    counts = Counter(found.values())
    return {
        name: language if counts[language] >= MIN_OF_A_LANGUAGE else UNKNOWN
        for name, language in found.items()
    }


def _language(example: Example) -> str:
    asked = (message.content for message in example.messages if message.role == "user")
    return first_language(asked, (message.content for message in example.messages))


def _by_language(
    spoken: Counter[str], replies: Sequence[ReplySample], languages: Mapping[str, str]
) -> tuple[LanguageCoverage, ...]:
    by_language: dict[str, list[ReplySample]] = defaultdict(list)
    for sample in replies:
        by_language[languages[sample.conversation]].append(sample)
    order = sorted(spoken.keys() | by_language.keys(), key=lambda code: (-spoken[code], code))
    return tuple(
        LanguageCoverage(
            language=code,
            conversations=spoken[code],
            replies=len(by_language[code]),
            new=_mean([sample.new.token_f1 for sample in by_language[code]]),
            lookup=_mean([sample.lookup.token_f1 for sample in by_language[code]]),
        )
        for code in order
    )


def _question(example: Example) -> str:
    return first_question(message.content for message in example.messages if message.role == "user")


def first_question(said: Iterable[str]) -> str:
    """What the customer says first; after a mere greeting, what follows it too."""
    question = ""
    for text in said:
        question = f"{question} {text.strip()}".strip()
        if len(question.split()) >= _QUESTION_WORDS:
            break
    return question


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
