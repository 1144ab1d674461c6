"""OpenAI's fine-tuning format: ``{"messages": [{"role", "content", "weight"?}]}`` a line."""

from collections.abc import Iterator, Mapping
from typing import Any

from connectors.conversation import Role, Turn
from connectors.importers.base import BadRecord, ImportOptions, Reason, clean_text
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
    "user": Role.CUSTOMER,
    "assistant": Role.AGENT,
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
}


class OpenAIMessages(JsonLines):
    """Tool calls and their results are left out and counted; ``name`` becomes the author."""

    name = "openai"
    description = 'JSON lines with {"messages": [{"role", "content"}]}, as OpenAI fine-tuning takes'
    key = "messages"

    def turns(self, record: Mapping[str, Any], options: ImportOptions) -> Iterator[Turn | Skipped]:
        """Each message, a turn or the reason why not."""
        for position, message in messages_in(record, self.key):
            role = message.get("role")
            if is_tool(role):
                yield Skipped(Reason.TOOL_MESSAGE, f"message {position} is a {role} message")
                continue
            speaker = speaker_of(role, _ROLES, options, position=position)
            if is_note(message):
                speaker = Role.NOTE
            content = message.get("content")
            if content is None and (message.get("tool_calls") or message.get("function_call")):
                yield Skipped(Reason.TOOL_MESSAGE, f"message {position} only calls a tool")
                continue
            if isinstance(content, list):
                content, other = _text_parts(content, position=position)
                if other:
                    detail = f"message {position} has {other} part(s) that are not text"
                    yield Skipped(Reason.NOT_TEXT, detail)
                    if not content.strip():
                        continue
            if content is None:
                content = ""
            text = text_or_skip(content, position=position, field="content")
            if isinstance(text, Skipped):
                yield text
                continue
            author = message.get("name")
            yield Turn(
                speaker=speaker,
                text=text,
                author=clean_text(author) or None if isinstance(author, str) else None,
                weight=weight_of(message, position=position),
            )


def _text_parts(parts: list[Any], *, position: int) -> tuple[str, int]:
    """The text parts joined by newlines, and how many parts are something else."""
    texts = []
    other = 0
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type") in ("text", "input_text", "output_text"):
            if not isinstance(part.get("text"), str):
                detail = f"message {position}: a text part without text"
                raise BadRecord(Reason.BAD_RECORD, detail)
            texts.append(part["text"])
        else:
            other += 1
    return "\n".join(texts), other
