"""People's names that a transcript's metadata tells, found again in its texts."""

import re
from collections.abc import Iterable, Iterator

import msgspec

from connectors.detect import PLACEHOLDER, Finding

_SHORTEST_PART = 3
# An author made of nothing but these is a role, and stays.
_ROLES = frozenset(
    [
        "agent",
        "assistant",
        "support",
        "customer",
        "client",
        "user",
        "visitor",
        "guest",
        "bot",
        "chatbot",
        "system",
        "admin",
        "operator",
        "advisor",
        "adviser",
        "representative",
        "rep",
        "staff",
        "helpdesk",
        "service",
        "care",
        "sales",
        "team",
        "desk",
        "human",
        "virtual",
        "automated",
        "the",
        "a",
        "an",
        "our",
        "of",
        "and",
        "from",
        "at",
        "in",
        "kunde",
        "kundenservice",
        "mitarbeiter",
        "anonymous",
        "unknown",
        "mr",
        "mrs",
        "ms",
        "miss",
        "dr",
        "sir",
        "madam",
        "herr",
        "frau",
    ]
)
# An author with one of these is an organisation, not a person.
_ORGANISATIONS = frozenset(
    [
        "team",
        "desk",
        "department",
        "dept",
        "inc",
        "ltd",
        "llc",
        "gmbh",
        "ag",
        "plc",
        "corp",
        "company",
        "bank",
        "shop",
        "store",
        "hotel",
        "helpdesk",
        "helpline",
        "hotline",
        "kundenservice",
    ]
)
# First names that are words: replaced only where they do not begin a sentence.
_ALSO_WORDS = frozenset(
    [
        "will",
        "mark",
        "may",
        "april",
        "june",
        "august",
        "grace",
        "bill",
        "hope",
        "rose",
        "art",
        "sue",
        "pat",
        "rob",
        "jack",
        "chase",
        "frank",
        "drew",
        "max",
        "faith",
        "joy",
        "dawn",
        "summer",
        "autumn",
        "iris",
        "ivy",
        "lily",
        "ruby",
        "pearl",
        "crystal",
        "amber",
        "heather",
        "rich",
        "guy",
        "dean",
        "earl",
        "duke",
        "miles",
        "wade",
        "dale",
        "cliff",
        "glen",
        "lane",
        "reed",
        "penny",
        "christian",
        "angel",
        "destiny",
        "mason",
        "carter",
        "hunter",
        "parker",
        "taylor",
        "baker",
        "cook",
        "king",
        "young",
        "long",
        "short",
        "white",
        "brown",
        "black",
        "green",
        "price",
        "page",
        "day",
        "bush",
        "wood",
        "stone",
        "ford",
        "church",
        "field",
        "case",
        "grant",
        "chance",
        "sandy",
        "sunny",
        "patience",
    ]
)
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_SENTENCE_START = re.compile(r"(?:^|[.!?:\n\"\u201c(-])\s*$")
_NEVER = re.compile(r"(?!)")


class PersonNames(msgspec.Struct):
    """``authors``: author field -> person; ``parts``: a name or its part -> person."""

    authors: dict[str, str] = {}
    parts: dict[str, str] = {}
    pattern: re.Pattern[str] = _NEVER

    def find(self, text: str) -> Iterator[Finding]:
        """Full names in any case; single parts only where they are written like a name."""
        for found in self.pattern.finditer(text):
            word = found[0]
            key = " ".join(word.casefold().split())
            single = " " not in key
            if single and not word[0].isupper():
                continue
            if single and key in _ALSO_WORDS and _SENTENCE_START.search(text[: found.start()]):
                continue
            yield Finding(found.start(), found.end(), "NAME", self.parts[key])


def person_names(authors: Iterable[str | None]) -> PersonNames:
    """Gather the people that stand in author fields; roles and organisations are left alone."""
    people: dict[str, str] = {}
    parts: dict[str, str] = {}
    for author in authors:
        if not author or PLACEHOLDER.fullmatch(author) or author in people:
            continue
        words = _WORD.findall(PLACEHOLDER.sub(" ", re.sub(r"\S*@\S*", " ", author)))
        plain = [word.casefold() for word in words]
        if not _ORGANISATIONS.isdisjoint(plain):
            continue
        own = [word for word in plain if word not in _ROLES]
        if not own:
            continue
        full = " ".join(own)
        people[author] = parts.setdefault(full, full)
        for word in own:
            if len(word) >= _SHORTEST_PART:
                parts.setdefault(word, people[author])
    if not parts:
        return PersonNames()
    longest_first = sorted(parts, key=len, reverse=True)
    either = "|".join(re.escape(part).replace(r"\ ", r"\s+") for part in longest_first)
    pattern = re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)
    return PersonNames(authors=people, parts=parts, pattern=pattern)
