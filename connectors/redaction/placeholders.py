"""Placeholders such as ``[EMAIL_1]``: one for each different thing in a conversation."""

import re
from collections import Counter
from collections.abc import Iterable

from connectors.redaction.allowlist import Allowlist
from connectors.redaction.recognizer import Span

PLACEHOLDER = re.compile(r"\[[A-Z][A-Z0-9_]*_[1-9]\d*\]")

_IN_PLACEHOLDER, _TAKEN = 1, 2  # what a character of a text belongs to


class PlaceholderMap:
    """Which placeholder stands for what in one conversation.

    ``counts`` counts the replacements by entity type.

    Args:
        texts: All texts of the conversation. Numbers go on after the placeholders that they hold.
        allowlist: What is not replaced.
    """

    def __init__(self, texts: Iterable[str], allowlist: Allowlist) -> None:
        self.counts: Counter[str] = Counter()
        self._allowlist = allowlist
        self._numbers: dict[tuple[str, str], int] = {}
        self._last: Counter[str] = Counter()
        for text in texts:
            for found in PLACEHOLDER.finditer(text):
                entity_type, _, number = found[0][1:-1].rpartition("_")
                self._last[entity_type] = max(self._last[entity_type], int(number[:9]))

    def placeholder(self, entity_type: str, key: str) -> str:
        """The same for the same thing, and never one that the source already had."""
        if (entity_type, key) not in self._numbers:
            self._last[entity_type] += 1
            self._numbers[entity_type, key] = self._last[entity_type]
        self.counts[entity_type] += 1
        return f"[{entity_type}_{self._numbers[entity_type, key]}]"

    def replace(self, text: str, spans: Iterable[Span]) -> str:
        """Put placeholders in; the first span wins an overlap, placeholders stay."""
        owner = bytearray(len(text))  # a byte a character
        for fixed in PLACEHOLDER.finditer(text):
            owner[fixed.start() : fixed.end()] = bytes([_IN_PLACEHOLDER]) * len(fixed[0])
        chosen: list[Span] = []
        for span in spans:
            here = owner[span.start : span.end]
            if _TAKEN in here or (_IN_PLACEHOLDER in here and span.entity_type != "URL"):
                continue
            if not self._allowlist.allows(span, text):
                chosen.append(span)
            owner[span.start : span.end] = bytes([_TAKEN]) * (span.end - span.start)
        if not chosen:
            return text
        parts = []
        at = 0
        for span in sorted(chosen):
            placeholder = self.placeholder(span.entity_type, span.key)
            parts += [text[at : span.start], span.prefix, placeholder]
            at = span.end
        return "".join([*parts, text[at:]])
