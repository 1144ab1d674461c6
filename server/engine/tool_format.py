"""How a base model calls tools, read from its chat template.

A template that supports tools writes them into the prompt itself, in the form that its model was
trained on, and the engine parses calls in that form. For any other base the server writes them, in
Hermes' form (``server.chat.tools``).
"""

import re
from pathlib import Path
from typing import Any

import msgspec

HERMES = "tenantune_hermes"  # the name of our parser, a value of vLLM's --tool-call-parser
_KNOWS = re.compile(r"\btools\b")
# What a template writes around a call, and the name of the parser for that: ours, or one of vLLM's.
# The first match counts: Qwen3-Coder's template has "<tool_call>" as well.
_PARSERS = (
    ("<function=", "qwen3_coder"),
    ("<tool_call>", HERMES),
    ("[TOOL_CALLS]", "mistral"),
    ("<|python_tag|>", "llama3_json"),
    ("ipython", "llama3_json"),
)


class ToolFormat(msgspec.Struct, frozen=True, kw_only=True):
    """``native``: the template writes tools and calls. ``parser``: which of vLLM's parses calls."""

    native: bool
    parser: str
    reason: str


def tool_format(serving: Path) -> ToolFormat:
    """Return how the base whose serving weights are in this folder calls tools."""
    template = _template(serving)
    if not _KNOWS.search(template):
        return ToolFormat(
            native=False,
            parser=HERMES,
            reason="the base's chat template knows of no tools: the server writes them so",
        )
    for mark, parser in _PARSERS:
        if mark in template:
            return ToolFormat(
                native=True, parser=parser, reason=f"the base's chat template writes {mark!r}"
            )
    return ToolFormat(
        native=True,
        parser=HERMES,
        reason="a guess: the base's chat template writes calls in a form that is not known here",
    )


def _template(serving: Path) -> str:
    """A base's chat templates, all in one; empty where there is none."""
    try:
        return (serving / "chat_template.jinja").read_text()
    except FileNotFoundError:
        pass
    try:
        raw = (serving / "tokenizer_config.json").read_bytes()
        found: Any = msgspec.json.decode(raw, type=dict[str, Any]).get("chat_template", "")
    except (FileNotFoundError, msgspec.DecodeError):
        return ""
    if isinstance(found, list):  # several, by name
        return "\n".join(str(one.get("template", "")) for one in found if isinstance(one, dict))
    return str(found or "")
