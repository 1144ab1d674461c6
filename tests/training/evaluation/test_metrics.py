"""How close a reply is to the reference. No torch."""

import pytest

from tests.training.evaluation.samples import letters
from training.evaluation.metrics import count_facts, exact_match, similarities, token_f1


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


def test_facts_are_right_wanted_or_invented() -> None:
    found = count_facts(
        "It costs 16 GBP from Monday, and 3 GBP for delivery to 12 people.",
        "It costs £16. We are here until 9 am.",
        ["We are 12 people."],
    )
    assert (found.right, found.wanted) == (1, 2)
    assert found.invented == 2  # Monday and 3 GBP; the customer has said 12


def test_a_reply_without_facts_invents_none() -> None:
    found = count_facts("Of course, friend.", "Of course.", ["Can I pay 5 EUR?"])
    assert (found.right, found.wanted, found.invented) == (0, 0, 0)


def test_a_product_that_nobody_has_named_is_invented() -> None:
    boxes = ("family loaf", "full hearth", "little loaf")
    found = count_facts(
        "Take the Family Loaf, the Full Hearth or a little loaf.",
        "I would take the Family Loaf.",
        ["Is the Little Loaf enough?"],
        boxes,
    )
    assert (found.right, found.wanted, found.invented) == (1, 1, 1)
