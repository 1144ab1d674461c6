"""Puts a streamed answer together: every answer in one piece was streamed from the engine."""

from dataclasses import dataclass, field

import msgspec

from server.chat.completions import TextChoice, TextLogprobs
from server.chat.schemas import (
    Annotation,
    AnswerMessage,
    CalledFunction,
    Choice,
    ChunkChoice,
    Logprobs,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
)


@dataclass
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass
class _Parts:
    """What has come of one choice. Its content is None where no content came, not even empty."""

    content: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    annotations: list[Annotation] = field(default_factory=list)
    finish_reason: str = "stop"

    def add(self, choice: ChunkChoice) -> None:
        if choice.delta.content is not None:
            self.content.append(choice.delta.content)
        for part in choice.delta.tool_calls or ():
            self._add_call(part)
        self.annotations += choice.delta.annotations or ()
        if choice.logprobs is not None:
            self.logprobs += choice.logprobs.content or ()
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason

    def _add_call(self, part: ToolCallDelta) -> None:
        call = self.calls.setdefault(part.index, _Call())
        call.id = part.id or call.id
        if part.function is not None:
            call.name = part.function.name or call.name
            call.arguments.append(part.function.arguments or "")

    def choice(self, index: int) -> Choice:
        text = "".join(self.content) if self.content else None
        calls = [
            ToolCall(id=call.id, function=CalledFunction(call.name, "".join(call.arguments)))
            for _, call in sorted(self.calls.items())
        ]
        message = AnswerMessage(
            content=text or None if calls else text,
            tool_calls=calls or msgspec.UNSET,
            annotations=self.annotations or msgspec.UNSET,
        )
        return Choice(
            index=index,
            message=message,
            finish_reason=self.finish_reason,
            logprobs=Logprobs(content=self.logprobs) if self.logprobs else None,
        )


class Collected:
    """The choices of a stream, as an answer in one piece has them."""

    def __init__(self) -> None:
        self._parts: dict[int, _Parts] = {}

    def add(self, choices: list[ChunkChoice]) -> None:
        """Take what a chunk adds."""
        for choice in choices:
            self._parts.setdefault(choice.index, _Parts()).add(choice)

    @property
    def choices(self) -> list[Choice]:
        """All of it, so far."""
        return [parts.choice(index) for index, parts in sorted(self._parts.items())]


class CollectedTexts:
    """The choices of streamed texts, as texts in one piece have them."""

    def __init__(self) -> None:
        self._parts: dict[int, list[TextChoice]] = {}

    def add(self, choices: list[TextChoice]) -> None:
        """Take what a chunk adds."""
        for choice in choices:
            self._parts.setdefault(choice.index, []).append(choice)

    @property
    def choices(self) -> list[TextChoice]:
        """All of it, so far."""
        return [_joined(index, parts) for index, parts in sorted(self._parts.items())]


def _joined(index: int, parts: list[TextChoice]) -> TextChoice:
    found = [part.logprobs for part in parts if part.logprobs is not None]
    logprobs = TextLogprobs(
        text_offset=[at for some in found for at in some.text_offset],
        token_logprobs=[logprob for some in found for logprob in some.token_logprobs],
        tokens=[token for some in found for token in some.tokens],
        top_logprobs=[top for some in found for top in some.top_logprobs],
    )
    return TextChoice(
        text="".join(part.text for part in parts),
        index=index,
        logprobs=logprobs if found else None,
        finish_reason=parts[-1].finish_reason,
    )
