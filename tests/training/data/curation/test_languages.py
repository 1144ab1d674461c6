import csv
from pathlib import Path

import pytest

from connectors.conversation import Conversation, Role, Turn
from training.data.curation.languages import UNKNOWN, language_of, languages_of, main_language

MESSAGES = Path(__file__).parents[3] / "data/languages/short_messages.tsv"


def test_short_messages_of_thirteen_languages_are_told_apart() -> None:
    with MESSAGES.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    wrong = [(code, text) for code, text in rows if language_of(text) != code]
    assert len(rows) > 80
    assert len({code for code, _ in rows}) == 13
    assert len(wrong) <= 2, wrong


@pytest.mark.parametrize(
    "text", ["", "ok", "12345", "[EMAIL_1]", "https://shop.example/where", "{{Order Number}}", "👍"]
)
def test_too_little_is_no_language(text: str) -> None:
    assert language_of(text) == UNKNOWN


def test_a_conversation_has_the_customers_language() -> None:
    turns = (
        Turn(Role.CUSTOMER, "Wo ist meine Bestellung?"),
        Turn(Role.AGENT, "I will look that up for you right away, please wait a moment."),
        Turn(Role.CUSTOMER, "ok"),
    )
    conversation = Conversation("c", turns)
    assert languages_of(conversation) == ["de", "en", UNKNOWN]
    assert main_language(conversation) == "de"
    assert main_language(Conversation("c", turns[1:])) == "en"
