"""Names of products: which a tenant's own replies have, and which of them a text has.

There is no list and no model of them. A name is what agents write as one, by rules that would rather miss
a name than take a word for one:

1.  capitalised words inside a sentence, after an article or a possessive and outside of quotation marks:
    "the Family Loaf box". People and towns stand without an article, and the labels of buttons in quotation
    marks. Or, anywhere, one word with a capital inside: "AquaFlow", "iPhone";
2.  in the replies of `MIN_CONVERSATIONS` at least;
3.  hardly ever in lower case: agents write "your account" too. Of several words one must be such a word,
    and one word alone must not be an everyday word of customers either.

Abbreviations ("PIN"), codes, days, months, units, placeholders, links and what the system prompt names
are none. German writes every noun with a capital, so its articles say nothing, and are not among ours::

    names = find_products(dataset.read("train"), system_prompt=dataset.system_prompt)
    # ("family loaf", "little loaf")
    facts_with_products("The Family Loaf is £16.", names)
    # {Fact("product", "family loaf"), Fact("amount", "16", "GBP")}
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from connectors.redaction.folding import folded_words
from training.data.dataset import Example
from training.data.fact_words import CURRENCIES, MONTHS, SHORT_WEEKDAYS, UNITS, WEEKDAYS
from training.data.facts import USED, Fact, facts_in, readable

MIN_CONVERSATIONS = 3
"""Conversations whose agents write a name: what one or two do is a person's, or an oddity."""
MAX_LOWER = 0.1
"""Of how often agents write a name, the share that may be in lower case."""
MAX_LOWER_WORD = 0.25
"""The same of one word of a name of several."""
MAX_LOWER_CUSTOMERS = 0.5
"""The same of one word alone, as customers write it: they are careless of names."""
MAX_WORDS = 5
"""Words of a name; a longer run of capitalised words is a headline."""

_DETERMINERS = frozenset(
    folded_words(
        "the a our your my his their its this that these those any every each another per"
        " le la les un une notre votre vos nos mon ma mes ce cet cette"
        " el los las una nuestro nuestra su sus tu tus este esta"
        " il lo gli nostro nostra suo sua questo questa"
        " het een onze uw dit deze os as uma nosso nossa seu sua"
    )
)
"""None that mean something before a noun in German: "an", "um", "die", "des"."""
_ORDINARY = frozenset(
    {*WEEKDAYS, *SHORT_WEEKDAYS, *MONTHS, *UNITS, *CURRENCIES}
    | set(folded_words("i i'm i've i'll i'd north south east west centre center"))
)

_WORD = re.compile(r"(?<![\w@./-])[^\W\d_](?:[\w+]|['-](?!s\b)(?=[^\W_]))*(?![\w@/-]|\.\w)")
_GLUE = frozenset({" ", " & "})
_OUTSIDE = re.compile(r"[.!?:;\n'\"\u201c\u201d\u201e\u00ab\u00bb*_#\[\]<>()]")
"""Before a word: it begins a sentence, or is quoted, or marked."""
_INNER = re.compile(r"\b(?!Mc|Mac)[^\W\d_]*[a-z][A-Z]")
"""A capital inside a word, as no word of a sentence has it."""


def find_products(examples: Sequence[Example], *, system_prompt: str = "") -> tuple[str, ...]:
    """The names in the agents' replies of a training split, in lower case and sorted.

    Of two names one of which has the other's words in it, only the longer one is kept: "the Hyatt" is no
    other hotel than "the Hyatt Hotel".

    Args:
        examples: in any order; the same give the same names.
        system_prompt: what it names, every reply may name.
    """
    seen: dict[str, set[str]] = defaultdict(set)
    written: Counter[str] = Counter()
    unmistakable: set[str] = set()
    for example in examples:
        for text in _texts(example, "assistant"):
            for run in _runs(text):
                name = _key(run.text)
                written[name] += 1
                if run.is_named:
                    seen[name].add(example.id)
                if _INNER.search(run.text):
                    unmistakable.add(name)
    often = {name for name, where in seen.items() if len(where) >= MIN_CONVERSATIONS}
    if not often:
        return ()
    ours, theirs = (_spellings(examples, role, often) for role in ("assistant", "user"))
    prompt = _key(readable(system_prompt))
    names = {
        name
        for name in often
        if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", prompt)
        and ours.lower[name] <= MAX_LOWER * (written[name] + ours.lower[name])
        and (name in unmistakable or _has_own_word(name, ours, theirs))
    }
    return tuple(sorted(name for name in names if not _is_part(name, names)))


def facts_with_products(text: str, products: tuple[str, ...]) -> frozenset[Fact]:
    """The facts of a text, with those of ``products`` that it names: in any case, and in the plural.

    A name's own numbers are no facts of their own.
    """
    rest = readable(text)
    if not products:
        return facts_in(rest)
    found: set[Fact] = set()

    def read(match: re.Match[str]) -> str:
        found.add(Fact("product", _key(match[1])))
        return USED * len(match[0])

    rest = _pattern(products).sub(read, rest)
    return facts_in(rest) | found


@lru_cache(maxsize=8)
def _pattern(products: tuple[str, ...]) -> re.Pattern[str]:
    longest = sorted(products, key=lambda name: (-len(name), name))
    names = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in longest)
    return re.compile(rf"(?<![\w@./-])({names})(?:'?s)?(?![\w@/-]|\.\w)", re.IGNORECASE)


class _Run(NamedTuple):
    """Capitalised words one after the other. ``is_named``: they stand as names do (rule 1)."""

    text: str
    is_named: bool


def _runs(text: str) -> Iterator[_Run]:
    """The runs of a text that are names or may be: no sentence's first word, headline or abbreviation."""
    words: list[str] = []
    is_named = False
    before, end = "", 0
    for match in (*_WORD.finditer(text), None):
        gap = text[end : match.start()] if match else USED
        word = match[0] if match else ""
        if words and (gap not in _GLUE or not _is_capital(word)):
            run = " ".join(words)
            if len(words) <= MAX_WORDS and not (len(words) == 1 and run.isupper()):
                yield _Run(run, is_named or _INNER.search(run) is not None)
            words = []
        if match is None:
            return
        if words:
            words += [*gap.split(), word]
        elif _is_capital(word) and (_INNER.match(word) or (end and not _OUTSIDE.search(gap))):
            words = [word]
            is_named = gap == " " and before.casefold() in _DETERMINERS
        before, end = word, match.end()


def _is_capital(word: str) -> bool:
    """Whether it may be a part of a name: a day, a month or a unit is none."""
    key = word.casefold()
    return (word[:1].isupper() or _INNER.match(word) is not None) and key not in _ORDINARY


def _texts(example: Example, role: str) -> Iterator[str]:
    for message in example.messages:
        if message.role == role:
            yield readable(message.content)


def _key(words: str) -> str:
    return " ".join(words.casefold().split())


class _Spellings(NamedTuple):
    """How often words, and some names, are written in lower case, and words with a capital."""

    lower: Counter[str]
    capital: Counter[str]

    def lower_share(self, word: str) -> float:
        """Of all that a word is written."""
        lower = self.lower[word]
        return lower / max(1, lower + self.capital[word])


def _spellings(examples: Sequence[Example], role: str, names: Collection[str]) -> _Spellings:
    several = sorted((name for name in names if " " in name), key=lambda name: (-len(name), name))
    phrases = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, several)) or '(?!)'})(?!\w)")
    found = _Spellings(Counter(), Counter())
    for example in examples:
        for text in _texts(example, role):
            for match in _WORD.finditer(text):
                word = match[0]
                (found.lower if word.islower() else found.capital)[word.casefold()] += 1
            found.lower.update(phrases.findall(text))
    return found


def _has_own_word(name: str, ours: _Spellings, theirs: _Spellings) -> bool:
    """Whether a word of it is hardly ever in lower case (rule 3)."""
    words = name.split()
    if len(words) > 1:
        return any(ours.lower_share(word) <= MAX_LOWER_WORD for word in words if word != "&")
    return theirs.lower_share(name) <= MAX_LOWER_CUSTOMERS


def _is_part(name: str, names: Collection[str]) -> bool:
    return any(f" {name} " in f" {other} " for other in names if other != name)
