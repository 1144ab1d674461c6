"""Which tools the fake engine calls, in the form that vLLM's parser for Hermes returns.

With ``tool_choice`` "auto" it calls every function whose name is in the question. With "required"
it calls those, or else the first; with a named function, that one. It answers with words when the
last message is a tool's result.
"""

import re
import uuid
from typing import Any, NamedTuple

import msgspec

from server.engine.backends.fake.instance import Instance

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_NAME = re.compile(r'"name": "([^"]+)"')


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


class CallParser:
    """Parses calls from a text while it is written, as vLLM's parser for Hermes does."""

    def __init__(self) -> None:
        self._text = ""
        self._sent = 0  # characters of the content that were sent
        self._sent_arguments: list[str] = []  # of each call, as far as they were sent

    def parse(self, piece: str) -> dict[str, Any]:
        """Return what a piece adds to the answer: content, parts of calls, or nothing yet."""
        self._text += piece
        content, *calls = self._text.split(_OPEN)
        if not calls:
            content = content[: len(content) - _begun(content, _OPEN)]
        delta: dict[str, Any] = {}
        if len(content) > self._sent:
            delta["content"] = content[self._sent :]
            self._sent = len(content)
        parts = [part for index, call in enumerate(calls) for part in self._parts(index, call)]
        return {**delta, "tool_calls": parts} if parts else delta

    def _parts(self, index: int, text: str) -> list[dict[str, Any]]:
        text, closed, _ = text.partition(_CLOSE)
        text = text[: len(text) - _begun(text, _CLOSE)].strip()
        named = _NAME.search(text)
        if named is None:
            return []
        parts: list[dict[str, Any]] = []
        if index == len(self._sent_arguments):
            self._sent_arguments.append("")
            part = {"id": _new_id(), "type": "function", "index": index}
            parts.append({**part, "function": {"name": named[1]}})
        arguments = text[named.end() :].partition('"arguments": ')[2]
        if closed or _is_json(text):
            arguments = arguments.removesuffix("}")
        if added := arguments[len(self._sent_arguments[index]) :]:
            self._sent_arguments[index] = arguments
            parts.append({"index": index, "function": {"arguments": added}})
        return parts


def calls_for(body: dict[str, Any]) -> list[Call]:
    """Return the calls in a chat completion's answer."""
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
    """Return the answer that ``response_format`` asks for; None if it does not ask for JSON."""
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


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _begun(text: str, tag: str) -> int:
    """The length of the longest start of a tag that a text ends with."""
    return max((size for size in range(1, len(tag)) if text.endswith(tag[:size])), default=0)
