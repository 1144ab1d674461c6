"""What a look through the conversations of the seeded tenant found."""

from collections.abc import Sequence
from typing import Any

from server.curation.schemas import (
    ContradictionView,
    Doubt,
    Flagged,
    Place,
    Scan,
    ScanTopic,
    StatementView,
)

_GONE = "0" * 32  # a conversation that is deleted since
SCAN = Scan(
    conversations=40,
    doubts=[
        Doubt(
            rule="greeting",
            entity_type="NAME",
            text="Kasimir",
            count=4,
            places=[
                Place(_GONE, 0, "Hi ", ", is the rye bread back in stock?"),
                Place(_GONE, 2, "Hello ", "! My order has not arrived yet."),
            ],
        ),
        Doubt(
            rule="part of an address",
            entity_type="ADDRESS",
            text="80331 München",
            count=1,
            places=[Place(_GONE, 0, "Do you deliver to ", "?")],
        ),
    ],
    flags={
        "no_reply": [Flagged(_GONE, 0, "1 of the customer's messages, no reply")],
        "toxic": [Flagged(_GONE, 1, "a reply says “idiot”")],
        "cut_off": [Flagged(_GONE, 3, "the last message is a customer's question")],
    },
    languages={"en": 36, "de": 3, "und": 1},
    groups=[[_GONE, _GONE]],
    contradictions=[
        ContradictionView(
            question="How long do I have to send my order back to you?",
            kind="quantity",
            statements=[
                StatementView(["30 day"], 2, _GONE, "You have 30 days to return it.", "2026-02-11"),
                StatementView(
                    ["14 day"], 7, _GONE, "Returns are possible for 14 days.", "2025-11-03"
                ),
            ],
        )
    ],
    topics=[
        ScanTopic(words=["box", "late"], example="Hello, my box is late.", conversations=28),
        ScanTopic(words=[], example="Is the rye loaf vegan?", conversations=12),
    ],
    questions=31,
    questions_by_meaning=31,
)


def labels_of(names: Sequence[str]) -> dict[str, Any]:
    """What the scan says of conversations with these ids: every twelfth is German, its reply English."""
    return {
        name: {"language": "de", "languages": ["de", "en"], "topic": 1}
        if number % 12 == 0
        else {"language": "en", "languages": ["en", "en"], "topic": 1 + (number >= 28)}
        for number, name in enumerate(names)
    }
