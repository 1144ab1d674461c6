"""Topics: groups of conversations, their words, and the replies to each."""

from collections.abc import Sequence

import numpy as np

from connectors.conversation import ChatMessage
from training.data.dataset import Example
from training.evaluation.metrics import Vectors
from training.evaluation.topics import MIN_CONVERSATIONS, find_coverage
from training.results import Reply, ReplySample, languages_of_topics

ASKED = {
    "refund": "Where is the refund for my broken kettle?",
    "delivery": "Which day does the delivery van come?",
    "password": "How do I choose another password for my account?",
}
DIRECTIONS = {name: np.eye(8, dtype=np.float32)[i] for i, name in enumerate(ASKED)}


def embed(texts: Sequence[str]) -> Vectors:
    """A direction for each topic, and a little of each text's own."""
    rows = []
    for text in texts:
        own = np.random.default_rng(len(text)).normal(scale=0.05, size=8)
        told = [direction for name, direction in DIRECTIONS.items() if name in text.lower()]
        rows.append(sum(told, np.zeros(8)) + own)
    vectors = np.asarray(rows, dtype=np.float32)
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def conversation(name: str, *turns: str) -> Example:
    roles = ("user", "assistant")
    return Example(
        id=name,
        messages=[
            ChatMessage(role=roles[n % 2], content=text)  # type: ignore[arg-type]
            for n, text in enumerate(turns)
        ],
    )


def training(**counts: int) -> list[Example]:
    return [
        conversation(f"{name}-{n}", f"{ASKED[name]} Order {n} {'!' * n}", "I will look.")
        for name, count in counts.items()
        for n in range(count)
    ]


def sample(conversation: str, new: float) -> ReplySample:
    def reply(score: float) -> Reply:
        return Reply(text="", exact=False, token_f1=score, similarity=score)

    return ReplySample(
        conversation=conversation,
        turn=1,
        history=(),
        reference="",
        base=reply(0.0),
        new=reply(new),
        lookup=reply(0.5),
    )


def test_conversations_are_grouped_named_and_scored() -> None:
    held_out = [
        conversation("a", "Hello", "Hi!", "My refund has not come for two weeks"),
        conversation("b", "The refund is wrong by ten pounds"),
        conversation("c", "Tell me about the delivery on Monday please"),
    ]
    samples = [sample("a", 0.2), sample("b", 0.4), sample("c", 0.9)]
    found = find_coverage(
        training(refund=10, delivery=40, password=20), held_out, samples, embed=embed, seed=1
    )
    assert [topic.conversations for topic in found] == [40, 20, 10]
    assert [round(topic.share, 2) for topic in found] == [0.57, 0.29, 0.14]
    delivery, password, refund = found
    assert "delivery" in delivery.words
    assert "account" in password.words
    assert "refund" in refund.words
    assert "the" not in delivery.words + refund.words
    assert refund.example.startswith(ASKED["refund"])
    # a greeting is no question: what follows it counts
    assert (refund.replies, refund.new, refund.lookup) == (2, 0.3, 0.5)
    assert (delivery.replies, delivery.new) == (1, 0.9)
    assert (password.replies, password.new, password.lookup) == (0, None, None)


def test_a_topic_is_told_apart_by_the_language_of_the_customer() -> None:
    german = "Guten Tag, wann kommt denn meine delivery? Ich warte schon seit einer Woche darauf."
    given = [
        *training(refund=20, delivery=20, password=20),
        *(conversation(f"g{n}", f"{german} {'!' * n}", "Morgen.") for n in range(8)),
        conversation("f", "Bonjour, je voudrais savoir quand arrive ma delivery cette semaine"),
    ]
    held_out = [conversation("h", german), conversation("e", ASKED["delivery"])]
    samples = [sample("h", 0.2), sample("e", 0.6)]
    found = find_coverage(given, held_out, samples, embed=embed, seed=1)
    cells = {
        topic.words[0]: [(one.language, one.conversations, one.new) for one in topic.languages]
        for topic in found
    }
    assert cells == {
        "delivery": [("en", 20, 0.6), ("de", 8, 0.2), ("und", 1, None)],
        "broken": [("en", 20, None)],
        "account": [("en", 20, None)],
    }
    assert languages_of_topics(found) == ("en", "de", "und")
    assert languages_of_topics([found[1]]) == ()


def test_the_same_seed_finds_the_same() -> None:
    given = training(refund=20, delivery=20, password=20)
    once, again = (find_coverage(given, [], [], embed=embed, seed=7) for _ in range(2))
    assert once == again


def test_few_or_equal_conversations_are_no_topics() -> None:
    few = training(refund=MIN_CONVERSATIONS - 1)
    assert find_coverage(few, [], [], embed=embed, seed=1) == ()
    equal = [conversation(str(n), "Where is my refund, please tell me?") for n in range(50)]
    assert find_coverage(equal, [], [], embed=embed, seed=1) == ()
    silent = [conversation(str(n), "") for n in range(50)]
    assert find_coverage(silent, [], [], embed=embed, seed=1) == ()


def test_a_topic_in_a_script_without_words_has_an_example_alone() -> None:
    texts = {"refund": "12345 refund", "delivery": "67890 delivery", "password": "555 password"}
    given = [
        conversation(f"{name}{n}", f"{'?' * n} {text} [EMAIL_1]")
        for name, text in texts.items()
        for n in range(20)
    ]
    found = find_coverage(given, [], [], embed=embed, seed=1)
    assert len(found) == 3
    assert all("EMAIL" not in "".join(topic.words).upper() for topic in found)
