"""What the scripted engine calls, in the form in which vLLM's reader for Hermes tells it.

Free to choose, it calls every function whose name is in the question; told to call some, those or
the first; and it answers with words when the question is what a call gave.
"""

import uuid
from typing import Any, NamedTuple

import msgspec

from server.engine.scripted.instance import Instance


class Call(NamedTuple):
    """A call; ``arguments`` is JSON."""

    name: str
    arguments: str

    @property
    def text(self) -> str:
        """As a model writes it."""
        return (
            f'<tool_call>\n{{"name": "{self.name}", "arguments": {self.arguments}}}\n</tool_call>'
        )

    def whole(self) -> dict[str, Any]:
        """As a part of an answer in one piece."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": _new_id(), "type": "function", "function": function}

    def deltas(self, index: int) -> list[dict[str, Any]]:
        """As parts of chunks: the name, then pieces of the arguments."""
        first = {
            "id": _new_id(),
            "type": "function",
            "index": index,
            "function": {"name": self.name},
        }
        pieces = [self.arguments[at : at + 8] for at in range(0, len(self.arguments), 8)]
        return [first, *({"index": index, "function": {"arguments": p}} for p in pieces)]


def calls_for(body: dict[str, Any]) -> list[Call]:
    """What a chat completion's answer calls."""
    tools = [tool["function"] for tool in body.get("tools") or ()]
    choice = body.get("tool_choice", "auto" if tools else "none")
    if not tools or choice == "none":
        return []
    last = body["messages"][-1]
    question = str(last.get("content") or "")
    answered = last.get("role") != "user" or question.startswith("<tool_response>")
    wanted = [] if answered else [tool for tool in tools if tool["name"] in question]
    if isinstance(choice, dict):
        wanted = [tool for tool in tools if tool["name"] == choice["function"]["name"]]
    elif choice == "required" and not wanted:
        wanted = tools[:1]
    if body.get("parallel_tool_calls") is False:
        wanted = wanted[:1]
    return [
        Call(tool["name"], _json(Instance(tool.get("parameters") or {"type": "object"}, question)))
        for tool in wanted
    ]


def json_for(body: dict[str, Any]) -> str | None:
    """The answer in the form that ``response_format`` asks for, if it asks for JSON."""
    wanted = body.get("response_format") or {}
    question = str(body["messages"][-1].get("content") or "")
    if wanted.get("type") == "json_object":
        return '{"answer": "yes"}'
    if wanted.get("type") == "json_schema":
        return _json(Instance(wanted["json_schema"].get("schema") or {}, question))
    return None


def _json(instance: Instance) -> str:
    return msgspec.json.encode(instance.value).decode()


def _new_id() -> str:
    return f"chatcmpl-tool-{uuid.uuid4().hex}"
