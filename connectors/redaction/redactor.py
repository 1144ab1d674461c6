"""Replaces personal data by placeholders that are stable inside a conversation.

``[EMAIL_1]`` stands for the same address wherever it occurs in one conversation. Found by form:
e-mail, phone, card, IBAN, IP, URLs with secrets, and the tenant's own numbers. People's names
are found only where a turn's ``author`` tells them; other names, and postal addresses, are not
found at all.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

import msgspec

from connectors.conversation import Conversation, Role, Turn
from connectors.redaction.cards import card_details, cards
from connectors.redaction.custom_patterns import compile_patterns
from connectors.redaction.detectors import PLACEHOLDER, Span, ibans, ip_addresses
from connectors.redaction.emails import emails
from connectors.redaction.folding import fold
from connectors.redaction.links import urls
from connectors.redaction.names import PersonNames, person_names
from connectors.redaction.phones import phones

KINDS = ("URL", "EMAIL", "IBAN", "CARD", "IP", "PHONE", "NAME")
"""What is found without the tenant's own patterns; earlier ones win where two overlap."""

_INTERESTING = re.compile(
    r"[@\d/?(\[{]|::| (?:at|arroba|arobase|chiocciola|\u0441\u043e\u0431\u0430\u043a\u0430) ",
    re.IGNORECASE,
)
_MAX_ROUNDS = 20  # each round shortens what is not a placeholder; two is the usual number
_PSEUDONYM = re.compile(r"redacted-[0-9a-f]{16}")


class Redactor:
    """Safe to share between threads: all state lives inside one call."""

    def __init__(
        self,
        custom_patterns: Mapping[str, str] | None = None,
        default_region: str = "GB",
        *,
        allowlist: Iterable[str] = (),
    ) -> None:
        """Check the patterns: name -> regular expression, ``{"order": "ORD-[0-9]+"}``.

        ``default_region`` (ISO 3166) says whose national phone numbers to expect. ``keep`` holds
        what is public and should be learned: the company's own e-mail addresses, phone numbers
        and accounts, or ``@its-domain.example`` for all addresses there.

        Raises:
            BadPattern: a name or a pattern is not allowed.
        """
        self._patterns = compile_patterns(custom_patterns or {}, reserved=frozenset(KINDS))
        self._regions = (default_region.upper(),)
        self._allowlist = _Allowlist(allowlist)

    def redact(self, conversation: Conversation) -> tuple[Conversation, Counter[str]]:
        """The conversation without personal data, and how many times each kind was replaced.

        Texts, authors, labels and an identifier that is itself an address are covered. Doing it
        twice changes nothing more.
        """
        page = _PlaceholderMap(
            texts=[turn.text for turn in conversation.turns],
            placeholders=chain.from_iterable(_texts_of(conversation)),
            allowlist=self._allowlist,
        )
        names = person_names(
            (turn.author for turn in conversation.turns if turn.role is not Role.BOT),
            customers=(turn.author for turn in conversation.turns if turn.role is Role.CUSTOMER),
        )
        changed = set(range(len(page.texts)))
        for _ in range(_MAX_ROUNDS):
            # A turn is looked at again when it or the one before it (its context) has changed.
            changed = {
                at
                for at in sorted(changed | {at + 1 for at in changed})
                if at < len(page.texts) and self._redact_text(page, at, names)
            }
            if not changed:
                break
        turns = tuple(
            msgspec.structs.replace(
                turn, text=page.texts[at], author=self._author(turn, page, names)
            )
            for at, turn in enumerate(conversation.turns)
        )
        labels = {
            key: self._alone(value, page, names) for key, value in conversation.labels.items()
        }
        redacted = msgspec.structs.replace(
            conversation, id=_pseudonym(conversation.id, names), turns=turns, labels=labels
        )
        return redacted, page.counts

    def redact_text(self, text: str) -> str:
        """One text alone: numbering starts at 1."""
        page = _PlaceholderMap(texts=[], placeholders=[text], allowlist=self._allowlist)
        return self._alone(text, page, PersonNames())

    def _alone(self, text: str, page: "_PlaceholderMap", names: PersonNames) -> str:
        for _ in range(_MAX_ROUNDS):
            replaced = page.replace(text, self._find(text, "", names))
            if replaced == text:
                break
            text = replaced
        return text

    def _redact_text(self, page: "_PlaceholderMap", at: int, names: PersonNames) -> bool:
        text = page.texts[at]
        before = page.texts[at - 1] if at else ""
        page.texts[at] = page.replace(text, self._find(text, before, names))
        return page.texts[at] != text

    def _author(self, turn: Turn, page: "_PlaceholderMap", names: PersonNames) -> str | None:
        if turn.author is None:
            return None
        if turn.role is not Role.BOT and turn.author in names.authors:
            return page.placeholder("NAME", names.authors[turn.author])
        alone = self._alone(turn.author, page, names)
        # One placeholder for the whole field: a remainder would look like a name the next time.
        first = PLACEHOLDER.search(alone)
        return first[0] if first and alone != turn.author else alone

    def _find(self, text: str, before: str, names: PersonNames) -> Iterator[Span]:
        """Everything found in a text, what wins an overlap first."""
        folded = fold(text)
        for found in self._find_folded(folded.text, fold(before).text, names):
            start, end = folded.span(found.start, found.end)
            yield found._replace(start=start, end=end)
        if folded.text != text:  # a tenant's own pattern may mean what folding takes away
            yield from self._find_custom(text)

    def _find_folded(self, text: str, before: str, names: PersonNames) -> Iterator[Span]:
        if _INTERESTING.search(text):
            certain = [
                *chain.from_iterable(
                    detect(text) for detect in (urls, emails, ibans, cards, card_details)
                ),
                *self._find_custom(text),
                *ip_addresses(text),
            ]
            yield from certain
            yield from phones(_masked(text, certain), before=before, regions=self._regions)
        else:
            yield from self._find_custom(text)
        yield from names.find(text)

    def _find_custom(self, text: str) -> Iterator[Span]:
        for name, pattern in self._patterns.items():
            for found in pattern.finditer(text):
                if found[0].strip():
                    yield Span(found.start(), found.end(), name, found[0].casefold())


def _masked(text: str, findings: Iterable[Span]) -> str:
    """The text with what was found made as unreadable as its placeholder will be."""
    parts = []
    at = 0
    for found in sorted(findings):
        if found.start >= at and found.end - found.start > 1:
            parts += [text[at : found.start], "[", "_" * (found.end - found.start - 2), "]"]
            at = found.end
    return "".join([*parts, text[at:]]) if parts else text


class _PlaceholderMap:
    """One conversation's texts, and which placeholder stands for what in it."""

    def __init__(
        self, *, texts: list[str], placeholders: Iterable[str], allowlist: "_Allowlist"
    ) -> None:
        self.texts = texts
        self.counts: Counter[str] = Counter()
        self._allowlist = allowlist
        self._numbers: dict[tuple[str, str], int] = {}
        self._last: Counter[str] = Counter()
        for text in placeholders:
            for found in PLACEHOLDER.finditer(text):
                kind, _, number = found[0][1:-1].rpartition("_")
                self._last[kind] = max(self._last[kind], int(number[:9]))

    def placeholder(self, kind: str, key: str) -> str:
        """The same for the same thing, and never one that the source already had."""
        if (kind, key) not in self._numbers:
            self._last[kind] += 1
            self._numbers[kind, key] = self._last[kind]
        self.counts[kind] += 1
        return f"[{kind}_{self._numbers[kind, key]}]"

    def replace(self, text: str, findings: Iterable[Span]) -> str:
        """Put placeholders in; the first finding wins an overlap, placeholders stay."""
        taken = bytearray(len(text))  # a byte a character: 1 in a placeholder, 2 in a finding
        for fixed in PLACEHOLDER.finditer(text):
            taken[fixed.start() : fixed.end()] = b"\1" * (fixed.end() - fixed.start())
        chosen: list[Span] = []
        for found in findings:
            here = taken[found.start : found.end]
            if 2 in here or (1 in here and found.kind != "URL"):  # noqa: PLR2004
                continue
            if not self._allowlist.allows(found, text):
                chosen.append(found)
            taken[found.start : found.end] = b"\2" * (found.end - found.start)
        if not chosen:
            return text
        parts = []
        at = 0
        for found in sorted(chosen):
            parts += [text[at : found.start], found.prefix, self.placeholder(found.kind, found.key)]
            at = found.end
        return "".join([*parts, text[at:]])


class _Allowlist:
    """Public values; compared without case, blanks and the punctuation of numbers."""

    def __init__(self, values: Iterable[str]) -> None:
        plain = {"".join(value.split()).casefold() for value in values}
        self._values = plain | {_digits(value) for value in plain if "@" not in value} - {""}

    def allows(self, found: Span, text: str) -> bool:
        if not self._values:
            return False
        raw = "".join(text[found.start : found.end].split()).casefold()
        forms = {raw, found.key.casefold()}
        if found.kind == "EMAIL":
            forms.add("@" + found.key.rpartition("@")[2])
        elif found.kind != "URL":
            forms |= {_digits(raw), _digits(found.key)}
        return not self._values.isdisjoint(forms)


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _texts_of(conversation: Conversation) -> Iterator[list[str]]:
    for turn in conversation.turns:
        yield [turn.text, turn.author or ""]
    yield list(conversation.labels.values())


_ID_DETECTORS: tuple[Callable[[str], Iterator[Span]], ...] = (emails, ibans, cards)


def _pseudonym(identifier: str, names: PersonNames) -> str:
    """An identifier that is someone's address, account or name becomes a digest of itself."""
    if _PSEUDONYM.fullmatch(identifier):  # a digest may look like a card number
        return identifier
    plain = fold(identifier).text
    international = re.search(r"(?<!\d)\+\d{7,15}(?!\d)", plain)
    found = international or any(any(detect(plain)) for detect in _ID_DETECTORS)
    if not found and not any(names.find(plain)):
        return identifier
    return "redacted-" + hashlib.sha256(identifier.encode()).hexdigest()[:16]
