"""Scores of replies, the choice of contexts, and the lookup baseline. No torch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest

from connectors.conversation import ChatMessage
from training.evaluation.metrics import (
    Vectors,
    bootstrap_interval,
    choose_contexts,
    exact_match,
    look_up,
    similarities,
    token_f1,
)
from training.evaluation.scores import differences_of, scores_of
from training.results import Reply


class Spoken(NamedTuple):
    id: str
    messages: list[ChatMessage]


def spoken(name: str, *texts: str, weights: Sequence[int] = ()) -> Spoken:
    messages = [
        ChatMessage(
            role="assistant" if number % 2 else "user",
            content=text,
            weight=0 if number in weights else 1,
        )
        for number, text in enumerate(texts)
    ]
    return Spoken(name, messages)


def letters(texts: Sequence[str]) -> Vectors:
    """Turn texts into counts of letters: near enough to meaning for a test."""
    counts = np.array([[t.lower().count(chr(97 + i)) for i in range(26)] for t in texts], "f4")
    counts += 1e-6
    unit: Vectors = counts / np.linalg.norm(counts, axis=1, keepdims=True)
    return unit


def test_exact_match_forgives_white_space_and_nothing_else() -> None:
    assert exact_match(" Thank you,\n goodbye. ", "Thank you, goodbye.")
    assert not exact_match("thank you, goodbye.", "Thank you, goodbye.")


@pytest.mark.parametrize(
    ("reply", "reference", "f1"),
    [
        ("The cat sat.", "a cat sat", 1.0),
        ("cat", "dog", 0.0),
        ("one two", "one two three four", 2 / 3),
        ("yes yes yes", "yes", 0.5),
        ("", "", 1.0),
        ("", "something", 0.0),
        ("the", "a", 1.0),
    ],
)
def test_token_f1_is_squads(reply: str, reference: str, f1: float) -> None:
    assert token_f1(reply, reference) == pytest.approx(f1)
    assert token_f1(reference, reply) == pytest.approx(f1)


def test_an_empty_reply_means_nothing() -> None:
    found = similarities(["", " ", "abc"], ["abc", "", "abc"], embed=letters)
    assert found == pytest.approx([0.0, 1.0, 1.0])


def test_contexts_come_from_every_conversation_before_a_second_from_any() -> None:
    talks = [spoken(str(n), *"qaqaqaqa") for n in range(5)]
    chosen = choose_contexts(talks, 7, seed=3)
    assert sorted(c.conversation for c in chosen[:5]) == list("01234")
    assert len({(c.conversation, c.turn) for c in chosen}) == 7
    assert len({c.turn for c in chosen}) > 1


def test_the_same_seed_chooses_the_same_contexts() -> None:
    talks = [spoken(str(n), *"qaqaqa") for n in range(9)]
    assert choose_contexts(talks, 6, seed=1) == choose_contexts(talks, 6, seed=1)
    assert choose_contexts(talks, 6, seed=1) != choose_contexts(talks, 6, seed=2)


def test_a_context_is_the_true_history_before_a_reply() -> None:
    (context,) = choose_contexts(
        [spoken("x", "hello", "hi", "bye", "ciao", weights=[1])], 9, seed=1
    )
    assert [m.content for m in context.history] == ["hello", "hi", "bye"]
    assert (context.reference, context.turn) == ("ciao", 3)


def test_asking_for_more_contexts_than_there_are_gives_them_all() -> None:
    assert len(choose_contexts([spoken("x", *"qaqa")], 99, seed=1)) == 2
    assert choose_contexts([], 5, seed=1) == []


def test_lookup_answers_with_the_reply_to_the_nearest_question() -> None:
    training = [spoken("1", "refund please", "Refunded."), spoken("2", "my zip code", "Noted.")]
    contexts = choose_contexts([spoken("t", "please a refund", "?")], 1, seed=1)
    assert look_up(training, contexts, embed=letters, seed=1) == ["Refunded."]


def test_lookup_hears_what_was_asked_before_a_short_answer() -> None:
    training = [
        spoken("1", "hi", "Your pin?", "yes", "Pin checked."),
        spoken("2", "hi", "More help?", "yes", "Of course."),
    ]
    contexts = choose_contexts([spoken("t", "hi", "Your pin?", "yes", "?")], 9, seed=1)
    asked = [c for c in contexts if c.turn == 3]
    assert look_up(training, asked, embed=letters, seed=1) == ["Pin checked."]


def test_lookup_without_training_conversations_says_nothing() -> None:
    contexts = choose_contexts([spoken("t", "hello", "hi")], 1, seed=1)
    assert look_up([], contexts, embed=letters, seed=1) == [""]


def test_lookup_among_many_turns_reads_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluation.metrics.MAX_LOOKUP_TURNS", 10)
    read: list[str] = []

    def counting(texts: Sequence[str]) -> Vectors:
        read.extend(texts)
        return letters(texts)

    training = [spoken(str(n), f"question {n}", "answer") for n in range(100)]
    contexts = choose_contexts([spoken("t", "question", "?")], 1, seed=1)
    assert look_up(training, contexts, embed=counting, seed=1) == ["answer"]
    assert len(read) <= 12


def test_the_interval_of_a_small_sample_is_wide_and_always_the_same() -> None:
    few, many = [0.0, 1.0] * 4, [0.0, 1.0] * 400
    low, high = bootstrap_interval(few, seed=1)
    assert high - low > 0.5
    assert bootstrap_interval(few, seed=1) == (low, high)
    low, high = bootstrap_interval(many, seed=1)
    assert low < 0.5 < high
    assert high - low < 0.1


def judged(*exact: bool) -> list[Reply]:
    return [Reply(text="x", exact=e, token_f1=0.5, similarity=0.25) for e in exact]


def test_scores_are_means_and_lookup_has_no_perplexity() -> None:
    found = scores_of(judged(True, False, False, True), nats=None)
    assert (found.exact, found.token_f1, found.similarity, found.replies) == (0.5, 0.5, 0.25, 4)
    assert (found.perplexity, found.nats_per_token, found.tokens) == (None, None, 0)


def test_differences_are_of_the_new_adapter_against_each_other_subject() -> None:
    replies = {
        "base": judged(False, False),
        "new": judged(True, False),
        "lookup": judged(True, True),
    }
    differences = differences_of(replies, conversations=["a", "b"], seed=1)  # type: ignore[arg-type]
    found = {(d.against, d.metric): d for d in differences}
    assert found["base", "exact"].mean == 0.5
    assert found["lookup", "exact"].mean == -0.5
    assert found["base", "token_f1"].low is found["base", "token_f1"].high is None, "of two"
    assert len(found) == 6
