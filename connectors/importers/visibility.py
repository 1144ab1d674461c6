"""Which rows are internal notes: by a column that says who may read them, or by the kind of message.

A note that is mistaken for a reply is trained on and shown to customers. So a row whose value is
not understood counts as a note, and the report says so.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from connectors.conversation import Role
from connectors.importers.base import quoted
from connectors.importers.normalization import NO_WORDS, YES_WORDS, normalize, normalized_words
from connectors.importers.roles import NOTE_WORDS, SYSTEM_WORDS

# Headers as ``normalize`` returns them. A "kind" counts only where its value is a word for a note or
# an event; other values ("comment", "email") say nothing about visibility.
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
    """A column that says who may read a row.

    ``meaning`` is what a yes means, or that it names the kind of message. ``given`` is true where
    the operator named the column, false where it was guessed.
    """

    at: int
    header: str
    meaning: Literal["private", "public", "kind"]
    given: bool = False


def visibility_columns(columns: Iterable[tuple[int, str]]) -> tuple[VisibilityColumn, ...]:
    """Of columns (position, header), those whose header may be about visibility."""
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
    """Reads the visibility columns of a file: ``observe`` every row, ``resolve``, then ``role_of``.

    Args:
        columns: The columns to read.
        given: Values whose meaning the operator gave: value -> whether the row is internal.
    """

    def __init__(self, columns: Sequence[VisibilityColumn], given: Mapping[str, bool]) -> None:
        self._columns = tuple(columns)
        self._given = {normalize(value): private for value, private in given.items()}
        self._values: dict[VisibilityColumn, dict[str, str]] = {column: {} for column in columns}
        self._ignored: list[str] = []
        self.notes: Counter[str] = Counter()
        self.unclear: Counter[str] = Counter()

    def observe(self, fields: Sequence[str]) -> None:
        """Take a row."""
        for column in self._columns:
            values = self._values[column]
            if len(values) < _MAX_VALUES:
                values.setdefault(normalize(fields[column.at]), fields[column.at].strip())

    def resolve(self) -> None:
        """Drop the columns whose values are not about visibility; call once, before ``role_of``."""
        kept = []
        for column in self._columns:
            values = {word: raw for word, raw in self._values[column].items() if word}
            known = _YES_OR_NO.union(self._given).intersection(values)
            if column.meaning == "kind" or column.given or known or not values:
                kept.append(column)
            else:
                example = quoted(next(iter(values.values())))
                self._ignored.append(f"{column.header} is no flag (such as {example})")
        self._columns = tuple(kept)

    def role_of(self, fields: Sequence[str]) -> Role | None:
        """``NOTE``, ``SYSTEM`` or ``BOT`` where the row says so; else None."""
        found: Role | None = None
        for column in self._columns:
            value = normalize(fields[column.at])
            if self._is_private(column, value):
                self.notes[f"{column.header}={fields[column.at].strip()}"] += 1
                return Role.NOTE
            if column.meaning == "kind" and value in SYSTEM_WORDS:
                found = Role.SYSTEM
            elif column.meaning == "kind" and value in _BOT_KINDS:
                found = found or Role.BOT
        return found

    def __str__(self) -> str:
        """What was decided, for the report; empty where there was no such column."""
        parts = [f"{what} ({rows:,} rows)" for what, rows in self.notes.most_common(_SHOWN)]
        text = f"kept as notes, never trained on: {', '.join(parts)}" if parts else ""
        if self.unclear:
            value, rows = self.unclear.most_common(1)[0]
            text += (
                f"; {self.unclear.total():,} of them because the value is not understood, such as "
                f"{quoted(value)} ({rows:,}): say it with --map 'private:VALUE=no'"
            )
        return "; ".join([*([text] if text else []), *self._ignored])

    def _is_private(self, column: VisibilityColumn, value: str) -> bool:
        internal = self._internal(column, value)
        if internal is None:
            self.unclear[value] += 1
        return internal is not False

    def _internal(self, column: VisibilityColumn, value: str) -> bool | None:
        """Whether the row is internal; None where the value is not understood."""
        if value in self._given:
            return self._given[value]
        if value in _NOTES or value in _OPEN:
            return value in _NOTES
        if column.meaning == "kind":  # of osTicket's messages, responses and notes, n is a note
            return value == "n" and {word for word in self._values[column] if word} <= _OSTICKET
        # the given values leave the others
        if column.given and self._given and value not in _YES_OR_NO:
            return set(self._given.values()) != {True}
        if not value:
            return column.meaning == "public" and not self._blank_is_public(column)
        yes = {"private": True, "public": False}[column.meaning]
        return yes if value in YES_WORDS else not yes if value in NO_WORDS else None

    def _blank_is_public(self, column: VisibilityColumn) -> bool:
        """Whether blank means public: the column never says yes, only no or nothing."""
        return YES_WORDS.union(_OPEN).isdisjoint(self._values[column])


_YES_OR_NO = YES_WORDS | NO_WORDS | _NOTES | _OPEN
_SHOWN = 5
