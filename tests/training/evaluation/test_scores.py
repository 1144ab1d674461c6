"""Means and differences of replies. No torch."""

from training.evaluation.scores import differences_of, scores_of
from training.results import Reply


def rated(*exact: bool) -> list[Reply]:
    return [Reply(text="x", exact=e, token_f1=0.5, similarity=0.25) for e in exact]


def test_scores_are_means_and_lookup_has_no_perplexity() -> None:
    found = scores_of(rated(True, False, False, True), losses=None)
    assert (found.exact, found.token_f1, found.similarity, found.replies) == (0.5, 0.5, 0.25, 4)
    assert (found.perplexity, found.nats_per_token, found.tokens) == (None, None, 0)


def test_differences_are_of_the_new_adapter_against_each_other_subject() -> None:
    replies = {
        "base": rated(False, False),
        "new": rated(True, False),
        "lookup": rated(True, True),
    }
    differences = differences_of(replies, conversations=["a", "b"], seed=1)  # type: ignore[arg-type]
    found = {(d.against, d.metric): d for d in differences}
    assert found["base", "exact"].mean == 0.5
    assert found["lookup", "exact"].mean == -0.5
    assert found["base", "token_f1"].low is found["base", "token_f1"].high is None, "of two"
    assert len(found) == 6
