"""A tenant's own words that are always replaced: names of people, projects, places."""

import re
from collections.abc import Iterable, Iterator

from connectors.redaction.folding import fold
from connectors.redaction.recognizer import Span

_BLANKS = re.compile(r"\s+")


class TermRecognizer:
    """Whole words of a list, in any case and with any blanks between them.

    Args:
        terms: Words or phrases. The longest wins where two begin at one place.
    """

    supported_entities = ("TERM",)

    def __init__(self, terms: Iterable[str]) -> None:
        folded = {_key(fold(term).text) for term in terms} - {""}
        ordered = sorted(folded, key=lambda term: (-len(term), term))
        alternatives = "|".join(re.escape(term).replace(r"\ ", r"\s+") for term in ordered)
        self._pattern = (
            re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE) if ordered else None
        )

    def analyze(self, text: str, context: str = "") -> Iterator[Span]:
        """See ``Recognizer.analyze``."""
        if self._pattern:
            for found in self._pattern.finditer(text):
                yield Span(*found.span(), "TERM", _key(found[0]), rule="term")


def _key(term: str) -> str:
    return _BLANKS.sub(" ", term.strip()).casefold()
