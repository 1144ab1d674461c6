"""How references stand in a prompt: the same text in training, evaluation and serving.

References are what retrieval found for a customer's turn: exchanges of the past, and articles. They are shown in that turn
while it is answered, and are gone from the history afterwards. So the system prompt and the history
stay what they were, and an engine finds them in its prefix cache.

A text of a reference cannot end the turn or begin another: control tokens are removed. It has no
more authority than the customer in whose turn it stands.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from connectors.control_tokens import without_control_tokens

ARTICLES = 1
"""Pieces of articles that an answer is shown: each has up to 900 characters."""

ARTICLE_SCORE = 0.4
"""The cosine that a piece must reach. Of 300 customers' turns to the sample bakery, 95 in a hundred are
below 0.36 with a water utility's articles, and two in five above 0.4 with its own."""

TITLE_CHARACTERS = 200
TEXT_CHARACTERS = 900
"""Longer ones are cut: prompts must stay short, and the encoder reads 256 tokens of a text."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an answer may rest on.

    ``id``: of an exchange ``<conversation>:<turn>``, of an article ``<article>@<version>#<chunk>``.
    ``title``: the question, or the article's title and headings. ``score``: how near it is, in [-1, 1].
    ``url``: where the article can be read by everybody, where that is known.
    """

    kind: Literal["exchange", "article"]
    id: str
    title: str
    text: str
    score: float
    url: str | None = None


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of an article.

    ``id``, ``url``: as a `Reference` has them. ``headings``: those above it, outermost first, without the title.
    """

    id: str
    title: str
    headings: tuple[str, ...]
    text: str
    url: str | None = None

    def reference(self, score: float) -> Reference:
        """The piece as it stands in a prompt and in a receipt; ``score`` is its cosine with the question."""
        return Reference(
            kind="article",
            id=self.id,
            title=" > ".join((self.title, *self.headings)),
            text=self.text,
            score=round(score, 4),
            url=self.url,
        )


def show(question: str, references: Sequence[Reference]) -> str:
    """The customer's turn as the model reads it.

    Args:
        question: what the customer wrote.
        references: the nearest first; it stands last, next to the question.
    """
    if not references:
        return question
    parts = [f"Q: {title}\nA: {text}" for title, text in map(shown_texts, reversed(references))]
    return "\n".join([*parts, "", question])


def shown_texts(reference: Reference) -> tuple[str, str]:
    """The title and the text of a reference, as much of them as the model reads."""
    return _cut(reference.title, TITLE_CHARACTERS), _cut(reference.text, TEXT_CHARACTERS)


def _cut(text: str, most: int) -> str:
    plain = " ".join(without_control_tokens(text).split())
    return plain if len(plain) <= most else plain[: most - 1].rstrip() + "…"
