"""Which rows were meant for colleagues alone: internal notes, by a flag or by the kind of message.

A note that is taken for a reply is learnt and told to customers. So where a flag's value is not
understood the row is a note, and the report says so.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from connectors.conversation import Role
from connectors.importers.base import quoted
from connectors.importers.normalization import NO_WORDS, YES_WORDS, normalize, normalized_words
from connectors.importers.roles import NOTE_WORDS, SYSTEM_WORDS

# Headers as ``plain`` gives them. A "kind" counts only where its value is a word for a note or an
# event; anything else it says ("comment", "email") is no matter of ours.
_PRIVATE = normalized_words(
    "private isprivate internal isinternal internalnote isinternalnote note isnote privatenote "
    "isprivatenote privatecomment isprivatecomment internalcomment isinternalcomment internalonly "
    "isinternalonly staffonly agentonly agentsonly hidden ishidden hiddenfromcustomer "
    "privat istprivat intern istintern internenotiz notiz prive estprive interne noteinterne "
    "privado privada esprivado esprivada interno interna notainterna notaprivada eprivado privato "
    "prywatny prywatna wewnetrzna wewnetrzny internt приватный приватное внутренний внутреннее "
    "内部 是否内部 私有 非公開 내부 비공개"
)
_PUBLIC = normalized_words(
    "public ispublic published ispublished visible isvisible visibletocustomer customervisible "
    "isvisibletocustomer isvisibleforcustomer visibletorequester publiccomment ispubliccomment "
    "commentpublic publicreply ispublicreply jsdpublic external isexternal offentlich istoffentlich "
    "oeffentlich sichtbar extern publique estpublic estpublique publico publica espublico "
    "espublica pubblico visibile openbaar publiczny publiczna offentlig публичный публичное "
    "公开 公開 공개"
)
_KIND = normalized_words(
    "type kind parttype commenttype messagetype msgtype eventtype notetype threadtype entrytype "
    "activitytype articletype channel via source visibility audience recipients scope access messagekind "
    "messagecategory category subtype "
    "typ art nachrichtentyp nachrichtenart kommentartyp sichtbarkeit kanal typemessage "
    "typedemessage visibilite canal tipo tipodemensaje tipomensaje tipodecomentario visibilidad "
    "tipomessaggio visibilita tipodemensagem visibilidade soort berichttype zichtbaarheid rodzaj "
    "тип типсообщения видимость 类型 消息类型 可见性 種別 種類 유형 종류"
)
_NOTES = NOTE_WORDS | normalized_words(
    "agentsonly agents staffonly teamonly internalonly internalreply internalemail privatereply "
    "noteinternal emailinternal draft privee privado privada privata privato wewnetrzny prive"
)
_OPEN = normalized_words(
    "public external published visible customer customers everyone all comment reply publiccomment "
    "publicreply offentlich oeffentlich extern publique publico publica pubblico openbaar "
    "publiczny публичный 公开 公開 공개"
)
_BOT_KINDS = frozenset({"template", "automated", "autoreply", "autoresponse"})
_OSTICKET = normalized_words("m r n")
_MAX_VALUES = 64


class VisibilityColumn(NamedTuple):
    """A column that says who may read a row. ``told`` by the operator, not guessed."""

    at: int
    header: str
    meaning: Literal["private", "public", "kind"]
    given: bool = False


def visibility_columns(columns: Iterable[tuple[int, str]]) -> tuple[VisibilityColumn, ...]:
    """The columns (position, header) that may be flags, by their headers."""
    flags = []
    for at, header in columns:
        word = normalize(header)
        if word in _PRIVATE:
            flags.append(VisibilityColumn(at, header, "private"))
        elif word in _PUBLIC:
            flags.append(VisibilityColumn(at, header, "public"))
        elif word in _KIND:
            flags.append(VisibilityColumn(at, header, "kind"))
    return tuple(flags)


class VisibilityResolver:
    """Sees every row of a file; afterwards ``of`` knows who may read one."""

    def __init__(self, flags: Sequence[VisibilityColumn], given: Mapping[str, bool]) -> None:
        self._flags = tuple(flags)
        self._given = {normalize(value): private for value, private in given.items()}
        self._values: dict[VisibilityColumn, dict[str, str]] = {flag: {} for flag in flags}
        self._ignored: list[str] = []
        self.notes: Counter[str] = Counter()
        self.unclear: Counter[str] = Counter()

    def observe(self, fields: Sequence[str]) -> None:
        """Take a row."""
        for flag in self._flags:
            values = self._values[flag]
            if len(values) < _MAX_VALUES:
                values.setdefault(normalize(fields[flag.at]), fields[flag.at].strip())

    def resolve(self) -> None:
        """Leave out the columns whose values say nothing about it; call once, before ``of``."""
        kept = []
        for flag in self._flags:
            values = {word: raw for word, raw in self._values[flag].items() if word}
            known = _YES_OR_NO.union(self._given).intersection(values)
            if flag.meaning == "kind" or flag.given or known or not values:
                kept.append(flag)
            else:
                example = quoted(next(iter(values.values())))
                self._ignored.append(f"{flag.header} is no flag (such as {example})")
        self._flags = tuple(kept)

    def role_of(self, fields: Sequence[str]) -> Role | None:
        """``NOTE`` or ``SYSTEM`` where the row says so, ``BOT`` where that is the kind; else None."""
        found: Role | None = None
        for flag in self._flags:
            value = normalize(fields[flag.at])
            if self._is_private(flag, value):
                self.notes[f"{flag.header}={fields[flag.at].strip()}"] += 1
                return Role.NOTE
            if flag.meaning == "kind" and value in SYSTEM_WORDS:
                found = Role.SYSTEM
            elif flag.meaning == "kind" and value in _BOT_KINDS:
                found = found or Role.BOT
        return found

    def __str__(self) -> str:
        """What was done, for the report; empty where there was no flag."""
        parts = [f"{what} ({rows:,} rows)" for what, rows in self.notes.most_common(_SHOWN)]
        text = f"kept as notes, never trained on: {', '.join(parts)}" if parts else ""
        if self.unclear:
            value, rows = self.unclear.most_common(1)[0]
            text += (
                f"; {self.unclear.total():,} of them because the value is not understood, such as "
                f"{quoted(value)} ({rows:,}): say it with --map 'private:VALUE=no'"
            )
        return "; ".join([*([text] if text else []), *self._ignored])

    def _is_private(self, flag: VisibilityColumn, value: str) -> bool:
        said = self._said(flag, value)
        if said is None:
            self.unclear[value] += 1
        return said is not False

    def _said(self, flag: VisibilityColumn, value: str) -> bool | None:
        """Whether the row is for colleagues alone; None where the value is not understood."""
        if value in self._given:
            return self._given[value]
        if value in _NOTES or value in _OPEN:
            return value in _NOTES
        if flag.meaning == "kind":  # of osTicket's messages, responses and notes, n is a note
            return value == "n" and {word for word in self._values[flag] if word} <= _OSTICKET
        if flag.given and self._given and value not in _YES_OR_NO:  # what is said leaves the others
            return set(self._given.values()) != {True}
        if not value:
            return flag.meaning == "public" and not self._blank_is_public(flag)
        yes = {"private": True, "public": False}[flag.meaning]
        return yes if value in YES_WORDS else not yes if value in NO_WORDS else None

    def _blank_is_public(self, flag: VisibilityColumn) -> bool:
        """A public flag that only ever says no, or nothing at all, leaves what is public blank."""
        return YES_WORDS.union(_OPEN).isdisjoint(self._values[flag])


_YES_OR_NO = YES_WORDS | NO_WORDS | _NOTES | _OPEN
_SHOWN = 5
