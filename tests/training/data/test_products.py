import random
from collections.abc import Sequence
from importlib import resources

import msgspec
import pytest

from connectors.conversation import ChatMessage
from training.data.dataset import Example
from training.data.facts import Fact, facts_of
from training.data.products import facts_with_products, find_products

BOXES = ("family loaf", "little loaf")


def conversations(replies: Sequence[str], question: str = "Hello?") -> list[Example]:
    """Each reply in three conversations."""
    return [
        Example(f"{number}-{copy}", [ChatMessage("user", question), ChatMessage("assistant", text)])
        for number, text in enumerate(replies)
        for copy in range(3)
    ]


@pytest.mark.parametrize(
    ("reply", "names"),
    [
        ("I would take the Family Loaf for three.", ("family loaf",)),
        ("I booked a Lyft for you.", ("lyft",)),
        ("Nous avons le Petit Pain.", ("petit pain",)),
        ("You can pay by PayPal or an iPhone.", ("iphone", "paypal")),
        ("PayPal works.", ("paypal",)),
        ("See the Lumen & Loaf page.", ("lumen & loaf",)),
        ("Take the Galaxy S24.", ("galaxy s24",)),
        ("See the Family Loaf's price.", ("family loaf",)),
        ("Thank you. The Charter says so.", ("charter",)),
        # none
        ("Family Loaf is what you want.", ()),
        ("Your driver is Anna from Leeds, Mill Lane.", ()),
        ("Press the 'Order History' and the *Sign Up* button.", ()),
        ("Tell me your PIN, the ID and the EA9.", ()),
        ("We come on a Monday, in the North, every April.", ()),
        ("It is the [NAME_1] Box of {{Box Name}}.", ()),
        ("See the www.Loaf.example/Boxes page.", ()),
        ("Write to the McDonald or an O'Brien.", ("mcdonald",)),
        ("Wir senden die Rechnung an Kunden, um Fragen des Kontos zu klären.", ()),
        ("Das FritzNet ist wieder da.", ("fritznet",)),
        ("the Best Box Of All The Boxes", ()),
    ],
)
def test_a_name_is_capitals_after_an_article_or_within_a_word(
    reply: str, names: tuple[str, ...]
) -> None:
    assert find_products(conversations([reply])) == names


def test_two_conversations_are_too_few() -> None:
    three = conversations(["It is the Family Loaf."])
    assert find_products(three) == ("family loaf",)
    assert find_products(three[:2]) == ()
    twice = [msgspec.structs.replace(three[0], messages=three[0].messages * 3)]
    assert find_products(twice) == ()


def test_what_agents_write_in_lower_case_too_is_a_word() -> None:
    assert find_products(conversations(["Open the Basket."])) == ("basket",)
    assert find_products(conversations(["Open the Basket.", "Fill your basket."])) == ()
    assert find_products(conversations(["See the Price List.", "a price list of each price"])) == ()


def test_one_word_must_not_be_an_everyday_word_of_customers() -> None:
    replies = ["A Vanilla for you.", "It is the Little Loaf."]
    assert find_products(conversations(replies, "Vanilla please.")) == ("little loaf", "vanilla")
    assert find_products(conversations(replies, "a vanilla, a little loaf")) == ("little loaf",)


def test_what_the_prompt_names_is_no_fact_of_a_reply() -> None:
    given = conversations(["the Northgate desk and the Customer Office"])
    prompt = "You answer for Northgate."
    assert find_products(given, system_prompt=prompt) == ("customer office",)


def test_the_shorter_of_two_names_for_one_thing_goes() -> None:
    given = conversations(["at the Hyatt Hotel", "at the Hyatt"])
    assert find_products(given) == ("hyatt hotel",)


def test_the_order_of_conversations_does_not_matter() -> None:
    given = conversations(["the Family Loaf", "by PayPal", "your Gold card", "Gold or gold"])
    wanted = find_products(given)
    random.Random(1).shuffle(given)
    assert find_products(given) == wanted == ("family loaf", "paypal")


def test_the_sample_tenant_has_its_boxes_and_nothing_else() -> None:
    lines = (resources.files("connectors.samples") / "loaf.jsonl").read_bytes().splitlines()
    given = [msgspec.json.decode(line, type=Example) for line in lines]
    assert find_products(given) == ("family loaf", "full hearth", "little loaf")


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("The Family Loaf is £16.", {"product family loaf", "amount 16 GBP"}),
        ("two LITTLE\u00a0LOAFS", {"product little loaf"}),
        ("a little loafer", set()),
        ("at little loaf.example or x@little loaf", {"link loaf.example"}),
        ("[NAME_1] has none", set()),
    ],
)
def test_products_of_a_text_are_facts(text: str, facts: set[str]) -> None:
    found = {f"{fact.kind} {fact}" for fact in facts_with_products(text, BOXES)}
    assert found == facts


def test_the_number_in_a_name_is_no_fact_of_its_own() -> None:
    assert facts_of("the Model 3") == {Fact("number", "3")}
    assert facts_with_products("the Model 3", ("model 3",)) == {Fact("product", "model 3")}


def test_without_names_the_facts_are_those_of_the_text() -> None:
    text = "The Family Loaf is £16, [NAME_1]."
    assert facts_with_products(text, ()) == facts_of(text)


@pytest.mark.parametrize(
    "piece", ["a", "A", "aB", "The Loaf ", "the A & ", "Mc-", "a'", "A-", "Loaf "]
)
def test_long_runs_are_read_in_a_moment(piece: str) -> None:
    find_products(conversations([piece * 10_000]))
    facts_with_products(piece * 10_000, BOXES)
