"""What is public and stays in the texts."""

import re
from collections.abc import Iterable

from connectors.redaction.recognizer import Span


class Allowlist:
    """Public values; compared without case, blanks and the punctuation of numbers.

    Args:
        values: E-mail addresses, telephone numbers, accounts; ``@its-domain.example`` stands for
            all addresses there.
    """

    def __init__(self, values: Iterable[str]) -> None:
        plain = {"".join(value.split()).casefold() for value in values}
        self._values = plain | {_digits(value) for value in plain if "@" not in value} - {""}

    def allows(self, found: Span, text: str) -> bool:
        """Whether what was found in the text is one of the values."""
        if not self._values:
            return False
        raw = "".join(text[found.start : found.end].split()).casefold()
        forms = {raw, found.key.casefold()}
        if found.entity_type == "EMAIL":
            forms.add("@" + found.key.rpartition("@")[2])
        elif found.entity_type != "URL":
            forms |= {_digits(raw), _digits(found.key)}
        return not self._values.isdisjoint(forms)


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)
