"""ShareGPT: ``{"conversations": [{"from": "human", "value": "..."}]}`` a line."""

from collections.abc import Iterator, Mapping
from typing import Any

from connectors.conversation import Role, Turn
from connectors.importers.base import ImportOptions, Reason
from connectors.importers.jsonl import (
    JsonLines,
    Skipped,
    is_note,
    is_tool,
    messages_in,
    speaker_of,
    text_or_skip,
    weight_of,
)

_ROLES = {
    "human": Role.CUSTOMER,
    "user": Role.CUSTOMER,
    "gpt": Role.AGENT,
    "assistant": Role.AGENT,
    "chatgpt": Role.AGENT,
    "model": Role.AGENT,
    "system": Role.SYSTEM,
}


class ShareGpt(JsonLines):
    """Tool messages are left out and counted."""

    name = "sharegpt"
    description = 'JSON lines with {"conversations": [{"from": "human|gpt|system", "value"}]}'
    key = "conversations"

    def turns(self, record: Mapping[str, Any], options: ImportOptions) -> Iterator[Turn | Skipped]:
        """Each message, a turn or the reason why not."""
        for position, message in messages_in(record, self.key):
            role = message.get("from")
            if is_tool(role):
                yield Skipped(Reason.TOOL_MESSAGE, f"message {position} is a {role} message")
                continue
            speaker = speaker_of(role, _ROLES, options, position=position)
            if is_note(message):
                speaker = Role.NOTE
            text = text_or_skip(message.get("value"), position=position, field="value")
            if isinstance(text, Skipped):
                yield text
            else:
                weight = weight_of(message, position=position)
                yield Turn(speaker=speaker, text=text, weight=weight)
