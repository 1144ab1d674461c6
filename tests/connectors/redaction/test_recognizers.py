"""The interface of recognizers: those that come with the redactor, and one that is given to it."""

from collections.abc import Iterator

import pytest

from connectors.conversation import Conversation, Role, Turn
from connectors.errors import BadPattern
from connectors.redaction.cards import CardRecognizer
from connectors.redaction.custom_patterns import CustomPatternRecognizer
from connectors.redaction.emails import EmailRecognizer
from connectors.redaction.ibans import IbanRecognizer
from connectors.redaction.ip_addresses import IpAddressRecognizer
from connectors.redaction.links import UrlRecognizer
from connectors.redaction.names import person_name_recognizer
from connectors.redaction.phones import PhoneRecognizer
from connectors.redaction.recognizer import Recognizer, Span
from connectors.redaction.redactor import Redactor

TEXT = (
    "Jo Low, v@post.example, DE89 3704 0044 0532 0130 00, 4111 1111 1111 1111, cvv 123, "
    "203.0.113.9, https://h.example/?token=ab12cd34, ORD-77, call +44 20 7946 0958"
)


class Places:
    """Finds towns of a list, as a model for named entities would."""

    supported_entities = ("LOCATION",)
    towns = ("Hull", "Bath", "Low")

    def __init__(self) -> None:
        self.contexts: list[str] = []

    def analyze(self, text: str, context: str = "") -> Iterator[Span]:
        self.contexts.append(context)
        for town in self.towns:
            at = text.find(town)
            while at >= 0:
                yield Span(at, at + len(town), "LOCATION", town.casefold())
                at = text.find(town, at + 1)


@pytest.mark.parametrize(
    ("recognizer", "found"),
    [
        (EmailRecognizer(), {"EMAIL": "v@post.example"}),
        (IbanRecognizer(), {"IBAN": "DE89 3704 0044 0532 0130 00"}),
        (CardRecognizer(), {"CARD": "4111 1111 1111 1111", "CARD_CODE": "123"}),
        (IpAddressRecognizer(), {"IP": "203.0.113.9"}),
        (UrlRecognizer(), {"URL": "https://h.example/?token=ab12cd34"}),
        (PhoneRecognizer("GB"), {"PHONE": "+44 20 7946 0958"}),
        (CustomPatternRecognizer({"order": r"ORD-\d+"}, reserved=frozenset()), {"ORDER": "ORD-77"}),
        (person_name_recognizer(["Jo Low"]), {"NAME": "Jo Low"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_recognizer_finds_its_own_types_and_no_other(
    recognizer: Recognizer, found: dict[str, str]
) -> None:
    spans = list(recognizer.analyze(TEXT))
    assert {span.entity_type: TEXT[span.start : span.end] for span in spans} == found
    assert {span.entity_type for span in spans} <= set(recognizer.supported_entities)


def test_a_further_recognizer_shares_placeholders_and_yields_to_the_others() -> None:
    turns = (
        Turn(Role.CUSTOMER, "I live in Bath", author="Jo Low"),
        Turn(Role.AGENT, "Not in Hull, Mr Low? hull@post.example and Bath"),
    )
    places = Places()
    redactor = Redactor(recognizers=[places])
    redacted, counts = redactor.redact(Conversation("c", turns))
    assert [turn.text for turn in redacted.turns] == [
        "I live in [LOCATION_1]",
        "Not in [LOCATION_2], Mr [NAME_1]? [EMAIL_1] and [LOCATION_1]",
    ]
    assert counts == {"LOCATION": 3, "EMAIL": 1, "NAME": 2}  # one of them the author's
    assert "I live in [LOCATION_1]" in places.contexts
    assert redactor.redact(redacted)[0] == redacted


def test_no_pattern_may_be_named_as_what_a_further_recognizer_finds() -> None:
    with pytest.raises(BadPattern, match="LOCATION"):
        Redactor({"location": "Leeds"}, recognizers=[Places()])
