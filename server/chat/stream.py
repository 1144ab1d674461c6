"""Turns the engine's chunks into ours.

Each payload is decoded into a struct that has no place for what only engines say, so that token
ids, hidden prompts and transfer parameters cannot pass.
"""

import secrets
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, get_args

import msgspec

from server.chat.schemas import (
    AnswerMessage,
    Chunk,
    ChunkChoice,
    Completion,
    FinishReason,
    FunctionDelta,
    ToolCallDelta,
    Usage,
)
from server.chat.texts import TextChoice, TextCompletion
from server.errors import StreamBroken

_FINISHED: frozenset[str] = frozenset(get_args(FinishReason))
_BROKEN = frozenset({"abort", "error"})  # vLLM: somebody else ended it, or a computation failed
_CALL = "<tool_call>"  # what the engine gives back of a call that was cut off
_chunks = msgspec.json.Decoder(Chunk)
_completions = msgspec.json.Decoder(Completion)
_texts = msgspec.json.Decoder(TextCompletion)


class _Choice(Protocol):
    @property
    def index(self) -> int: ...


C = TypeVar("C", bound=_Choice)


class _Event(Protocol[C]):
    @property
    def choices(self) -> list[C]: ...
    @property
    def usage(self) -> Usage | None: ...


class AnyProgress(Generic[C]):
    """What has been seen of one answer, streamed or not, of so many choices.

    ``usage`` is None until the engine says it; ``tokens`` counts chunks with something in them
    until then.
    """

    def __init__(self, choices: int, decode: Callable[[bytes], _Event[C]]) -> None:
        self._unfinished = set(range(choices))
        self._decode = decode
        self.usage: Usage | None = None
        self.tokens = 0

    def take(self, payload: bytes) -> list[C]:
        """What a payload adds to the answer: maybe nothing.

        Each choice finishes once.

        Raises:
            StreamBroken: the payload makes no sense, or says that the engine gave up.
        """
        try:
            chunk = self._decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise StreamBroken("the engine sent a chunk that makes no sense") from exc
        if chunk.usage is not None:
            self.usage = chunk.usage
        return [
            choice
            for choice in chunk.choices
            if choice.index in self._unfinished and self._adds(choice)
        ]

    def finish(self) -> None:
        """Check that nothing is missing.

        Raises:
            StreamBroken: a choice has no end.
        """
        if self._unfinished:
            raise StreamBroken("the engine ended the answer before it was complete")

    def _adds(self, choice: C) -> bool:
        """Whether there is something in a choice; brings it into form."""
        raise NotImplementedError


class Progress(AnyProgress[ChunkChoice]):
    """Of a chat: the role is said once, at the beginning of each choice, and so is a call's name.

    ``calls``: the answer may make calls, so that it need not have a text.
    """

    def __init__(self, choices: int, *, calls: bool = False) -> None:
        super().__init__(choices, _chunks.decode)
        self._begun: set[int] = set()
        self._calls = calls
        self._called: dict[int, set[int]] = {}

    def _adds(self, choice: ChunkChoice) -> bool:
        index, delta = choice.index, choice.delta
        if delta.content:
            self.tokens += 1
        if delta.tool_calls is not None:
            self.tokens += 1
            called = self._called.setdefault(index, set())
            delta.tool_calls = _calls(delta.tool_calls, called) or None
        if index in self._begun:
            delta.role = None
            if choice.finish_reason is None:
                return (
                    bool(delta.content)
                    or delta.tool_calls is not None
                    or choice.logprobs is not None
                )
        else:
            self._begun.add(index)
            delta.role = "assistant"
            if not self._calls:
                delta.content = delta.content or ""
        if self._calls:
            delta.content = delta.content or None
        if choice.finish_reason is not None:
            called_any = bool(self._called.get(index))
            choice.finish_reason = _finish_reason(choice.finish_reason, called=called_any)
            self._unfinished.discard(index)
        return True


class TextProgress(AnyProgress[TextChoice]):
    """Of texts."""

    def __init__(self, choices: int) -> None:
        super().__init__(choices, _texts.decode)

    def _adds(self, choice: TextChoice) -> bool:
        if choice.text:
            self.tokens += 1
        if choice.finish_reason is None:
            return bool(choice.text) or choice.logprobs is not None
        choice.finish_reason = _finish_reason(choice.finish_reason)
        self._unfinished.discard(choice.index)
        return True


def read_completion(data: bytes, *, calls: bool = False) -> Completion:
    """Read an answer that came in one piece; ``calls``: it may make some.

    Raises:
        StreamBroken: it makes no sense, or says that the engine gave up.
    """
    try:
        answer = _completions.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise StreamBroken("the engine's answer makes no sense") from exc
    for choice in answer.choices:
        called = _settle_calls(choice.message)
        if calls and not called:
            choice.message.content = (choice.message.content or "").partition(_CALL)[0] or None
        choice.finish_reason = _finish_reason(choice.finish_reason, called=called)
    return answer


def read_texts(data: bytes) -> TextCompletion:
    """Read texts that came in one piece; raises as ``read_completion``."""
    try:
        answer = _texts.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise StreamBroken("the engine's answer makes no sense") from exc
    for choice in answer.choices:
        choice.finish_reason = _finish_reason(choice.finish_reason or "stop")
    return answer


def call_id() -> str:
    """A new id of a call, of the form that clients know."""
    return f"call_{secrets.token_hex(12)}"


def _settle_calls(message: AnswerMessage) -> bool:
    """Give calls our ids, and take away what is empty; whether there are any."""
    if not message.tool_calls:
        message.tool_calls = msgspec.UNSET
        return False
    message.tool_calls = [
        msgspec.structs.replace(call, id=call_id()) for call in message.tool_calls
    ]
    message.content = message.content or None
    return True


def _calls(parts: list[ToolCallDelta], called: set[int]) -> list[ToolCallDelta]:
    """What a chunk adds to each call: in one piece, with our id and the name once, first."""
    merged: dict[int, ToolCallDelta] = {}
    for part in parts:
        said = part.function or FunctionDelta()
        if part.index not in called:
            if not said.name:
                continue  # a call without a name cannot be made
            called.add(part.index)
            first = FunctionDelta(name=said.name, arguments=said.arguments or "")
            merged[part.index] = ToolCallDelta(
                index=part.index, id=call_id(), type="function", function=first
            )
        elif said.arguments:
            known = merged.get(part.index)
            if known is not None and known.function is not None:
                known.function.arguments = (known.function.arguments or "") + said.arguments
            else:
                more = FunctionDelta(arguments=said.arguments)
                merged[part.index] = ToolCallDelta(index=part.index, function=more)
    return list(merged.values())


def _finish_reason(reason: str, *, called: bool = False) -> str:
    """OpenAI's word for why an answer ends.

    vLLM says "stop" for a call that it was told to make, and "tool_calls" where it was told to make
    one and did not.
    """
    if reason in _BROKEN:
        raise StreamBroken("the engine gave up in the middle of the answer")
    if reason == "length":
        return reason
    if called:
        return "tool_calls"
    return reason if reason in _FINISHED and reason != "tool_calls" else "stop"
