"""Our own format: a ``Conversation`` as JSON, one a line. What ``tenantune`` exports, it imports."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from connectors.conversation import Role, Split, Turn
from connectors.importers.base import BadRecord, ImportOptions, Reason, clean_text, quoted
from connectors.importers.jsonl import JsonLines, Skipped
from connectors.importers.messages import (
    messages_in,
    role_of,
    text_or_skip,
    weight_of,
)
from connectors.renamed import TURN, BothNamesGiven, with_new_names

_ROLES = {role.value: role for role in Role}


class Tenantune(JsonLines):
    """Keeps everything that a conversation can hold: notes, authors, times, labels, a pinned split."""

    name = "tenantune"
    description = 'JSON lines with {"id", "turns": [{"role", "text", ...}]}: our own, lossless'
    key = "turns"
    fixes_mojibake = False

    def turns(self, record: Mapping[str, Any], options: ImportOptions) -> Iterator[Turn | Skipped]:
        """Each turn, or why it is skipped; raises BadRecord."""
        for position, turn in messages_in(record, self.key):
            role = role_of(_role_in(turn, position=position), _ROLES, options, position=position)
            text = text_or_skip(turn.get("text"), position=position, field="text")
            if isinstance(text, Skipped):
                yield text
                continue
            yield Turn(
                role=role,
                text=text,
                author=_optional(turn, "author", position=position),
                sent_at=_optional(turn, "sent_at", position=position),
                weight=weight_of(turn, position=position),
            )

    def pinned(self, record: Mapping[str, Any]) -> Split | None:
        """The record's own ``split``."""
        try:
            split: Split | None = msgspec.convert(record.get("split"), Split | None)
        except msgspec.ValidationError as exc:
            detail = f"split must be train, validation or test, not {quoted(record['split'])}"
            raise BadRecord(Reason.BAD_RECORD, detail) from exc
        return split


def _role_in(turn: Mapping[str, Any], *, position: int) -> object:
    """The turn's role, under either name of the field."""
    try:
        return with_new_names(turn, TURN).get("role")
    except BothNamesGiven as exc:
        raise BadRecord(Reason.BAD_RECORD, f"message {position}: {exc}") from exc


def _optional(turn: Mapping[str, Any], field: str, *, position: int) -> str | None:
    value = turn.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadRecord(Reason.BAD_RECORD, f"message {position}: {field!r} is not a string")
    return clean_text(value) or None
