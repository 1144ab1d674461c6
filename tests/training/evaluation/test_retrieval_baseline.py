"""Replies looked up instead of written. No torch."""

from collections.abc import Sequence

import pytest

from tests.training.evaluation.samples import conversation, letters
from training.evaluation.heldout import choose_contexts
from training.evaluation.metrics import Vectors
from training.evaluation.retrieval_baseline import look_up


def test_lookup_answers_with_the_reply_to_the_nearest_question() -> None:
    training = [
        conversation("1", "refund please", "Refunded."),
        conversation("2", "my zip code", "Noted."),
    ]
    contexts = choose_contexts([conversation("t", "please a refund", "?")], 1, seed=1)
    assert look_up(training, contexts, embed=letters, seed=1) == ["Refunded."]


def test_lookup_hears_what_was_asked_before_a_short_answer() -> None:
    training = [
        conversation("1", "hi", "Your pin?", "yes", "Pin checked."),
        conversation("2", "hi", "More help?", "yes", "Of course."),
    ]
    contexts = choose_contexts([conversation("t", "hi", "Your pin?", "yes", "?")], 9, seed=1)
    asked = [c for c in contexts if c.turn == 3]
    assert look_up(training, asked, embed=letters, seed=1) == ["Pin checked."]


def test_lookup_without_training_conversations_says_nothing() -> None:
    contexts = choose_contexts([conversation("t", "hello", "hi")], 1, seed=1)
    assert look_up([], contexts, embed=letters, seed=1) == [""]


def test_lookup_among_many_turns_reads_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluation.retrieval_baseline.MAX_LOOKUP_TURNS", 10)
    read: list[str] = []

    def counting(texts: Sequence[str]) -> Vectors:
        read.extend(texts)
        return letters(texts)

    training = [conversation(str(n), f"question {n}", "answer") for n in range(100)]
    contexts = choose_contexts([conversation("t", "question", "?")], 1, seed=1)
    assert look_up(training, contexts, embed=counting, seed=1) == ["answer"]
    assert (
        len(read) <= 13
    )  # ten questions, the one asked, and the turns before them, which are empty
