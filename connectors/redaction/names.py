"""Finds in a conversation's texts the people whom its metadata names.

The names are kept as tries of words, and of letters for scripts without blanks between words. So the
time does not grow with the number of people: each word of a text is looked up a few times.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from connectors.redaction.folding import UNSPACED, fold, folded_words
from connectors.redaction.name_words import (
    ALSO_WORDS,
    COMMON,
    GIVEN,
    MAILBOXES,
    NOT_BEFORE_NAMES,
    NOUNS,
    ORGANISATIONS,
    ORGANISATIONS_OR_SURNAMES,
    ORGANISATIONS_UNSPACED,
    PARTICLES,
    ROLES,
    ROLES_UNSPACED,
)
from connectors.redaction.placeholders import PLACEHOLDER
from connectors.redaction.recognizer import Span

_MIN_PART_LENGTH = 3
_MAX_INITIAL_LENGTH = 2  # "J. Doe", "Dr. Doe"; a longer word before a full stop ends a sentence
_MAX_FIELD_LENGTH = 300  # characters of an author field that are read, and words that are kept:
_MAX_WORDS = 12  # what is longer is no name, and would make each look-up as long
_TOKEN = re.compile(rf"[^\W\d_{UNSPACED}]+")
_COMPOUND = re.compile(rf"[^\W\d_{UNSPACED}]+(?:['-][^\W\d_{UNSPACED}]+)*")
_GLUE = re.compile(r"[ '-]|[ \n]{1,3}|\. ?| ?- ?")  # between the words of one name
_SENTENCE_START = re.compile(r"(?:^|[.!?:\n\"\u201c(-])\s*$")
_ADDRESS = re.compile(r"(\S+)@\S+\.\S+")
_SEGMENTS = re.compile(
    r"[(){}\[\]|/;:,<>\"@]|\s[-~\u2022]\s|\s(?:from|at|via|bei|chez)\s", re.IGNORECASE
)
_NUMBER_BEFORE = re.compile(r"\d[.)]? $")
_EXPANDED = str.maketrans(
    {
        "ä": "ae",
        "ö": "oe",
        "ü": "ue",
        "ø": "oe",
        "å": "aa",
        "æ": "ae",
        "œ": "oe",
        "þ": "th",
        "ð": "d",
        "ł": "l",
        "đ": "d",
        "ı": "i",
    }
)
_STRIPPED = str.maketrans(
    {"ø": "o", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d", "ł": "l", "đ": "d", "ı": "i"}
)
_TWO_VOWELS = re.compile(r"(?<![aeiou])([aou])e(?![aeiou])")
_MIN_CONTRACTED_LENGTH = 5
_RUN = re.compile(rf"[{UNSPACED}]+(?:[ \u30fb\u00b7=][{UNSPACED}]+)*")
_CYRILLIC = re.compile("[\u0400-\u04ff]{4,}")
# Folded, so "й" is "и".
_NOMINATIVE = re.compile("(?:[ыи]и|[аяьоеиы])$")
_CASE_ENDINGS = frozenset(
    folded_words(
        "а я у ю е и ы о и ь ом ем ои еи ою ею ым им ого его ому ему ов ев ев ин ам ям ах ях ами ями ые ии ыи ая яя"
        " ую юю ым ых"
    )
)
# A lower-case word after these is a name: "hi jane", "herr müller".
_GREETINGS = frozenset(
    folded_words(
        "hi hello hey dear thanks mr mrs ms miss dr herr frau monsieur madame mme señor señora signor signora hallo"
        " liebe lieber bonjour cher chère hola estimado estimada ciao gentile hej olá"
    )
)
_TITLES = frozenset(
    folded_words(
        "mr mrs ms mx miss dr prof herr herrn frau monsieur madame mme señor señora sr sra signor signora"
    )
)
_SELVES = frozenset(
    [
        ("i", "m"), ("i", "am"), ("name", "is"), ("name", "s"), ("this", "is"), ("ich", "bin"), ("name", "ist"),
        ("je", "suis"), ("m", "appelle"), ("me", "llamo"), ("mi", "chiamo"), ("ich", "heiße"), ("jag", "heter"),
        ("ik", "ben"), ("me", "chamo"),
    ]
)  # fmt: skip

_POLITE = "先生|女士|小姐|太太|老师|老師|经理|經理|さん|様|さま|氏|殿|です|と申し|고객|선생|사장|과장|대리|팀장|부장|씨|님"
_POLITE_BEHIND = re.compile(rf"[ ]?(?:{_POLITE})")
_NAME_BEHIND = re.compile(
    rf"[ ]?(?:{_POLITE}|同学|同學|医生|您好|你好|くん|君|ちゃん|でござい|군|양|입니다|이에요|예요|이라고|라고)"
)
_KHUN = fold("คุณ").text
_NAME_BEFORE = re.compile(
    rf"(?:我是|我叫|叫做?|姓名是?|名字是?|本人|亲爱的|親愛的|尊敬的|您好|你好|{_KHUN}|저는|제 이름은|이름은|私は|名前は)[ :,]?$"
)
_FAMILIAR_BEFORE = re.compile(rf"(?:^|[^{UNSPACED}\w])[小老阿]$")
_LETTER = re.compile(rf"[^\W\d_]|[{UNSPACED}]")
_KANA = re.compile("[\u3040-\u30ff]")
_HANGUL = re.compile("[\uac00-\ud7a3]")
_HAN = re.compile("[\u3400-\u9fff]")
_DOUBLE_SURNAMES = folded_words(
    "欧阳 歐陽 司马 司馬 上官 诸葛 諸葛 皇甫 令狐 司徒 慕容 남궁 황보 제갈 사공 선우 서문 독고"
)
_SKIPPED = frozenset(" \u30fb\u00b7")
_TITLES_UNSPACED = folded_words("先生 女士 小姐 さん 様 さま 님 씨 คุณ")


class _Certainty:
    """How certain it is that a form means the person."""

    FULL = 3  # always
    PART = 2  # where it is written like a name
    CALLED = 1  # only where someone is addressed by it


class _Node:
    """A node of a trie: the words (or letters) that may follow, and the person whose name ends here."""

    __slots__ = ("certainty", "next", "person")

    def __init__(self) -> None:
        self.next: dict[str, _Node] = {}
        self.person = ""
        self.certainty = 0

    def end(self, person: str, certainty: int) -> None:
        """Set the person, unless another is set with at least the same certainty."""
        if certainty > self.certainty:
            self.person, self.certainty = person, certainty


class _Match(NamedTuple):
    start: int
    end: int
    node: _Node
    words: int


class PersonNameRecognizer:
    """The people whom one conversation's author fields name. Make it with ``person_name_recognizer``.

    ``authors`` maps each author field that names a person to that person's key.
    """

    supported_entities = ("NAME",)

    def __init__(self) -> None:
        self.authors: dict[str, str] = {}
        self._words = _Node()
        self._letters = _Node()

    def analyze(self, text: str, context: str = "") -> Iterator[Span]:
        """Full names in any case; single parts only where they are written like a name.

        See ``Recognizer.analyze``.
        """
        if self._words.next:
            yield from self._find_words(text)
        if self._letters.next:
            for run in _RUN.finditer(text):
                yield from self._find_letters(text, *run.span())

    def add(self, author: str, *, customer: bool = False) -> None:
        """Add the person whom an author field names; roles and organisations are ignored."""
        if author in self.authors or PLACEHOLDER.fullmatch(author):
            return
        plain = PLACEHOLDER.sub(" ", fold(author[:_MAX_FIELD_LENGTH]).text)
        segments = [
            segment
            for segment in _SEGMENTS.split(_ADDRESS.sub(" ", plain))
            if not _is_organisation(segment, customer=customer)
        ]
        compounds = [
            compound
            for segment in segments
            for at, compound in enumerate(_COMPOUND.findall(segment))
            if not _is_role(compound, first=at == 0)
        ]
        runs = [run for segment in segments for run in _names_without_blanks(segment)]
        compounds, runs = compounds[:_MAX_WORDS], runs[:_MAX_WORDS]
        if compounds or runs:
            person = " ".join([*map(_key, compounds), *runs])
            self.authors[author] = person
            self._add_words(compounds, person)
            for run in runs:
                self._add_letters(run, person)
        elif address := _ADDRESS.search(plain):
            self._add_words(_names_of_mailbox(address[1]), "")

    def _add_words(self, compounds: list[str], person: str) -> None:
        parts = [_TOKEN.findall(compound) for compound in compounds]
        person = person or " ".join(map(_key, compounds))
        if len(parts) > 1:
            self._add_sequence([word for part in parts for word in part], person, _Certainty.FULL)
            self._add_sequence(
                [*parts[-1], *(word for part in parts[:-1] for word in part)],
                person,
                _Certainty.FULL,
            )
        if len(parts) > 2:  # noqa: PLR2004 - without middle names
            self._add_sequence([*parts[0], *parts[-1]], person, _Certainty.FULL)
        for at, part in enumerate(parts):
            first = at
            while first > 0 and _key("".join(parts[first - 1])) in PARTICLES:
                first -= 1
            if first < at and first > 0:
                self._add_sequence(
                    [word for one in parts[first : at + 1] for word in one], person, _Certainty.PART
                )
            self._add_part(part, person)

    def _add_part(self, words: list[str], person: str) -> None:
        joined = "".join(words)
        if len(words) > 1:
            self._add_sequence(words, person, _Certainty.PART)
        for word in {joined, *(words if len(words) > 1 else ())}:
            plain = word.casefold()
            if plain in COMMON or plain in PARTICLES:
                continue
            if plain in ORGANISATIONS_OR_SURNAMES or plain in ORGANISATIONS or plain in ROLES:
                self._add_sequence([word], person, _Certainty.CALLED)
            elif len(word) >= _MIN_PART_LENGTH or (len(word) > 1 and not word.isascii()):
                self._add_sequence([word], person, _Certainty.PART)

    def _add_sequence(self, words: list[str], person: str, certainty: int) -> None:
        node = self._words
        for word in words:
            forms = _forms_of_name(word)
            following = (
                next((node.next[form] for form in forms if form in node.next), None) or _Node()
            )
            for form in forms:
                node.next.setdefault(form, following)
            node = following
        node.end(person, certainty)

    def _find_words(self, text: str) -> Iterator[Span]:
        text = PLACEHOLDER.sub(lambda found: "_" * len(found[0]), text)
        tokens = [found.span() for found in _TOKEN.finditer(text)]
        pending: Span | None = None
        at = 0
        while at < len(tokens):
            match = self._longest(text, tokens, at)
            if match is None or not _is_written_like_a_name(text, tokens, at, match):
                at += 1
                continue
            at += match.words
            found = Span(match.start, match.end, "NAME", match.node.person)
            if pending and pending.key == found.key and _is_glued(text, pending, found):
                pending = pending._replace(end=found.end)
                continue
            if pending:
                yield pending
            pending = found
        if pending:
            yield pending

    def _longest(self, text: str, tokens: list[tuple[int, int]], at: int) -> _Match | None:
        node = self._words
        start, end = tokens[at]
        best = None
        for after in range(at, len(tokens)):
            if after > at and not _GLUE.fullmatch(text, end, tokens[after][0]):
                break
            if after > at and text[end] == "." and end - tokens[after - 1][0] > _MAX_INITIAL_LENGTH:
                break
            forms = _forms_of_word(text[slice(*tokens[after])])
            following = next((node.next[form] for form in forms if form in node.next), None)
            if following is None:
                break
            node, end = following, tokens[after][1]
            if node.certainty:
                best = _Match(start, end, node, after - at + 1)
        return best

    def _add_letters(self, run: str, person: str) -> None:
        parts = [part for part in re.split("[ \u30fb\u00b7=]", run) if part]
        whole = "".join(parts)
        self._add_spelling(whole, person, _Certainty.FULL if len(whole) > 1 else _Certainty.CALLED)
        if len(parts) > 1:
            self._add_spelling("".join(reversed(parts)), person, _Certainty.FULL)
            for part in parts:
                self._add_spelling(part, person, _Certainty.CALLED)
        elif _HANGUL.match(whole) or _HAN.match(whole):
            size = 2 if whole.startswith(_DOUBLE_SURNAMES) else 1
            self._add_spelling(whole[:size], person, _Certainty.CALLED)
            if len(whole) - size > 1:
                self._add_spelling(whole[size:], person, _Certainty.CALLED)
            if len(whole) > 3 and _HAN.match(whole):  # noqa: PLR2004 - Japanese: two and two
                self._add_spelling(whole[:2], person, _Certainty.CALLED)
                self._add_spelling(whole[2:], person, _Certainty.CALLED)

    def _add_spelling(self, letters: str, person: str, certainty: int) -> None:
        node = self._letters
        for letter in letters:
            node = node.next.setdefault(letter, _Node())
        node.end(person, certainty)

    def _find_letters(self, text: str, first: int, last: int) -> Iterator[Span]:
        at = first
        while at < last:
            node, place, best = self._letters, at, None
            while place < last:
                if text[place] in _SKIPPED and node is not self._letters:
                    place += 1
                    continue
                following = node.next.get(text[place])
                if following is None:
                    break
                node, place = following, place + 1
                if node.certainty and _is_name_here(text, at, place, node.certainty):
                    best = place, node.person
            if best:
                yield Span(at, best[0], "NAME", best[1])
                at = best[0]
            else:
                at += 1


def _is_glued(text: str, one: Span, other: Span) -> bool:
    """Whether two parts of a name stand directly together."""
    return text[one.end : other.start] in (" ", "-")


def person_name_recognizer(
    authors: Iterable[str | None], *, customers: Iterable[str | None] = ()
) -> PersonNameRecognizer:
    """The recognizer of the people whom author fields name.

    Args:
        authors: The author fields of a conversation.
        customers: Those of customers. A customer "Anna Bank" is a person, while an agent "Lloyds
            Bank" is an organisation.
    """
    names = PersonNameRecognizer()
    theirs = set(customers)
    for author in authors:
        if author:
            names.add(author, customer=author in theirs)
    return names


def person_key(name: str) -> str:
    """What is the same for all spellings of a name that has no author field."""
    return " ".join(map(_key, _COMPOUND.findall(name)))


def _is_role(word: str, *, first: bool) -> bool:
    if not first and word in ("An", "In"):  # "Nguyen Van An"
        return False
    return word.casefold() in ROLES


def _is_organisation(segment: str, *, customer: bool) -> bool:
    words = [_plain(word) for word in _TOKEN.findall(segment)]
    if not ORGANISATIONS.isdisjoint(words):
        return True
    if ORGANISATIONS_OR_SURNAMES.isdisjoint(words):
        return any(
            run.endswith(ORGANISATIONS_UNSPACED) or run.startswith(("株式会社", "주식회사"))
            for run in _RUN.findall(segment)
        )
    own = [word for word in words if word not in ROLES]
    surname = (
        len(own) > 1
        and own[-1] in ORGANISATIONS_OR_SURNAMES
        and own[0] not in ORGANISATIONS_OR_SURNAMES
    )
    return not (surname and (customer or own[0] in GIVEN))


def _names_without_blanks(segment: str) -> Iterator[str]:
    for run in _RUN.findall(segment):
        plain = run
        for title in _TITLES_UNSPACED:
            plain = plain.removesuffix(title).removeprefix(title)
        plain = plain.strip(" ")
        if plain and not any(role in plain for role in ROLES_UNSPACED):
            yield plain


def _names_of_mailbox(local: str) -> list[str]:
    """The words of "jane.doe+shop" that may be names; none of a shared mailbox."""
    words = [word for word in re.split(r"[^\w]|_|\d", local.partition("+")[0]) if len(word) > 1]
    plain = [_plain(word) for word in words]
    if any(word in MAILBOXES or word in ROLES or word in ORGANISATIONS for word in plain):
        return []
    if len(words) == 1 and plain[0] not in GIVEN:
        for size in range(len(plain[0]) - _MIN_PART_LENGTH, _MIN_PART_LENGTH, -1):
            if plain[0][:size] in GIVEN:
                return [words[0][:size], words[0][size:]]
    return words


def _plain(word: str) -> str:
    return word.casefold()


def _is_written_like_a_name(
    text: str, tokens: list[tuple[int, int]], at: int, match: _Match
) -> bool:
    """Whether a possible part of a name is one here."""
    if match.node.certainty == _Certainty.FULL:
        return True
    word = text[match.start : match.end]
    plain = word.casefold()
    before = [text[a:b].casefold() for a, b in tokens[max(0, at - 2) : at]]
    previous = before[-1] if before else ""
    near = at > 0 and match.start - tokens[at - 1][1] <= 2  # noqa: PLR2004 - "Mr. "
    if match.node.certainty == _Certainty.CALLED or (near and previous in _TITLES):
        return near and previous in _TITLES
    if word[0].islower():
        greeted = previous in _GREETINGS or tuple(before) in _SELVES
        return near and greeted and plain not in ALSO_WORDS
    if plain not in ALSO_WORDS:
        return True
    if _SENTENCE_START.search(text, max(0, match.start - 8), match.start):
        return False
    counted = _NUMBER_BEFORE.search(text, max(0, match.start - 4), match.start)
    return plain not in NOUNS or not (previous in NOT_BEFORE_NAMES or counted)


def _is_name_here(text: str, start: int, end: int, certainty: int) -> bool:
    """Whether letters of a script without blanks are a person's name here."""
    word = text[start:end]
    before, behind = text[start - 1 : start], text[end : end + 1]
    if _KANA.match(word) and (
        _KANA.match(before)
        or (
            _KANA.match(behind)
            and not _NAME_BEHIND.match(text, end)
            and behind not in "とはがのをにも"
        )
    ):
        return False
    starts = not (before and _LETTER.match(before))
    if certainty == _Certainty.FULL:
        hangul_inside = (
            len(word) < _MIN_PART_LENGTH and _HANGUL.match(word) and _HANGUL.match(before)
        )
        return not hangul_inside
    if _HANGUL.match(word) and not starts:
        return False
    if len(word) == 1:
        if word == "이" and behind == " ":  # "this customer"
            return False
        polite = _POLITE_BEHIND.match(text, end) is not None
        familiar = _FAMILIAR_BEFORE.search(text, max(0, start - 2), start) is not None
        return (polite and (starts or not _HANGUL.match(word))) or (
            familiar and not (behind and _LETTER.match(behind))
        )
    alone = starts and not (behind and _LETTER.match(behind))
    return bool(
        alone
        or _NAME_BEHIND.match(text, end)
        or _NAME_BEFORE.search(text, max(0, start - 8), start)
        or _FAMILIAR_BEFORE.search(text, max(0, start - 2), start)
    )


def _key(word: str) -> str:
    """Without case, accents and hyphens: "José" and "Jose" are the same."""
    plain = unicodedata.normalize("NFKD", word.casefold().translate(_STRIPPED))
    return "".join([letter for letter in plain if letter.isalpha()])


@lru_cache(maxsize=1 << 14)
def _forms_of_word(word: str) -> tuple[str, ...]:
    """The forms under which a word of a text is looked up."""
    if word.isascii():
        return (word.lower(),)
    composed = unicodedata.normalize("NFC", word.casefold())
    forms = [_key(composed), _key(composed.translate(_EXPANDED))]
    if _CYRILLIC.fullmatch(forms[0]):
        plain = forms[0]
        forms += [
            f"~{plain[: len(plain) - n]}"
            for n in (0, 1, 2, 3)
            if not n or plain[-n:] in _CASE_ENDINGS
        ]
    return tuple(dict.fromkeys(forms))


def _forms_of_name(word: str) -> tuple[str, ...]:
    """The forms under which a word of a name is stored: "Müller" also matches Mueller and Muller."""
    forms = list(_forms_of_word(word))
    contracted = _TWO_VOWELS.sub(r"\1", forms[0])
    if len(contracted) >= _MIN_CONTRACTED_LENGTH and contracted not in COMMON:
        forms.append(contracted)
    if _CYRILLIC.fullmatch(forms[0]):
        forms = [form for form in forms if not form.startswith("~")]
        forms.append("~" + _NOMINATIVE.sub("", forms[0]))
    return tuple(dict.fromkeys(forms))
