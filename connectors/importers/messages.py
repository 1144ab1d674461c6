"""What the formats of chat messages share: ``openai``, ``sharegpt`` and, in part, ``tenantune``."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from connectors.conversation import Role, Turn
from connectors.importers.base import (
    MAX_TURNS,
    BadRecord,
    ImportOptions,
    Reason,
    clean_text,
    quoted,
)
from connectors.importers.jsonl import JsonLines, Skipped

_TOOL_ROLES = frozenset({"tool", "function", "function_call", "observation", "tool_response"})


class MessageLines(JsonLines):
    """Base of the importers whose records hold a list of messages, each with a role and a text.

    A subclass names the fields and overrides ``content`` where the text is more than a string.
    Tool messages are skipped and counted.
    """

    role_field = ""
    text_field = ""
    roles: Mapping[str, Role] = {}
    """The format's own role names, in lower case."""

    def turns(self, record: Mapping[str, Any], options: ImportOptions) -> Iterator[Turn | Skipped]:
        """Each message as a turn, or why it is skipped; raises BadRecord."""
        for position, message in messages_in(record, self.key):
            name = message.get(self.role_field)
            if is_tool(name):
                yield Skipped(Reason.TOOL_MESSAGE, f"message {position} is a {name} message")
                continue
            role = role_of(name, self.roles, options, position=position)
            if is_note(message):
                role = Role.NOTE
            for item in self.content(message, position=position):
                if isinstance(item, Skipped):
                    yield item
                else:
                    author = self.author(message)
                    weight = weight_of(message, position=position)
                    yield Turn(role=role, text=item, author=author, weight=weight)

    def content(self, message: Mapping[str, Any], *, position: int) -> Iterator[str | Skipped]:
        """The message's text, if it has one, and what of the message is skipped; raises BadRecord."""
        field = self.text_field
        yield text_or_skip(message.get(field), position=position, field=field)

    def author(self, message: Mapping[str, Any]) -> str | None:
        """The name of the person who wrote the message; None where the format has no such field."""
        return None


def messages_in(record: Mapping[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The record's messages, numbered from 1.

    Raises:
        BadRecord: the value is not a list of objects, or a list of more than ``MAX_TURNS``.
    """
    messages = record[key]
    if not isinstance(messages, list):
        raise BadRecord(Reason.BAD_RECORD, f"{key!r} is not a list")
    if len(messages) > MAX_TURNS:
        raise BadRecord(Reason.TOO_MANY_TURNS, f"{len(messages):,} messages; at most {MAX_TURNS:,}")
    for position, message in enumerate(messages, 1):
        if not isinstance(message, dict):
            raise BadRecord(Reason.BAD_RECORD, f"message {position} is not an object")
        yield position, message


def is_tool(role: object) -> bool:
    """Whether the role is a tool's; such messages are never trained on."""
    return isinstance(role, str) and role.strip().lower() in _TOOL_ROLES


def is_note(message: Mapping[str, Any]) -> bool:
    """Whether a flag says that the message is internal, for colleagues only."""
    return (
        any(
            message.get(key) is True for key in ("private", "is_private", "internal", "is_internal")
        )
        or message.get("public") is False
        or message.get("is_public") is False
    )


def role_of(
    role: object, roles: Mapping[str, Role], options: ImportOptions, *, position: int
) -> Role:
    """The role that a role's name means: by the options first, then by the format's own names.

    Raises:
        BadRecord: neither has the name.
    """
    if isinstance(role, str):
        word = role.strip().lower()
        for value, given in options.roles.items():
            if value.strip().lower() == word:
                return given
        if word in roles:
            return roles[word]
    known = ", ".join(roles)
    raise BadRecord(Reason.BAD_ROLE, f"message {position}: role {quoted(role)} is none of {known}")


def weight_of(message: Mapping[str, Any], *, position: int) -> Literal[0, 1]:
    """The message's ``weight``: 0 or 1, 1 when absent.

    Raises:
        BadRecord: it is anything else.
    """
    weight = message.get("weight")
    if weight is None or weight == 1:
        return 1
    if weight == 0:
        return 0
    detail = f"message {position}: weight must be 0 or 1, not {quoted(weight)}"
    raise BadRecord(Reason.BAD_RECORD, detail)


def text_or_skip(text: object, *, position: int, field: str) -> str | Skipped:
    """The cleaned text of a message, or why there is none.

    Raises:
        BadRecord: the field is not a string, or holds a NUL.
    """
    if not isinstance(text, str):
        raise BadRecord(Reason.BAD_RECORD, f"message {position}: {field!r} is not a string")
    cleaned = clean_text(text)
    return cleaned or Skipped(Reason.EMPTY_TEXT, f"message {position} is empty")
