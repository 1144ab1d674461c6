"""The choice of contexts. No torch."""

from tests.training.evaluation.samples import conversation
from training.evaluation.heldout import choose_contexts


def test_contexts_come_from_every_conversation_before_a_second_from_any() -> None:
    conversations = [conversation(str(n), *"qaqaqaqa") for n in range(5)]
    chosen = choose_contexts(conversations, 7, seed=3)
    assert sorted(c.conversation for c in chosen[:5]) == list("01234")
    assert len({(c.conversation, c.turn) for c in chosen}) == 7
    assert len({c.turn for c in chosen}) > 1


def test_the_same_seed_chooses_the_same_contexts() -> None:
    conversations = [conversation(str(n), *"qaqaqa") for n in range(9)]
    assert choose_contexts(conversations, 6, seed=1) == choose_contexts(conversations, 6, seed=1)
    assert choose_contexts(conversations, 6, seed=1) != choose_contexts(conversations, 6, seed=2)


def test_a_context_is_the_true_history_before_a_reply() -> None:
    (context,) = choose_contexts(
        [conversation("x", "hello", "hi", "bye", "ciao", weights=[1])], 9, seed=1
    )
    assert [m.content for m in context.history] == ["hello", "hi", "bye"]
    assert (context.reference, context.turn) == ("ciao", 3)


def test_asking_for_more_contexts_than_there_are_gives_them_all() -> None:
    assert len(choose_contexts([conversation("x", *"qaqa")], 99, seed=1)) == 2
    assert choose_contexts([], 5, seed=1) == []
