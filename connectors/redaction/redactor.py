"""Replaces personal data by placeholders that are stable inside a conversation.

``[EMAIL_1]`` stands for the same address wherever it occurs in one conversation. Found by form:
e-mail, phone, card, IBAN, IP, URLs with secrets, postal addresses, and the tenant's own patterns and
terms. People's names are found where a turn's ``author``, a greeting, a signature or an introduction
has them, and then wherever the conversation repeats them. Other names are not found unless a
``Recognizer`` for them is given. What may be personal data and is not certain stays:
``Redactor.uncertain`` lists it for a person to decide.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from connectors.conversation import Conversation, Role, Turn
from connectors.redaction.addresses import AddressRecognizer, PlaceRecognizer
from connectors.redaction.allowlist import Allowlist
from connectors.redaction.cards import CardRecognizer
from connectors.redaction.custom_patterns import CustomPatternRecognizer
from connectors.redaction.emails import EmailRecognizer
from connectors.redaction.folding import fold
from connectors.redaction.ibans import IbanRecognizer
from connectors.redaction.ip_addresses import IpAddressRecognizer
from connectors.redaction.links import UrlRecognizer
from connectors.redaction.names import PersonNameRecognizer, person_name_recognizer
from connectors.redaction.phones import PhoneRecognizer
from connectors.redaction.placeholders import PLACEHOLDER, PlaceholderMap
from connectors.redaction.recognizer import Recognizer, Span
from connectors.redaction.salutations import SalutationRecognizer
from connectors.redaction.terms import TermRecognizer

ENTITY_TYPES = ("URL", "EMAIL", "IBAN", "CARD", "IP", "PHONE", "NAME", "ADDRESS", "TERM")
"""What is found without the tenant's own patterns; earlier ones win where two overlap."""

_BY_FORM: tuple[Recognizer, ...] = (
    UrlRecognizer(),
    EmailRecognizer(),
    IbanRecognizer(),
    CardRecognizer(),
)
_ADDRESSES = AddressRecognizer()
_SALUTATIONS = SalutationRecognizer()
_IDENTIFYING_RECOGNIZERS = (EmailRecognizer(), IbanRecognizer(), CardRecognizer())
_IDENTIFYING = frozenset({"EMAIL", "IBAN", "CARD"})
# A text without any of these has nothing that is known by its form.
_MAY_MATCH = re.compile(
    r"[@\d/?(\[{]|::| (?:at|arroba|arobase|chiocciola|\u0441\u043e\u0431\u0430\u043a\u0430) ",
    re.IGNORECASE,
)
_MAX_ROUNDS = 20  # each round shortens what is not a placeholder; two is the usual number
_PSEUDONYM = re.compile(r"redacted-[0-9a-f]{16}")


IN_A_REPLY = "address in a reply"
"""The rule of an address that only the company tells: mostly its own."""

_REPLIES = (Role.AGENT, Role.BOT)


class UncertainHit(NamedTuple):
    """``text``, at ``start`` to ``end`` of a turn, may be personal data: ``rule`` says why."""

    turn: int
    start: int
    end: int
    entity_type: str
    rule: str
    text: str


class RedactionRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a ``Redactor`` is made of, as it goes to another process; each field is its argument."""

    custom_patterns: dict[str, str]
    default_region: str
    allowlist: list[str]
    terms: list[str]

    def redactor(self) -> "Redactor":
        """The redactor of these rules.

        Raises:
            BadPattern: the name of a pattern, or the pattern itself, is not allowed.
        """
        return Redactor(
            self.custom_patterns, self.default_region, allowlist=self.allowlist, terms=self.terms
        )


class Redactor:
    """Replaces personal data in conversations.

    Safe to share between threads: all state lives inside one call. For example::

        redactor = Redactor({"order": "ORD-[0-9]+"}, "DE", allowlist=["@lamps.example"])
        redactor.redact_text("ORD-77 never came, write to vera@post.example")
        # '[ORDER_1] never came, write to [EMAIL_1]'
        redacted, counts = redactor.redact(conversation)  # counts: Counter({"EMAIL": 2, "NAME": 1})

    Args:
        custom_patterns: The tenant's own patterns, name -> regular expression.
        default_region: ISO 3166 code of the country whose national phone numbers are expected.
        allowlist: What is public and should be learned: the company's own e-mail addresses, phone
            numbers and accounts, or ``@its-domain.example`` for all addresses there; and words that
            are no personal data, whatever they look like.
        terms: Words and phrases that are always replaced, in any case.
        recognizers: Further recognizers, as for names and places. Their spans come last: those of
            this package win an overlap.

    Raises:
        BadPattern: the name of a pattern, or the pattern itself, is not allowed.
    """

    def __init__(
        self,
        custom_patterns: Mapping[str, str] | None = None,
        default_region: str = "GB",
        *,
        allowlist: Iterable[str] = (),
        terms: Iterable[str] = (),
        recognizers: Sequence[Recognizer] = (),
    ) -> None:
        reserved = {*ENTITY_TYPES, *chain.from_iterable(r.supported_entities for r in recognizers)}
        self._custom = CustomPatternRecognizer(custom_patterns or {}, reserved=frozenset(reserved))
        self._by_form = (*_BY_FORM, self._custom, IpAddressRecognizer())
        self._phones = PhoneRecognizer(default_region.upper())
        self._terms = TermRecognizer(terms)
        self._further = tuple(recognizers)
        self._allowlist = Allowlist(allowlist)

    def redact(self, conversation: Conversation) -> tuple[Conversation, Counter[str]]:
        """The conversation without personal data, and how many times each type was replaced.

        Texts, authors, labels and an identifier that is itself an address are covered. To redact
        the result again changes nothing.
        """
        texts = [turn.text for turn in conversation.turns]
        placeholders = PlaceholderMap(_texts_of(conversation), self._allowlist)
        names = person_name_recognizer(
            (turn.author for turn in conversation.turns if turn.role is not Role.BOT),
            customers=(turn.author for turn in conversation.turns if turn.role is Role.CUSTOMER),
        )
        self._add_named(names, texts)
        places = PlaceRecognizer([*conversation.places, *_addresses_told(conversation)])
        replies = {at for at, turn in enumerate(conversation.turns) if turn.role in _REPLIES}
        changed = set(range(len(texts)))
        for _ in range(_MAX_ROUNDS):
            # A turn is looked at again when it or the one before it (its context) has changed.
            changed = {
                at
                for at in sorted(changed | {at + 1 for at in changed})
                if at < len(texts)
                and self._redact_turn(texts, at, placeholders, names, places, reply=at in replies)
            }
            if not changed:
                break
        turns = tuple(
            msgspec.structs.replace(
                turn, text=texts[at], author=self._author(turn, placeholders, names)
            )
            for at, turn in enumerate(conversation.turns)
        )
        labels = {
            key: self._redact_alone(value, placeholders, names, places)
            for key, value in conversation.labels.items()
        }
        redacted = msgspec.structs.replace(
            conversation,
            id=_pseudonym(conversation.id, names),
            turns=turns,
            labels=labels,
            places=(),
        )
        return redacted, placeholders.counts

    def uncertain(self, conversation: Conversation) -> list[UncertainHit]:
        """What may be personal data in a redacted conversation, for a person to decide."""
        found: list[UncertainHit] = []
        texts = [turn.text for turn in conversation.turns]
        for at, text in enumerate(texts):
            folded = fold(text)
            context = fold(texts[at - 1]).text if at else ""
            taken = [match.span() for match in PLACEHOLDER.finditer(text)]
            reply = conversation.turns[at].role in _REPLIES
            for span in self._by_wording(folded.text, context):
                doubtful = not span.certain or (reply and span.entity_type == "ADDRESS")
                start, end = folded.span(span.start, span.end)
                here = span._replace(start=start, end=end)
                if (
                    not doubtful
                    or any(start < b and a < end for a, b in taken)
                    or self._allowlist.allows(here, text)
                ):
                    continue
                taken.append((start, end))
                rule = IN_A_REPLY if span.certain else span.rule
                found.append(UncertainHit(at, start, end, span.entity_type, rule, text[start:end]))
        return found

    def replace(
        self, conversation: Conversation, hits: Iterable[tuple[UncertainHit, str]]
    ) -> Conversation:
        """The conversation with these hits replaced, each by a placeholder of the given type."""
        spans: dict[int, list[Span]] = {}
        for hit, entity_type in hits:
            key = " ".join(hit.text.split()).casefold()
            spans.setdefault(hit.turn, []).append(Span(hit.start, hit.end, entity_type, key))
        placeholders = PlaceholderMap(_texts_of(conversation), Allowlist(()))
        turns = [
            msgspec.structs.replace(turn, text=placeholders.replace(turn.text, spans.get(at, ())))
            for at, turn in enumerate(conversation.turns)
        ]
        return msgspec.structs.replace(conversation, turns=tuple(turns))

    def _by_wording(self, text: str, context: str) -> Iterator[Span]:
        yield from _ADDRESSES.analyze(text, context)
        yield from _SALUTATIONS.analyze(text, context)

    def _add_named(self, names: PersonNameRecognizer, texts: Sequence[str]) -> None:
        """Add the people whom greetings and signatures name, the longest names first."""
        found: set[str] = set()
        context = ""
        for text in texts:
            folded = fold(text).text
            for span in _SALUTATIONS.analyze(folded, context):
                if span.certain and not self._allowlist.allows(span, folded):
                    found.add(folded[span.start : span.end])
            context = folded
        for name in sorted(found, key=lambda name: (-len(name.split()), name)):
            names.add(name)

    def redact_text(self, text: str) -> str:
        """One text that belongs to no conversation: numbering starts at 1."""
        placeholders = PlaceholderMap([text], self._allowlist)
        return self._redact_alone(text, placeholders, PersonNameRecognizer(), PlaceRecognizer(()))

    def _redact_alone(
        self,
        text: str,
        placeholders: PlaceholderMap,
        names: PersonNameRecognizer,
        places: PlaceRecognizer,
    ) -> str:
        for _ in range(_MAX_ROUNDS):
            replaced = placeholders.replace(text, self._find(text, "", names, places))
            if replaced == text:
                break
            text = replaced
        return text

    def _redact_turn(
        self,
        texts: list[str],
        at: int,
        placeholders: PlaceholderMap,
        names: PersonNameRecognizer,
        places: PlaceRecognizer,
        *,
        reply: bool,
    ) -> bool:
        """Replace what is found in one text; whether that changed it."""
        text = texts[at]
        context = texts[at - 1] if at else ""
        spans = self._find(text, context, names, places, reply=reply)
        texts[at] = placeholders.replace(text, spans)
        return texts[at] != text

    def _author(
        self, turn: Turn, placeholders: PlaceholderMap, names: PersonNameRecognizer
    ) -> str | None:
        if turn.author is None:
            return None
        if turn.role is not Role.BOT and turn.author in names.authors:
            return placeholders.placeholder("NAME", names.authors[turn.author])
        alone = self._redact_alone(turn.author, placeholders, names, PlaceRecognizer(()))
        # One placeholder for the whole field: a remainder would look like a name the next time.
        first = PLACEHOLDER.search(alone)
        return first[0] if first and alone != turn.author else alone

    def _find(
        self,
        text: str,
        context: str,
        names: PersonNameRecognizer,
        places: PlaceRecognizer,
        *,
        reply: bool = False,
    ) -> Iterator[Span]:
        """All spans of a text, what wins an overlap first."""
        folded = fold(text)
        for span in self._find_folded(folded.text, fold(context).text, names, places, reply=reply):
            start, end = folded.span(span.start, span.end)
            yield span._replace(start=start, end=end)
        if folded.text != text:  # a tenant's own pattern may match what folding takes away
            yield from self._custom.analyze(text)

    def _find_folded(
        self,
        text: str,
        context: str,
        names: PersonNameRecognizer,
        places: PlaceRecognizer,
        *,
        reply: bool,
    ) -> Iterator[Span]:
        yield from self._terms.analyze(text)
        if _MAY_MATCH.search(text):
            found: list[Span] = []
            for recognizer in self._by_form:
                found += recognizer.analyze(text, context)
            yield from found
            yield from self._phones.analyze(_masked(text, found), context)
        else:
            yield from self._custom.analyze(text)
        yield from places.analyze(text)
        if not reply:  # a company tells its own; a customer's is known from what the customer says
            yield from (span for span in _ADDRESSES.analyze(text) if span.certain)
        yield from names.analyze(text)
        yield from (span for span in _SALUTATIONS.analyze(text, context) if span.certain)
        for recognizer in self._further:
            yield from recognizer.analyze(text, context)


def _masked(text: str, spans: Iterable[Span]) -> str:
    """The text with what was found made as unreadable as its placeholder will be."""
    parts = []
    at = 0
    for span in sorted(spans):
        if span.start >= at and span.end - span.start > 1:
            parts += [text[at : span.start], "[", "_" * (span.end - span.start - 2), "]"]
            at = span.end
    return "".join([*parts, text[at:]]) if parts else text


def _addresses_told(conversation: Conversation) -> Iterator[str]:
    """The addresses that others than the company tell."""
    for turn in conversation.turns:
        if turn.role not in _REPLIES:
            text = fold(turn.text).text
            for span in _ADDRESSES.analyze(text):
                if span.certain:
                    yield text[span.start : span.end]


def _texts_of(conversation: Conversation) -> Iterator[str]:
    for turn in conversation.turns:
        yield turn.text
        yield turn.author or ""
    yield from conversation.labels.values()


def _pseudonym(identifier: str, names: PersonNameRecognizer) -> str:
    """An identifier that is someone's address, account or name becomes a digest of itself."""
    if _PSEUDONYM.fullmatch(identifier):  # a digest may look like a card number
        return identifier
    plain = fold(identifier).text
    international = re.search(r"(?<!\d)\+\d{7,15}(?!\d)", plain)
    found = international or any(
        span.entity_type in _IDENTIFYING
        for recognizer in _IDENTIFYING_RECOGNIZERS
        for span in recognizer.analyze(plain)
    )
    if not found and not any(names.analyze(plain)):
        return identifier
    return "redacted-" + hashlib.sha256(identifier.encode()).hexdigest()[:16]
