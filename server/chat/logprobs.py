"""Aligns the tokens that an engine reports with the answer's text.

Engines report log-probabilities of every token that they generate: also of the one that ends the
answer, of a stop text's, and of a call's markup, none of which is in the text. And they report a
token before its text where a stop text may have begun with it.
"""

import re
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
_SPECIAL = re.compile(r"<\S+>|\[\S+\]")


class LogprobAligner(Generic[T]):
    """The tokens of one answer, found in its text one after the other.

    Args:
        strict: tokens that are not in the text are left out. Otherwise only tokens that look
            special are, and the others count for as many characters as they have.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._ahead = ""  # text whose tokens have not been found
        self._offset = 0  # characters of the text before that
        self._waiting: deque[tuple[str, T]] = deque()

    def take(
        self, text: str, tokens: Iterable[tuple[str, T]], *, last: bool
    ) -> list[tuple[int, T]]:
        """Add a chunk's text and tokens; returns those that are in the text by now.

        A token of which only a part is there waits for the rest, and counts when no more comes.

        Args:
            text: what the chunk adds to the answer.
            tokens: (text, record) of each token; records are handed through.
            last: no more comes.

        Returns:
            (offset in the answer's text, record), in order.
        """
        self._ahead += text
        self._waiting.extend(tokens)
        seen: list[tuple[int, T]] = []
        while self._waiting and self._ahead:
            token, record = self._waiting[0]
            size = self._size(token)
            if size is None:  # only its beginning has come
                if not last:
                    break
                size = len(self._ahead)
            self._waiting.popleft()
            if size >= 0:
                seen.append((self._offset, record))
                self._offset += size
                self._ahead = self._ahead[size:]
        return seen

    def _size(self, token: str) -> int | None:
        """How many characters of the text a token takes; None: more must come; -1: none at all."""
        ahead = self._ahead
        for form in (token, token.lstrip(" ")):  # some tokenizers begin a text without the space
            if ahead.startswith(form) and (form or not token):
                return len(form)
            if form.startswith(ahead):
                return None
        if self._strict or _SPECIAL.fullmatch(token):
            return -1
        return min(len(token), len(ahead))
