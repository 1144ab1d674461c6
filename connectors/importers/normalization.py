"""The form in which words of headers and values are compared."""

import re
import unicodedata
from functools import lru_cache

MAX_WORD_LENGTH = 100
"""Characters of a header or value that are looked at; what is longer is no single word."""


def normalize(text: str) -> str:
    """Letters and digits only, lower case, without accents; of the first ``MAX_WORD_LENGTH`` characters."""
    return _normalize(text[:MAX_WORD_LENGTH])


@lru_cache(maxsize=4096)
def _normalize(text: str) -> str:
    parts = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(c for c in parts if unicodedata.category(c) != "Mn").replace("ł", "l")
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", bare.replace("ø", "o")))


def normalized_words(text: str) -> frozenset[str]:
    """The words of a text, each normalized."""
    return frozenset(map(normalize, text.split()))


YES_WORDS = normalized_words(
    "true t yes y 1 10 on x wahr ja j oui vrai si verdadero vero sim verdadeiro sand tak evet da "
    "да истина 是 真 はい 예"
)
NO_WORDS = normalized_words(
    "false f no n 0 00 off falsch nein non faux falso nao nej nie hayir nee nei нет ложь 否 假 "
    "いいえ 아니요"
)
"""As ``normalize`` returns them: "1.0" is "10"."""
