import random
import string

import pytest

from training.data.facts import Fact, facts_of


def said(text: str) -> set[str]:
    return {f"{fact.kind} {fact}" for fact in facts_of(text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # amounts
        ("It costs 1.000,00 EUR.", {"amount 1000 EUR"}),
        ("It costs €1,000.00.", {"amount 1000 EUR"}),
        ("Das kostet 1 000 €", {"amount 1000 EUR"}),
        ("CHF 1'000.50", {"amount 1000.5 CHF"}),
        ("19,99€", {"amount 19.99 EUR"}),
        ("€19.99", {"amount 19.99 EUR"}),
        ("EUR19.99", {"amount 19.99 EUR"}),
        ("1.234.567,8 euros", {"amount 1234567.8 EUR"}),
        ("₹1,00,000", {"amount 100000 INR"}),
        ("Rs. 500 and Rs 20", {"amount 500 INR", "amount 20 INR"}),
        ("Only 12,- €", {"amount 12 EUR"}),
        ("$5k", {"amount 5000 USD"}),
        ("1.5 million dollars", {"amount 1500000 USD"}),
        ("$20 CAD", {"amount 20 CAD"}),
        ("US$ 20", {"amount 20 USD"}),
        ("$10-$20", {"amount 10 USD", "amount 20 USD"}),
        ("£10 to 20", {"amount 10 GBP", "amount 20 GBP"}),
        ("10 bis 20 Euro", {"amount 10 EUR", "amount 20 EUR"}),
        ("$10 and 3 days", {"amount 10 USD", "quantity 3 day"}),
        ("two euros", {"amount 2 EUR"}),
        ("50 cents", {"amount 0.5 USD"}),
        ("open for 24 hours. 5", {"quantity 24 hour", "number 5"}),
        # quantities
        ("within 14 days", {"quantity 14 day"}),
        ("innerhalb von 14 Tagen", {"quantity 14 day"}),
        ("sous 14 jours", {"quantity 14 day"}),
        ("en 14 días", {"quantity 14 day"}),
        ("3-5 business days", {"quantity 3 working day", "quantity 5 working day"}),
        ("3 to 5 working days", {"quantity 3 working day", "quantity 5 working day"}),
        ("3 bis 5 Werktage", {"quantity 3 working day", "quantity 5 working day"}),
        ("3 à 5 jours ouvrés", {"quantity 3 working day", "quantity 5 working day"}),
        ("3 a 5 días hábiles", {"quantity 3 working day", "quantity 5 working day"}),
        ("two weeks", {"quantity 2 week"}),
        ("zwei Wochen", {"quantity 2 week"}),
        ("two to three weeks", {"quantity 2 week", "quantity 3 week"}),
        ("thirty (30) days", {"quantity 30 day"}),
        ("a 24-hour line", {"quantity 24 hour"}),
        ("innerhalb einer Woche", {"quantity 1 week"}),
        ("eine Person hilft Ihnen", set()),
        ("20% off, 20 percent", {"quantity 20 percent"}),
        ("20 % Rabatt", {"quantity 20 percent"}),
        ("2,5 kg and 2.5kg", {"quantity 2.5 kg"}),
        ("a 5-star hotel", {"quantity 5 star"}),
        ("4 nights for 2 guests", {"quantity 4 night", "quantity 2 person"}),
        # numbers and codes
        ("number 12345", {"number 12345"}),
        ("0.125 and 1.000", {"number 0.125", "number 1000"}),
        ("order ORD-77 of A12", {"code ORD-77", "code A12"}),
        ("the 1st and 2nd", set()),
        ("Do this:\n1. Wait 2 days.\n2) Call.", {"quantity 2 day"}),
        ("order 00004587345", {"number 00004587345"}),
        ("1.", {"number 1"}),
        ("\u0661\u0662 kg", {"quantity 12 kg"}),
        # dates
        ("2026-03-05", {"date 2026-03-05"}),
        ("05.03.2026", {"date 2026-03-05"}),
        ("5.3.26", {"date 2026-03-05"}),
        ("25/03/2026", {"date 2026-03-25"}),
        ("03/25/2026", {"date 2026-03-25"}),
        ("05/03/2026", {"date 2026-03-05|2026-05-03"}),
        ("05/05/2026", {"date 2026-05-05"}),
        ("5. März 2026", {"date 2026-03-05"}),
        ("March 5th, 2026", {"date 2026-03-05"}),
        ("5th of March 2026", {"date 2026-03-05"}),
        ("5 mars 2026", {"date 2026-03-05"}),
        ("1er mai", {"date --05-01"}),
        ("5 de marzo de 2026", {"date 2026-03-05"}),
        ("am 5.3. um 9", {"date --03-05", "number 9"}),
        ("March 3-5", {"date --03-03", "date --03-05"}),
        ("3-5 March 2026", {"date 2026-03-03", "date 2026-03-05"}),
        ("in March 2026", {"date 2026-03"}),
        ("Fees of 5 may apply", {"number 5"}),
        ("31 February 2026", {"number 31", "date 2026-02"}),
        ("2026-03-05T09:00:00Z", {"date 2026-03-05", "time 09:00"}),
        ("version 1.2.3", set()),
        # times
        ("9am", {"time 09:00"}),
        ("9 a.m.", {"time 09:00"}),
        ("09:00", {"time 09:00"}),
        ("9 Uhr", {"time 09:00"}),
        ("9.30 Uhr", {"time 09:30"}),
        ("21h30", {"time 21:30"}),
        ("à 21 h", {"time 21:00"}),
        ("sous 48 h", {"quantity 48 hour"}),
        ("9-5pm", {"time 09:00", "time 17:00"}),
        ("2-5 pm", {"time 14:00", "time 17:00"}),
        ("9am-5pm", {"time 09:00", "time 17:00"}),
        ("9-17 Uhr", {"time 09:00", "time 17:00"}),
        ("from 9:00 to 17:30", {"time 09:00", "time 17:30"}),
        ("12am to noon", {"time 00:00", "time 12:00"}),
        ("24:00", {"time 00:00"}),
        ("a ratio of 16:9", {"number 16", "number 9"}),
        ("24/7", {"time 24/7"}),
        ("24/7 support", {"time 24/7"}),
        # days of the week
        ("on Monday", {"weekday 1"}),
        ("Monday to Friday", {"weekday 1-5"}),
        ("Mon-Fri", {"weekday 1-5"}),
        ("Mo.\u2013Fr.", {"weekday 1-5"}),
        ("du lundi au vendredi", {"weekday 1-5"}),
        ("de lunes a viernes", {"weekday 1-5"}),
        ("the sun and the moon", set()),
        # telephones, links, e-mail
        ("call +49 30 1234567", {"phone +49301234567"}),
        ("call 0049 30 1234567", {"phone +49301234567"}),
        ("call 0800 123 456", {"phone 0800123456"}),
        ("call (555) 123-4567", {"phone 5551234567"}),
        ("See https://www.shop.example/help/?q=1.", {"link shop.example/help"}),
        ("see www.shop.example", {"link shop.example"}),
        ("see Shop.com for more", {"link shop.com"}),
        ("shop.is/returns)", {"link shop.is/returns"}),
        ("That was it.is that all", set()),
        ("to Help@Shop.example.", {"email help@shop.example"}),
        # none
        ("", set()),
        ("[PHONE_1] and {{Order 12}}", set()),
        ("http://[", set()),
    ],
)
def test_facts_are_read_from_text(text: str, expected: set[str]) -> None:
    assert said(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("We open at 9am.", "Wir öffnen um 09:00."),
        ("Refunds of 1,000.00 EUR", "Erstattung von 1.000,00 €"),
        ("on 5 March 2026", "am 05.03.2026"),
        ("within two weeks", "innerhalb von 2 Wochen"),
        ("Mon\u2013Fri 9:00\u201317:00", "Monday to Friday, 9am-5pm"),
        ("20 % off", "20% off"),
        ("at\u00a0most 1\u202f000 €", "at most €1000"),
    ],
)
def test_one_fact_in_two_notations_is_equal(one: str, other: str) -> None:
    assert facts_of(one) == facts_of(other) != frozenset()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("14 days", "30 days"),
        ("14 days", "14 working days"),
        ("14 days", "14 weeks"),
        ("20 EUR", "20 USD"),
        ("9am", "9pm"),
        ("shop.com/a", "shop.com/b"),
    ],
)
def test_different_facts_differ(one: str, other: str) -> None:
    assert facts_of(one).isdisjoint(facts_of(other))


def test_a_fact_is_read_as_a_person_writes_it() -> None:
    assert str(Fact("quantity", "30", "working day")) == "30 working day"
    assert str(Fact("time", "09:00")) == "09:00"


def test_any_text_can_be_read() -> None:
    letters = string.printable + "€£ \u2019\u2013\u0660\u00bd\x00"
    words = ["1,000.00", "9am", "Mon-Fri", "March", "5.3.", "www.", "@", "0049", "k", "%", "$", "-"]
    source = random.Random(7)
    for _ in range(1_000):
        pieces = [
            source.choice(words) if source.random() < 0.5 else source.choice(letters)
            for _ in range(source.randint(1, 30))
        ]
        text = "".join(pieces)
        assert facts_of(text) == facts_of(text)


@pytest.mark.parametrize(
    "piece", ["1,", "111 ", "1.", "a.", "a-", "A1-", "9 to ", "(0", "$1-", "@a."]
)
def test_long_runs_are_read_in_a_moment(piece: str) -> None:
    facts_of(piece * 5_000)
