"""OpenAI's fine-tuning format: ``{"messages": [{"role", "content", "weight"?}]}`` a line."""

from collections.abc import Iterator, Mapping
from typing import Any

from connectors.conversation import Role
from connectors.importers.base import BadRecord, Reason, clean_text
from connectors.importers.jsonl import Skipped
from connectors.importers.messages import MessageLines, text_or_skip

_ROLES = {
    "user": Role.CUSTOMER,
    "assistant": Role.AGENT,
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
}


class OpenAIMessages(MessageLines):
    """Tool calls and their results are skipped and counted; ``name`` becomes the author."""

    name = "openai"
    description = 'JSON lines with {"messages": [{"role", "content"}]}, as OpenAI fine-tuning takes'
    key = "messages"
    role_field = "role"
    text_field = "content"
    roles = _ROLES

    def content(self, message: Mapping[str, Any], *, position: int) -> Iterator[str | Skipped]:
        """The text; of a list of parts, the text parts joined."""
        content = message.get("content")
        if content is None and (message.get("tool_calls") or message.get("function_call")):
            yield Skipped(Reason.TOOL_MESSAGE, f"message {position} only calls a tool")
            return
        if isinstance(content, list):
            content, other = _text_parts(content, position=position)
            if other:
                detail = f"message {position} has {other} part(s) that are not text"
                yield Skipped(Reason.NOT_TEXT, detail)
                if not content.strip():
                    return
        yield text_or_skip("" if content is None else content, position=position, field="content")

    def author(self, message: Mapping[str, Any]) -> str | None:
        """The message's ``name``."""
        name = message.get("name")
        return clean_text(name) or None if isinstance(name, str) else None


def _text_parts(parts: list[Any], *, position: int) -> tuple[str, int]:
    """The text parts joined by newlines, and the number of other parts."""
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
