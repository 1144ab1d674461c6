"""Which of the tokens that an engine tells are in the answer's text.

Engines tell log-probabilities of every token that they generate: also of the one that ends the
answer, of those that make up a text to stop at, and of a call's markup, none of which the text
has. And they tell a token before its text, where a text to stop at may have begun with it.
"""

import re
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")
_SPECIAL = re.compile(r"<\S+>|\[\S+\]")


class LogprobAligner(Generic[T]):
    """The tokens of one answer, found in its text one after the other.

    ``strict``: what the text does not have is left out; otherwise only tokens that look special are,
    and others count for as many characters as they have.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._ahead = ""  # text whose tokens have not been found
        self._at = 0  # characters of the text before that
        self._waiting: deque[tuple[str, T]] = deque()

    def take(
        self, text: str, tokens: Iterable[tuple[str, T]], *, last: bool
    ) -> list[tuple[int, T]]:
        """Add a chunk's text, and its tokens as (their text, what is told of them).

        Returns (place in the answer's text, what is told) of the tokens that can be seen by now, in
        order. A token of which only a part can be seen waits for the rest, and counts when no more
        comes.
        """
        self._ahead += text
        self._waiting.extend(tokens)
        seen: list[tuple[int, T]] = []
        while self._waiting and self._ahead:
            token, told = self._waiting[0]
            size = self._size(token)
            if size is None:  # only its beginning has come
                if not last:
                    break
                size = len(self._ahead)
            self._waiting.popleft()
            if size >= 0:
                seen.append((self._at, told))
                self._at += size
                self._ahead = self._ahead[size:]
        return seen

    def _size(self, token: str) -> int | None:
        """Characters of the text that a token is; None: more must come; -1: it is not there."""
        ahead = self._ahead
        for form in (token, token.lstrip(" ")):  # some tokenizers begin a text without the space
            if ahead.startswith(form) and (form or not token):
                return len(form)
            if form.startswith(ahead):
                return None
        if self._strict or _SPECIAL.fullmatch(token):
            return -1
        return min(len(token), len(ahead))
