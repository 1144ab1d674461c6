"""What is sent: the draft, or the past reply that agrees best with the others."""

import pytest

from training.references import Reference
from training.retrieval.quoting import CANDIDATES, choose


def past(*texts: str, score: float = 0.8) -> list[Reference]:
    return [
        Reference(kind="exchange", id=f"c{number}:1", title="", text=text, score=score)
        for number, text in enumerate(texts)
    ]


REFUNDS = past(
    "A refund takes three working days.",
    "The refund takes three working days.",
    "Your refund takes three working days, sorry.",
    "Please call us.",
)


def test_the_reply_that_most_agree_with_is_sent() -> None:
    answer = choose("Refund takes days.", REFUNDS, ["where is my refund"], draft_weight=0.2)
    assert answer.text == "A refund takes three working days."
    assert answer.quoted == REFUNDS[0]


@pytest.mark.parametrize(
    ("draft", "references", "weight"),
    [
        ("Please wait.", REFUNDS, 1.0),
        ("Please wait.", [], 0.1),
        ("A refund takes three working days indeed.", past("Bread.", "Rye.", "Cake."), 0.4),
        ("", [], 1.0),
    ],
    ids=["never", "nothing found", "agrees with none", "empty"],
)
def test_the_draft_is_sent(draft: str, references: list[Reference], weight: float) -> None:
    assert choose(draft, references, ["hello"], draft_weight=weight) == (draft, None)


def test_a_draft_that_says_the_same_is_sent_as_it_was_written() -> None:
    assert choose(REFUNDS[0].text, REFUNDS, [], draft_weight=0.3).quoted is None


def test_a_fact_that_the_others_lack_costs_more_than_words_that_agree() -> None:
    replies = past(
        "We refund you within 30 days to your card.",
        "We refund you soon to your card.",
        "We refund you to your card.",
    )
    said = ["my order came late"]
    assert "30" not in choose("We refund you to your card", replies, said, draft_weight=0.1).text
    # unless the customer has said it, or most state it
    replies[0] = replies[0].__class__(
        kind="exchange", id="c0:1", title="", text=replies[0].text, score=0.95
    )
    asked = ["do you refund me within 30 days"]
    assert "30 days" in choose("We refund within 30 days", replies, asked, draft_weight=0.1).text


def test_a_product_that_the_others_lack_is_such_a_fact() -> None:
    replies = past("We have a box.", "We have a box now.")
    draft, said = "We have the Family Loaf box.", ["do you have a box"]
    sent = [
        choose(draft, replies, said, draft_weight=0.5, products=products).text
        for products in ((), ("family loaf",))
    ]
    assert sent == [draft, replies[0].text]


def test_a_near_question_counts_more_than_a_far_one() -> None:
    near, far = past("On Fridays.", score=0.95), past("Call us.", "Call us now.", score=0.7)
    assert choose("Bread", [*near, *far], [], draft_weight=0.1).text == "On Fridays."


def test_a_reply_with_a_placeholder_has_a_vote_and_is_not_sent() -> None:
    replies = past("Look there, [NAME_1].", "Look there.", "Look there, [NAME_2].")
    assert choose("Bread.", replies, [], draft_weight=0.1).text == "Look there."
    assert choose("Bread.", replies[:1], [], draft_weight=0.1).quoted is None


def test_articles_and_far_candidates_are_never_sent() -> None:
    article = Reference(kind="article", id="a@1#0", title="", text="Three days.", score=0.99)
    assert choose("Days.", [article], [], draft_weight=0.1).quoted is None
    many = past(*["Bread."] * CANDIDATES, *["A refund takes three working days."] * 50)
    assert choose("Refund takes days.", many, [], draft_weight=0.3).text != many[-1].text
