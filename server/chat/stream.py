"""Decodes the engine's stream of chunks; answers in one piece are collected from it too.

Each payload is decoded into a struct without the fields that only engines have, so that token ids,
hidden prompts and transfer parameters cannot pass.
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
_BROKEN = frozenset({"abort", "error"})  # vLLM: it was ended from outside, or a computation failed
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
    """Decodes the stream of one request, and counts what has come of it.

    ``begun``: the engine has taken the request. ``tokens``: chunks that were not empty, for engines
    that do not count.

    Args:
        choices: how many answers there are in all.
        decode: from a payload's JSON to its choices and usage.
        prompts: how many prompts there are; each has the same number of choices.

    Example:
        decoder = ChatStreamDecoder(choices=1)
        async for payload in payloads:
            for choice in decoder.take(payload):
                ...  # its delta, in our form
        decoder.finish()  # raises where an end is missing
        print(decoder.usage)
    """

    def __init__(
        self, choices: int, decode: Callable[[bytes], _Event[C]], *, prompts: int = 1
    ) -> None:
        self._unfinished = set(range(choices))
        self._choices_per_prompt = choices // prompts
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
        """What the engine has counted so far: it reports each choice by itself."""
        if self.usage is not None or not self._seen:
            return self.usage
        prompts = {
            index // self._choices_per_prompt: seen.prompt_tokens
            for index, seen in self._seen.items()
        }
        prompt = sum(prompts.values())
        answered = sum(seen.completion_tokens for seen in self._seen.values())
        return Usage(
            prompt_tokens=prompt, completion_tokens=answered, total_tokens=prompt + answered
        )

    def take(self, payload: bytes) -> list[C]:
        """What a payload adds to the answer, if anything.

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
        """Whether a choice is not empty; changes it into our form."""
        raise NotImplementedError


class ChatStreamDecoder(StreamDecoder[ChunkChoice]):
    """Decodes a chat: a choice's role and a call's name come once, at their beginning.

    Args:
        choices: how many answers there are.
        calls: the answer may call tools, so that it need not have a text.
        stops: the request has stop texts, so that a call may have been cut off.
    """

    def __init__(self, choices: int, *, calls: bool = False, stops: bool = False) -> None:
        super().__init__(choices, _chunks.decode)
        self._begun: set[int] = set()
        self._calls = calls
        self._stops = stops
        self._called: dict[int, dict[int, str]] = {}
        self._aligners: dict[int, LogprobAligner[TokenLogprob]] = {}

    def _adds(self, choice: ChunkChoice) -> bool:
        index, delta = choice.index, choice.delta
        if delta.content:
            self.tokens += 1
        if delta.tool_calls is not None:
            self.tokens += 1
            called = self._called.setdefault(index, {})
            delta.tool_calls = _calls(delta.tool_calls, called) or None
        if choice.logprobs is not None or self._aligners:
            self._align_logprobs(choice)
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

    def _align_logprobs(self, choice: ChunkChoice) -> None:
        """Keep the log-probabilities of tokens that are in the text by now; others wait for it."""
        aligner = self._aligners.get(choice.index)
        if aligner is None:
            aligner = self._aligners[choice.index] = LogprobAligner(strict=self._calls)
        tokens = (choice.logprobs.content if choice.logprobs else None) or ()
        seen = aligner.take(
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
        if not arguments:  # some engines send nothing where there are none
            return not self._stops
        try:
            msgspec.json.decode(arguments)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


class TextStreamDecoder(StreamDecoder[TextChoice]):
    """Decodes texts.

    Args:
        choices: how many answers there are in all.
        prompts: how many prompts there are.
        generates: False where only the prompts' own tokens are asked for.
    """

    def __init__(self, choices: int, *, prompts: int = 1, generates: bool = True) -> None:
        super().__init__(choices, _texts.decode, prompts=prompts)
        self._generates = generates
        self._aligners: dict[int, LogprobAligner[_TextToken]] = {}

    @property
    def usage(self) -> Usage | None:
        """What the engine counted in the end, without the one token that it always generates."""
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
        if choice.logprobs is not None or self._aligners:
            self._align_logprobs(choice)
        if choice.finish_reason is None:
            return bool(choice.text) or choice.logprobs is not None
        choice.finish_reason = _finish_reason(choice.finish_reason)
        self._unfinished.discard(choice.index)
        return True

    def _align_logprobs(self, choice: TextChoice) -> None:
        """Keep the log-probabilities of tokens that are in the text by now; others wait for it."""
        aligner = self._aligners.get(choice.index)
        if aligner is None:
            aligner = self._aligners[choice.index] = LogprobAligner(strict=False)
        given = choice.logprobs or TextLogprobs()
        tokens = zip(given.tokens, given.token_logprobs, given.top_logprobs, strict=False)
        seen = aligner.take(
            choice.text,
            ((token[0], token) for token in tokens),
            last=choice.finish_reason is not None,
        )
        choice.logprobs = None
        if seen:
            choice.logprobs = TextLogprobs(
                text_offset=[offset for offset, _ in seen],
                tokens=[token for _, (token, _, _) in seen],
                token_logprobs=[logprob for _, (_, logprob, _) in seen],
                top_logprobs=[top for _, (_, _, top) in seen],
            )


def call_id() -> str:
    """A new id of a call, in OpenAI's form."""
    return f"call_{secrets.token_hex(12)}"


def _calls(parts: list[ToolCallDelta], called: dict[int, str]) -> list[ToolCallDelta]:
    """What a chunk adds to each call, in one piece; our id and the name come once, first.

    ``called``: the arguments of each call so far, which this adds to.
    """
    merged: dict[int, ToolCallDelta] = {}
    for part in parts:
        given = part.function or FunctionDelta()
        if part.index not in called:
            if not given.name:
                continue  # a call without a name cannot be made
            called[part.index] = given.arguments or ""
            first = FunctionDelta(name=given.name, arguments=given.arguments or "")
            merged[part.index] = ToolCallDelta(
                index=part.index, id=call_id(), type="function", function=first
            )
        elif given.arguments:
            called[part.index] += given.arguments
            known = merged.get(part.index)
            if known is not None and known.function is not None:
                known.function.arguments = (known.function.arguments or "") + given.arguments
            else:
                more = FunctionDelta(arguments=given.arguments)
                merged[part.index] = ToolCallDelta(index=part.index, function=more)
    return list(merged.values())


def _finish_reason(reason: str, *, called: bool = False) -> str:
    """OpenAI's word for why an answer ends.

    vLLM says "stop" for a call that the request required, and "tool_calls" where one was required
    and not made.
    """
    if reason in _BROKEN:
        raise StreamBroken("the engine gave up in the middle of the answer")
    if reason == "length":
        return reason
    if called:
        return "tool_calls"
    return reason if reason in _FINISHED and reason != "tool_calls" else "stop"
