import numpy as np

from connectors.conversation import Conversation, Role, Turn
from training.data.curation.contradictions import (
    Contradiction,
    exchanges_of,
    find_contradictions,
)
from training.data.curation.duplicates import near_duplicates


def conversation(number: int, question: str, reply: str) -> Conversation:
    turns = (
        Turn(Role.CUSTOMER, question),
        Turn(Role.AGENT, reply, sent_at=f"2026-01-{number:02}"),
    )
    return Conversation(f"c{number}", turns)


def values(one: Contradiction) -> list[list[str]]:
    return [[str(fact) for fact in statement.facts] for statement in one.statements]


ASKED = "How long do I have to send my order back to you?"
OLD = [conversation(n, ASKED, "You have 14 days.") for n in range(1, 4)]
NEW = [conversation(n, ASKED + " Thanks", "You have 30 days, please.") for n in range(4, 6)]


def test_replies_whose_facts_differ_are_found_and_the_newest_comes_first() -> None:
    (found,) = find_contradictions(exchanges_of([*OLD, *NEW]))
    assert (found.question, found.kind, found.unit) == (ASKED, "quantity", "day")
    assert values(found) == [["30 day"], ["14 day"]]
    assert [len(statement.exchanges) for statement in found.statements] == [2, 3]
    assert found.statements[0].newest.conversation == 4


def test_the_order_of_contradictions_is_by_their_newest_reply() -> None:
    hours = [
        conversation(6, "When do you open on Sunday mornings please?", "At 9am."),
        conversation(7, "When do you open on Sunday mornings please", "At 10:00."),
    ]
    found = find_contradictions(exchanges_of([*OLD, *NEW, *hours]))
    assert [one.kind for one in found] == ["time", "quantity"]


def test_the_same_fact_in_another_notation_is_no_contradiction() -> None:
    one = conversation(1, ASKED, "It costs 1.000,00 EUR.")
    other = conversation(2, ASKED, "It costs €1,000.00")
    assert find_contradictions(exchanges_of([one, other])) == []


def test_facts_that_overlap_may_both_be_right() -> None:
    one = conversation(1, ASKED, "3 to 5 days")
    other = conversation(2, ASKED, "5 days")
    assert find_contradictions(exchanges_of([one, other])) == []


def test_what_differs_with_every_customer_is_no_contradiction() -> None:
    rides = [conversation(n, ASKED, f"In {n} minutes.") for n in range(1, 20)]
    assert find_contradictions(exchanges_of(rides)) == []


def test_what_the_customer_brings_up_is_not_the_replys_fact() -> None:
    one = conversation(1, f"{ASKED} Is it 14 days?", "Yes, 14 days.")
    other = conversation(2, f"{ASKED} Is it 14 days?", "No, 30 days.")
    assert find_contradictions(exchanges_of([one, other])) == []


def test_with_vectors_questions_in_other_words_are_one_question() -> None:
    one = conversation(1, "How long may I return it?", "14 days")
    other = conversation(2, "What is your period for sending things back?", "30 days")
    third = conversation(3, "What does express delivery cost?", "30 days")
    exchanges = exchanges_of([one, other, third])
    vectors = np.array([[1, 0], [0.9, np.sqrt(0.19)], [0, 1]], dtype=np.float32)
    assert find_contradictions(exchanges) == []
    (found,) = find_contradictions(exchanges, dict(enumerate(vectors)))
    assert values(found) == [["30 day"], ["14 day"]]
    # of a question that was not embedded, the wording alone is compared
    assert find_contradictions(exchanges, {0: vectors[0], 2: vectors[2]}) == []
    (found,) = find_contradictions(exchanges_of([*OLD, *NEW]), {0: vectors[0]})
    assert values(found) == [["30 day"], ["14 day"]]


def test_a_short_question_and_a_bots_reply_are_no_exchange() -> None:
    turns = (
        Turn(Role.CUSTOMER, "Hi"),
        Turn(Role.AGENT, "Hello"),
        Turn(Role.CUSTOMER, "I would like"),
        Turn(Role.CUSTOMER, "to send it back"),
        Turn(Role.NOTE, "a note"),
        Turn(Role.AGENT, "Sure"),
        Turn(Role.AGENT, "14 days"),
    )
    (one,) = exchanges_of([Conversation("c", turns)])
    assert (one.question, one.reply, one.turn) == ("I would like\nto send it back", "Sure", 5)


def test_near_duplicates_are_grouped_and_the_largest_group_comes_first() -> None:
    others = [
        conversation(8, "Do you ship to Canada or to the United States?", "Yes."),
        conversation(9, "Do you ship to Canada, or to the United States", "No."),
        conversation(10, "Something entirely different is my question", "Yes."),
        Conversation("empty", ()),
    ]
    assert near_duplicates([*others, *OLD]) == [[4, 5, 6], [0, 1]]
