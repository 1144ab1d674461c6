"""Turns the engine's chunks into ours, of answers in one piece as well: those are collected.

Each payload is decoded into a struct that has no place for what only engines say, so that token
ids, hidden prompts and transfer parameters cannot pass.
"""

import secrets
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, get_args

import msgspec

from server.chat.completions import TextChoice, TextCompletion, TextLogprobs
from server.chat.logprobs import LogprobAligner
from server.chat.schemas import (
    Chunk,
    ChunkChoice,
    FinishReason,
    FunctionDelta,
    Logprobs,
    TokenLogprob,
    ToolCallDelta,
)
from server.errors import StreamBroken
from server.usage.schemas import Usage

_FINISHED: frozenset[str] = frozenset(get_args(FinishReason))
_BROKEN = frozenset({"abort", "error"})  # vLLM: somebody else ended it, or a computation failed
_chunks = msgspec.json.Decoder(Chunk)
_TextToken = tuple[str, float | None, dict[str, float] | None]
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


class StreamDecoder(Generic[C]):
    """What has been seen of one answer of so many choices, as many for each prompt.

    ``begun``: the engine has taken the request. ``tokens`` counts chunks with something in them, for
    engines that do not count.
    """

    def __init__(
        self, choices: int, decode: Callable[[bytes], _Event[C]], *, prompts: int = 1
    ) -> None:
        self._unfinished = set(range(choices))
        self._each = choices // prompts
        self._decode = decode
        self._final: Usage | None = None
        self._seen: dict[int, Usage] = {}
        self.begun = False
        self.tokens = 0

    def begin(self) -> None:
        """Note that the engine has taken the request."""
        self.begun = True

    @property
    def usage(self) -> Usage | None:
        """What the engine counted in the end; None until it says so."""
        return self._final

    @property
    def counted(self) -> Usage | None:
        """What the engine has counted so far, which it tells of each choice by itself."""
        if self.usage is not None or not self._seen:
            return self.usage
        prompts = {index // self._each: seen.prompt_tokens for index, seen in self._seen.items()}
        prompt = sum(prompts.values())
        answered = sum(seen.completion_tokens for seen in self._seen.values())
        return Usage(
            prompt_tokens=prompt, completion_tokens=answered, total_tokens=prompt + answered
        )

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
            if chunk.choices:
                self._seen[chunk.choices[0].index] = chunk.usage
            else:
                self._final = chunk.usage
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


class ChatStreamDecoder(StreamDecoder[ChunkChoice]):
    """Of a chat: the role is said once, at the beginning of each choice, and so is a call's name.

    ``calls``: the answer may make calls, so that it need not have a text. ``stops``: it may have
    been cut off at a text to stop at.
    """

    def __init__(self, choices: int, *, calls: bool = False, stops: bool = False) -> None:
        super().__init__(choices, _chunks.decode)
        self._begun: set[int] = set()
        self._calls = calls
        self._stops = stops
        self._called: dict[int, dict[int, str]] = {}
        self._visible: dict[int, LogprobAligner[TokenLogprob]] = {}

    def _adds(self, choice: ChunkChoice) -> bool:
        index, delta = choice.index, choice.delta
        if delta.content:
            self.tokens += 1
        if delta.tool_calls is not None:
            self.tokens += 1
            called = self._called.setdefault(index, {})
            delta.tool_calls = _calls(delta.tool_calls, called) or None
        if choice.logprobs is not None or self._visible:
            self._tell(choice)
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
            choice.finish_reason = _finish_reason(choice.finish_reason, called=self._ends(index))
            self._unfinished.discard(index)
        return True

    def _tell(self, choice: ChunkChoice) -> None:
        """Leave the log-probabilities of what can be seen, as soon as it can."""
        visible = self._visible.get(choice.index)
        if visible is None:
            visible = self._visible[choice.index] = LogprobAligner(strict=self._calls)
        tokens = (choice.logprobs.content if choice.logprobs else None) or ()
        seen = visible.take(
            choice.delta.content or "",
            ((token.token, token) for token in tokens),
            last=choice.finish_reason is not None,
        )
        choice.logprobs = Logprobs(content=[token for _, token in seen]) if seen else None

    def _ends(self, index: int) -> bool:
        """Whether a choice ends with a call that is complete."""
        called = self._called.get(index)
        if not called:
            return False
        arguments = called[max(called)]
        if not arguments:  # some engines say nothing where there are none
            return not self._stops
        try:
            msgspec.json.decode(arguments)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


class TextStreamDecoder(StreamDecoder[TextChoice]):
    """Of texts. Without ``generates`` only the prompts are wanted."""

    def __init__(self, choices: int, *, prompts: int = 1, generates: bool = True) -> None:
        super().__init__(choices, _texts.decode, prompts=prompts)
        self._generates = generates
        self._visible: dict[int, LogprobAligner[_TextToken]] = {}

    @property
    def usage(self) -> Usage | None:
        """What the engine counted in the end, without the token that it cannot help generating."""
        return self._asked_for(super().usage)

    @property
    def counted(self) -> Usage | None:
        """What the engine has counted so far, without that token."""
        return self._asked_for(super().counted)

    def _asked_for(self, usage: Usage | None) -> Usage | None:
        if usage is None or self._generates:
            return usage
        return msgspec.structs.replace(usage, completion_tokens=0, total_tokens=usage.prompt_tokens)

    def _adds(self, choice: TextChoice) -> bool:
        if choice.text:
            self.tokens += 1
        if choice.logprobs is not None or self._visible:
            self._tell(choice)
        if choice.finish_reason is None:
            return bool(choice.text) or choice.logprobs is not None
        choice.finish_reason = _finish_reason(choice.finish_reason)
        self._unfinished.discard(choice.index)
        return True

    def _tell(self, choice: TextChoice) -> None:
        """Leave the log-probabilities of what can be seen, as soon as it can."""
        visible = self._visible.get(choice.index)
        if visible is None:
            visible = self._visible[choice.index] = LogprobAligner(strict=False)
        told = choice.logprobs or TextLogprobs()
        tokens = zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=False)
        seen = visible.take(
            choice.text,
            ((token[0], token) for token in tokens),
            last=choice.finish_reason is not None,
        )
        choice.logprobs = None
        if seen:
            choice.logprobs = TextLogprobs(
                text_offset=[at for at, _ in seen],
                tokens=[token for _, (token, _, _) in seen],
                token_logprobs=[logprob for _, (_, logprob, _) in seen],
                top_logprobs=[top for _, (_, _, top) in seen],
            )


def call_id() -> str:
    """A new id of a call, of the form that clients know."""
    return f"call_{secrets.token_hex(12)}"


def _calls(parts: list[ToolCallDelta], called: dict[int, str]) -> list[ToolCallDelta]:
    """What a chunk adds to each call: in one piece, with our id and the name once, first.

    ``called``: the arguments of each call, so far.
    """
    merged: dict[int, ToolCallDelta] = {}
    for part in parts:
        said = part.function or FunctionDelta()
        if part.index not in called:
            if not said.name:
                continue  # a call without a name cannot be made
            called[part.index] = said.arguments or ""
            first = FunctionDelta(name=said.name, arguments=said.arguments or "")
            merged[part.index] = ToolCallDelta(
                index=part.index, id=call_id(), type="function", function=first
            )
        elif said.arguments:
            called[part.index] += said.arguments
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
