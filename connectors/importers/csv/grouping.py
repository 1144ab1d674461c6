"""Groups the rows of a table into conversations, oldest turn first."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from connectors.conversation import Conversation, Role, Turn
from connectors.importers.base import (
    MAX_CONVERSATION_CHARACTERS,
    MIB,
    BadRecord,
    ImportOptions,
    Note,
    Reason,
    clean_text,
    quoted,
)
from connectors.importers.csv.headers import Field
from connectors.importers.csv.profile import TableProfile
from connectors.importers.date_order import seconds_between
from connectors.importers.timestamps import Timestamp

# Rows of one conversation need not stand together (exports sorted by time), but memory is bounded:
# when more conversations are open, the one whose last row was longest ago is closed.
MAX_OPEN_CONVERSATIONS = 20_000
_MAX_TURNS = 2_000  # more means a wrong conversation column

_Names = dict[Role, list[str]]


class _Row(NamedTuple):
    """The turns of a row, and its time; None where that is unknown."""

    turns: tuple[Turn, ...]
    timestamp: Timestamp | None


class _OpenConversation(msgspec.Struct):
    """A conversation that may get more rows."""

    conversation: Conversation
    rows: list[_Row] = []
    turns: int = 0
    characters: int = 0
    names: dict[str, Role] = {}
    places: dict[str, None] = {}


class ConversationGrouper:
    """Groups rows into conversations: ``add`` every row, then ``close``.

    Args:
        profile: What is known of the whole file; resolved.
        options: What the operator said.
    """

    def __init__(self, profile: TableProfile, options: ImportOptions) -> None:
        self._profile = profile
        self._columns = profile.columns
        self._options = options
        self._open: OrderedDict[str, _OpenConversation] = OrderedDict()
        self._closed: set[str] = set()
        self._finished = 0
        self._reversed = 0
        self._reordered = 0
        self._ordered_by_time = 0
        self._agent_opens = 0

    def add(self, line: int, fields: Sequence[str]) -> Iterator[Conversation]:
        """Take a row; yields the conversations that are complete with it. Raises BadRecord."""
        identifier = self._profile.identifier(fields)
        names = self._names(fields)
        turns = self._pair(fields, names) if self._columns.pairs else (self._turn(fields, names),)
        row = _Row(turns, self._profile.timestamp(fields))
        if identifier is None:
            alone = _OpenConversation(self._conversation(f"line-{line}", fields))
            self._append(alone, row, names, fields)
            yield self._build(alone)
            return
        if identifier in self._closed:
            detail = (
                f"a row of an earlier conversation, after {MAX_OPEN_CONVERSATIONS:,} others; "
                "sort the file by conversation"
            )
            raise BadRecord(Reason.CONVERSATION_REAPPEARS, detail)
        if identifier not in self._open:
            self._open[identifier] = _OpenConversation(self._conversation(identifier, fields))
        self._open.move_to_end(identifier)
        self._append(self._open[identifier], row, names, fields)
        if len(self._open) > MAX_OPEN_CONVERSATIONS:
            yield self._finish(next(iter(self._open)))

    def close(self) -> Iterator[Conversation]:
        """Yield the open conversations, in the order of their last rows."""
        for identifier in list(self._open):
            yield self._finish(identifier)

    def write_notes(self, note: Note) -> None:
        """Note what was assumed, for the report."""
        if self._reversed or self._reordered:
            note(
                "order",
                f"by time: of {self._finished:,} conversations the file lists {self._reversed:,} "
                f"newest first, {self._reordered:,} in another order",
            )
        elif not self._ordered_by_time and self._agent_opens == self._finished > 0:
            note(
                "order",
                "as in the file; every conversation begins with the agent and ends with the "
                "customer: if the newest turn comes first, pass --order newest-first",
            )
        if said := str(self._profile.visibility):
            note("internal notes", said)
        if self._columns.names:
            note("names", "people whom the export names are replaced where they occur")
        if self._profile.html_texts:
            note(
                "html", f"{self._profile.html_texts:,} texts were HTML; what a reader sees was kept"
            )

    def _append(
        self, into: _OpenConversation, row: _Row, names: _Names, fields: Sequence[str]
    ) -> None:
        size = sum(len(turn.text) for turn in row.turns)
        if into.turns + len(row.turns) > _MAX_TURNS:
            detail = f"more than {_MAX_TURNS:,} turns; is the column right?"
            raise BadRecord(Reason.TOO_MANY_TURNS, detail)
        if into.characters + size > MAX_CONVERSATION_CHARACTERS:
            detail = f"a conversation of more than {MAX_CONVERSATION_CHARACTERS / MIB:g} million characters"
            raise BadRecord(Reason.TOO_LARGE, detail)
        into.rows.append(row)
        into.turns += len(row.turns)
        into.characters += size
        into.places |= dict.fromkeys(self._places(fields))
        into.names |= {name: side for side, people in names.items() for name in people}

    def _finish(self, identifier: str) -> Conversation:
        self._closed.add(identifier)
        return self._build(self._open.pop(identifier))

    def _build(self, opened: _OpenConversation) -> Conversation:
        rows = self._in_order(opened.rows)
        turns = tuple(turn for row in rows for turn in row.turns)
        spoken = [turn.role for turn in turns if turn.role in _SPOKEN]
        self._finished += 1
        self._agent_opens += spoken[:1] + spoken[-1:] == [Role.AGENT, Role.CUSTOMER]
        authors = {turn.author for turn in turns if turn.role is not Role.BOT}
        names = {name: side for name, side in opened.names.items() if name not in authors}
        return msgspec.structs.replace(
            opened.conversation, turns=turns, names=names, places=tuple(opened.places)
        )

    def _in_order(self, rows: list[_Row]) -> list[_Row]:
        """Oldest first. A row without a time stays beside the one before it."""
        moments = [row.timestamp for row in rows if row.timestamp]
        steps = [seconds_between(earlier, later) for earlier, later in pairwise(moments)]
        rises, falls = any(step > 0 for step in steps), any(step < 0 for step in steps)
        self._ordered_by_time += rises or falls
        newest_first = self._profile.newest_first
        places = list(range(len(rows)))
        if newest_first or (newest_first is None and falls and not rises):
            places.reverse()
        if all(row.timestamp[1] for row in rows if row.timestamp):  # else midnight may lie between
            keys: dict[int, float] = {}
            at = float("-inf")
            for place in places:
                moment = rows[place].timestamp
                at = moment[0] if moment else at
                keys[place] = at
            places.sort(key=keys.__getitem__)
        as_they_came = list(range(len(rows)))
        if places != as_they_came:
            self._reversed += places == as_they_came[::-1]
            self._reordered += places != as_they_came[::-1]
        return [rows[place] for place in places]

    def _conversation(self, identifier: str, fields: Sequence[str]) -> Conversation:
        return Conversation(
            id=identifier,
            turns=(),
            channel=self._value(fields, "channel"),
            language=self._value(fields, "language"),
            split=self._options.split,
        )

    def _value(self, fields: Sequence[str], field: Field) -> str | None:
        at = self._columns.at.get(field)
        return None if at is None else clean_text(fields[at]) or None

    def _sent_at(self, fields: Sequence[str]) -> str | None:
        """The row's time, as written in the file."""
        day = fields[self._columns.date].strip() if self._columns.date is not None else ""
        return f"{day} {self._value(fields, 'time') or ''}".strip() or None

    def _names(self, fields: Sequence[str]) -> "_Names":
        """The people that the row names, by role: first and last names joined."""
        found: _Names = {}
        for column in self._columns.names:
            if name := column.name_in(fields):
                found.setdefault(column.side, []).append(name)
        for side, people in found.items():
            different = list(dict.fromkeys(people))
            parts = all(" " not in name for name in different)
            found[side] = [" ".join(different)] if parts else different
        return found

    def _places(self, fields: Sequence[str]) -> Iterator[str]:
        """The parts of the row's address, and the whole of it."""
        parts = [" ".join(fields[at].split()) for at in self._columns.places]
        yield from filter(None, parts)

    def _turn(self, fields: Sequence[str], names: _Names) -> Turn:
        text = self._profile.text(fields, "text")
        value = self._value(fields, "role") or ""
        role = self._profile.roles.role_of(value)
        beside = self._profile.roles.name_in(value)
        shown_to = self._profile.visibility.role_of(fields)
        if shown_to in (Role.NOTE, Role.SYSTEM) or role is None:
            role = shown_to
        if role is None:
            detail = f"who is {quoted(value)}? say it with --map 'role:VALUE=customer' or =agent"
            raise BadRecord(Reason.BAD_ROLE, detail)
        return Turn(
            role=role,
            text=text,
            author=self._value(fields, "author") or _name_of(role, names) or beside,
            sent_at=self._sent_at(fields),
        )

    def _pair(self, fields: Sequence[str], names: _Names) -> tuple[Turn, ...]:
        sent_at = self._sent_at(fields)
        asked, answered = (
            self._profile.text(fields, "question"),
            self._profile.text(fields, "answer"),
        )
        answers = self._profile.visibility.role_of(fields) or Role.AGENT
        return (
            Turn(Role.CUSTOMER, asked, _name_of(Role.CUSTOMER, names), sent_at),
            Turn(answers, answered, _name_of(Role.AGENT, names), sent_at),
        )


_SPOKEN = frozenset({Role.CUSTOMER, Role.AGENT, Role.BOT})


def _name_of(role: Role, names: _Names) -> str | None:
    """The row's name of the person with a role; agents write the notes."""
    side = {Role.NOTE: Role.AGENT}.get(role, role)
    return next(iter(names.get(side, ())), None)
