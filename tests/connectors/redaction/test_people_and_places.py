"""Names and addresses in wording alone, over labelled lines in seven languages.

python -m tests.connectors.redaction.test_people_and_places    (prints precision, recall, mistakes)
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from connectors.conversation import Conversation, Role, Turn
from connectors.redaction.redactor import IN_A_REPLY, Redactor

LABELLED = Path(__file__).parents[2] / "data/redaction/labelled.txt"
_MARK = re.compile(r"\{([^{}]+)\}|<([^<>]+)>")


class Line(NamedTuple):
    """A text, and what of it is personal for sure or perhaps."""

    question: str
    text: str
    personal: set[str]
    doubtful: set[str]


def lines() -> Iterator[Line]:
    for raw in LABELLED.read_text("utf-8").splitlines():
        if raw.startswith("#"):
            continue
        question, _, marked = raw.replace(r"\n", "\n").rpartition(" => ")
        personal = {found[1] for found in _MARK.finditer(marked) if found[1]}
        doubtful = {found[2] for found in _MARK.finditer(marked) if found[2]}
        text = _MARK.sub(lambda found: found[1] or found[2], marked)
        yield Line(question, text, personal, doubtful)


def found_in(line: Line, redactor: Redactor) -> tuple[set[str], set[str]]:
    """What is replaced, as the pieces between what stays, and what is asked about."""
    turns = (Turn(Role.AGENT, line.question), Turn(Role.CUSTOMER, line.text))
    redacted, _ = redactor.redact(Conversation("c", turns))
    stays = re.split(r"\[[A-Z]+_\d+\]", redacted.turns[1].text)
    pattern = "(.+?)".join(map(re.escape, stays))
    whole = re.fullmatch(pattern, line.text, re.DOTALL)
    assert whole is not None
    return set(whole.groups()), {hit.text for hit in redactor.uncertain(redacted)}


def measure() -> tuple[float, float, float, list[str]]:
    """Precision and recall of what is replaced, recall of replaced and asked together, mistakes."""
    redactor = Redactor({}, "DE")
    right = wrong = missed = seen = total = 0
    mistakes = []
    for line in lines():
        replaced, asked = found_in(line, redactor)
        right += len(replaced & line.personal)
        wrong += len(replaced - line.personal)
        missed += len(line.personal - replaced)
        total += len(line.personal | line.doubtful)
        seen += len((replaced | asked) & (line.personal | line.doubtful))
        if (replaced, asked) != (line.personal, line.doubtful):
            mistakes.append(f"{line.text!r}: replaced {replaced}, asked {asked}")
    return right / (right + wrong), right / (right + missed), seen / total, mistakes


def test_the_sample_is_large_and_has_lines_where_nothing_is_personal() -> None:
    sample = list(lines())
    assert len(sample) > 100
    assert sum(not line.personal and not line.doubtful for line in sample) > 30


def test_names_and_addresses_are_found_and_other_words_stay() -> None:
    precision, recall, seen, mistakes = measure()
    assert precision >= 0.97, mistakes
    assert recall >= 0.95, mistakes
    assert seen >= 0.95, mistakes


def test_redacting_again_changes_nothing() -> None:
    redactor = Redactor({}, "DE")
    for line in lines():
        turns = (Turn(Role.AGENT, line.question), Turn(Role.CUSTOMER, line.text))
        once, _ = redactor.redact(Conversation("c", turns))
        assert redactor.redact(once)[0] == once


def test_a_name_from_a_greeting_is_replaced_wherever_the_conversation_repeats_it() -> None:
    turns = (
        Turn(Role.AGENT, "Hi Anna, how can I help?"),
        Turn(Role.CUSTOMER, "It was for Anna Schmitz, not for Berta.\nBest, Anna Schmitz"),
    )
    redacted, counts = Redactor({}, "DE").redact(Conversation("c", turns))
    assert [turn.text for turn in redacted.turns] == [
        "Hi [NAME_1], how can I help?",
        "It was for [NAME_1], not for Berta.\nBest, [NAME_1]",
    ]
    assert counts == {"NAME": 3}


def test_words_that_a_tenant_allows_stay_and_are_not_asked_about() -> None:
    redactor = Redactor({}, "DE", allowlist=["Anna", "Kasimir", "12 Baker Street"])
    text = "Hi Anna, hi Kasimir. Hi Kasimir! We are at 12 Baker Street"
    conversation = Conversation("c", (Turn(Role.CUSTOMER, text),))
    assert redactor.redact(conversation)[0] == conversation
    assert redactor.uncertain(conversation) == []


def test_terms_of_a_tenant_are_replaced_as_whole_words_in_any_case() -> None:
    redactor = Redactor({}, "DE", terms=["Project Falcon", "Kowalski"])
    text = "project  falcon is KOWALSKI's, not Kowalskis or falcon"
    assert redactor.redact_text(text) == "[TERM_1] is [TERM_2]'s, not Kowalskis or falcon"


@pytest.mark.parametrize(
    ("places", "text", "expected"),
    [
        (("Elm Row 5", "Bristol"), "to elm row 5, Bristol", "to [ADDRESS_1]"),
        (("Elm Row 5", "Bristol"), "the shop in Bristol", "the shop in Bristol"),
        (("Elm Row 5, Bristol",), "Bristol, Elm Row 5!", "[ADDRESS_1]!"),
        (("BS1 4TT", "Bristol"), "Bristol BS1 4TT", "[ADDRESS_1]"),
        (("Bristol",), "in Bristol", "in Bristol"),
        ((), "in Bristol", "in Bristol"),
    ],
)
def test_addresses_of_the_exports_own_fields_are_replaced(
    places: tuple[str, ...], text: str, expected: str
) -> None:
    conversation = Conversation("c", (Turn(Role.CUSTOMER, text),), places=places)
    redacted, _ = Redactor({}, "DE").redact(conversation)
    assert redacted.turns[0].text == expected
    assert redacted.places == ()


def test_an_address_that_only_the_company_tells_is_doubtful() -> None:
    redactor = Redactor({}, "DE")
    turns = (
        Turn(Role.CUSTOMER, "Where is your shop? I live at 5 Elm Street, Bristol BS1 4TT."),
        Turn(Role.AGENT, "At 12 Mill Lane. We deliver to 5 Elm Street, Bristol BS1 4TT."),
    )
    redacted, _ = redactor.redact(Conversation("c", turns))
    assert [turn.text for turn in redacted.turns] == [
        "Where is your shop? I live at [ADDRESS_1].",
        "At 12 Mill Lane. We deliver to [ADDRESS_1].",
    ]
    (hit,) = redactor.uncertain(redacted)
    assert (hit.turn, hit.rule, hit.text) == (1, IN_A_REPLY, "12 Mill Lane")


def test_doubtful_hits_are_replaced_by_what_a_person_decides() -> None:
    redactor = Redactor({}, "DE")
    turns = (
        Turn(Role.CUSTOMER, "Hi Kasimir, write to [EMAIL_1]"),
        Turn(Role.CUSTOMER, "Hi Kasimir!"),
    )
    conversation = Conversation("c", turns)
    hits = redactor.uncertain(conversation)
    assert [(hit.turn, hit.rule, hit.text) for hit in hits] == [
        (0, "greeting", "Kasimir"),
        (1, "greeting", "Kasimir"),
    ]
    replaced = redactor.replace(conversation, [(hit, "NAME") for hit in hits])
    assert [turn.text for turn in replaced.turns] == [
        "Hi [NAME_1], write to [EMAIL_1]",
        "Hi [NAME_1]!",
    ]
    assert redactor.uncertain(replaced) == []


@pytest.mark.parametrize(
    "piece",
    [
        "Hi Anna ",
        "Hi ",
        "A ",
        "12 A ",
        "Straße ",
        "12 Rue de la ",
        "\n- Tom",
        "Best, ",
        "1 a street ",
    ],
)
def test_long_texts_are_read_in_a_moment(piece: str) -> None:
    Redactor({}, "DE").uncertain(Conversation("c", (Turn(Role.CUSTOMER, piece * 5_000),)))


if __name__ == "__main__":
    precision, recall, seen, mistakes = measure()
    print(f"precision {precision:.3f}, recall {recall:.3f}, replaced or asked {seen:.3f}")
    print(*mistakes, sep="\n")
