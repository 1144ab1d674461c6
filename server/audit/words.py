"""An entry of the audit log in words: who, what, and its details as lines."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from server.audit.actions import ACTIONS
from server.audit.schemas import ActorView, AuditEntryView, SubjectView
from server.db.models import ActorKind

_KINDS: dict[ActorKind | Literal["operator"], str] = {
    "person": "a person",
    "key": "an API key",
    "operator_key": "an operator's key",
    "command_line": "the command line",
    "worker": "the worker",
    "system": "the system",
    "anonymous": "somebody who has not signed in",
    "operator": "the operator of this server",
}
_CHANGES = "changes"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")


class Line(NamedTuple):
    """A line of an entry's details; without ``is_change`` it has a value only, ``new``.

    ``is_private``: that it was changed is known, and to what is not.
    """

    name: str
    new: str = ""
    old: str = ""
    is_change: bool = False
    is_private: bool = False

    @property
    def text(self) -> str:
        """The line as plain text."""
        if self.is_private:
            return f"{self.name}: changed"
        return (
            f"{self.name}: {self.old} -> {self.new}"
            if self.is_change
            else f"{self.name}: {self.new}"
        )


def who(actor: ActorView) -> str:
    """Who acted."""
    kind = _KINDS.get(actor.kind, actor.kind)
    match actor.kind:
        case "person":
            return actor.name or kind
        case "key" | "operator_key":
            return f"{kind}, {actor.name}" if actor.name else kind
        case "worker" | "system":
            return kind if actor.name in ("", actor.kind) else f"{kind}, {actor.name}"
        case _:
            return kind


def what(action: str) -> str:
    """What was done, between who did it and what it was done to."""
    return next((text for known, text in ACTIONS.items() if known == action), action)


def sentence(actor: ActorView, action: str, subject: SubjectView | None) -> str:
    """An entry as one sentence."""
    said = f"{who(actor)} {what(action)} {subject.name if subject else ''}".rstrip(" ,")
    return f"{said[:1].upper()}{said[1:]}."


def lines_of(details: Mapping[str, Any]) -> list[Line]:
    """Details, a line each: what was changed first."""
    return list(_lines(details))


def details_text(entry: AuditEntryView) -> str:
    """All details in one line, for a table."""
    return "; ".join(line.text for line in lines_of(entry.details))


def _lines(details: Mapping[str, Any]) -> Iterator[Line]:
    for change in details.get(_CHANGES, ()):
        name = _field(change["field"])
        if "new" in change:
            yield Line(name, _value(change["new"]), _value(change["old"]), is_change=True)
        else:
            yield Line(name, is_change=True, is_private=True)
    for field, value in details.items():
        if field != _CHANGES:
            yield Line(_field(field), _value(value))


def _field(name: str) -> str:
    return name.replace("_", " ").replace(".", ", ")


def _value(value: object) -> str:
    match value:
        case bool():
            said = "yes" if value else "no"
        case int():
            said = f"{value:,}"
        case list():
            said = ", ".join(_value(each) for each in value)
        case dict():
            known = {name: each for name, each in value.items() if each is not None}
            said = ", ".join(f"{_field(name)} {_value(each)}" for name, each in known.items())
        case str() if _TIME.match(value):
            said = f"{datetime.fromisoformat(value).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        case _:
            said = "" if value is None else str(value)
    return said or "none"
