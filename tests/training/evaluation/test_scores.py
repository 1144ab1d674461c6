"""Means and differences of replies. No torch."""

from training.evaluation.scores import differences_of, scores_of
from training.results import FactCount, Reply


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


def inventing(*invented: int) -> list[Reply]:
    return [
        Reply(
            text="x",
            exact=False,
            token_f1=0.5,
            similarity=0.5,
            facts=FactCount(right=0, wanted=0, invented=count),
        )
        for count in invented
    ]


def test_replies_that_invent_count_once_however_much_they_invent() -> None:
    replies = {
        "new": inventing(9, 1, 0, 0, 0, 0, 0, 0),
        "base": inventing(0, 1, 1, 1, 0, 0, 0, 0),
    }
    names = [str(number) for number in range(8)]

    def found(conversations: list[str]) -> tuple[float, float, float, int]:
        differences = differences_of(replies, conversations=conversations, seed=1)  # type: ignore[arg-type]
        (one,) = [each for each in differences if each.metric == "inventing"]
        assert one.low is not None
        assert one.high is not None
        return one.mean, one.low, one.high, one.items

    assert scores_of(replies["new"], losses=None).inventing == 0.25
    mean, low, high, items = found(names)
    assert (mean, items) == (-0.125, 8)
    assert -1 < low < -0.4
    # two of the replies are of one conversation: the same mean, and less certain
    fewer = found([*names[:-1], names[0]])
    assert (fewer[0], fewer[3]) == (-0.125, 7)
    assert fewer[1] < low < high < fewer[2]
