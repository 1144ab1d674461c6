"""The language of a message.

By py3langid, a naive Bayes classifier over byte n-grams (Lui and Baldwin 2012, "langid.py: An
Off-the-shelf Language Identification Tool"). On 84 short messages of support desks in 13 languages it
names all, at 0.06 ms each; lingua names 80 of them at 15 ms with its 75 languages, langdetect 75 at
3 ms (``tests/data/languages``).
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from connectors.conversation import Conversation, Role
from connectors.redaction.placeholders import PLACEHOLDER

UNKNOWN = "und"
"""ISO 639-2 for "undetermined"."""

_ISO_639_1 = 2  # letters of a code: languages with many writers
_NOT_WRITTEN = frozenset({"la", "eo", "ia", "ie", "io", "vo", "sa"})  # by customers
_MIN_LETTERS = 4  # "ok", "no" are of several languages
_MIN_PROBABILITY = 0.25  # right answers have more, single words and codes less
_MAX_CHARACTERS = 2_000  # more tells nothing new
_LETTER = re.compile(r"[^\W\d_]")
_NO_WORDS = re.compile(r"https?://\S+|\S+@\S+|\{\{[^{}]*\}\}")


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    found = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)  # 0.4 s, 70 MB
    # Else "thanks so much" is Nigerian Pidgin: one message in a hundred.
    found.set_languages(
        [code for code in found.labels if len(code) == _ISO_639_1 and code not in _NOT_WRITTEN]
    )
    return found


def language_of(text: str) -> str:
    """ISO 639-1 code of the language; ``und`` where too little is written, or none is likely."""
    words = _NO_WORDS.sub(" ", PLACEHOLDER.sub(" ", text[:_MAX_CHARACTERS])).strip()
    if len(_LETTER.findall(words)) < _MIN_LETTERS:
        return UNKNOWN
    code, probability = _identifier().classify(words)
    return str(code) if probability >= _MIN_PROBABILITY else UNKNOWN


def languages_of(conversation: Conversation) -> list[str]:
    """The language of each turn."""
    return [language_of(turn.text) for turn in conversation.turns]


def main_language(conversation: Conversation) -> str:
    """The language of all that the customer writes; of all, where the customer writes too little."""
    asked = (turn.text for turn in conversation.turns if turn.role is Role.CUSTOMER)
    return first_language(asked, (turn.text for turn in conversation.turns))


def first_language(asked: Iterable[str], said: Iterable[str]) -> str:
    """The language of all that was ``asked``; of all that was ``said``, where that is too little."""
    found = language_of("\n".join(asked))
    return found if found != UNKNOWN else language_of("\n".join(said))
