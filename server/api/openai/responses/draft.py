"""A response's output while it is generated: what each chunk adds, as items and as events."""

import secrets
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from server.chat.schemas import Annotation, ChunkChoice, TokenLogprob, ToolCallDelta
from server.errors import StreamBroken
from server.responses.items import (
    CallItem,
    MessageItem,
    OutputText,
    Status,
    Token,
    TopToken,
    item_id,
)


class Event(NamedTuple):
    """One event of the stream, without its number."""

    type: str
    fields: dict[str, Any]


class _Text:
    """The message that is being written."""

    def __init__(self, name: str, place: int) -> None:
        self._name = name
        self._where = {"output_index": place, "content_index": 0, "item_id": name}
        self._text: list[str] = []
        self._logprobs: list[Token] = []
        self._annotations: list[dict[str, Any]] = []

    def item(self, status: Status) -> MessageItem:
        return MessageItem(id=self._name, status=status, role="assistant", content=[self._part])

    @property
    def _part(self) -> OutputText:
        return OutputText(
            text="".join(self._text), logprobs=self._logprobs, annotations=self._annotations
        )

    def begin(self) -> Iterator[Event]:
        item = MessageItem(id=self._name, status="in_progress", role="assistant", content=[])
        yield Event(
            "response.output_item.added",
            {"output_index": self._where["output_index"], "item": item},
        )
        yield Event("response.content_part.added", {**self._where, "part": OutputText(text="")})

    def add(self, text: str, generated: list[TokenLogprob]) -> Iterator[Event]:
        tokens = [_token(token) for token in generated]
        self._text.append(text)
        self._logprobs += tokens
        if text or tokens:
            yield Event(
                "response.output_text.delta", {**self._where, "delta": text, "logprobs": tokens}
            )

    def cite(self, annotations: Sequence[Annotation]) -> Iterator[Event]:
        for each in annotations:
            annotation = {"type": each.type, **msgspec.structs.asdict(each.url_citation)}
            number = {"annotation_index": len(self._annotations), "annotation": annotation}
            self._annotations.append(annotation)
            yield Event("response.output_text.annotation.added", {**self._where, **number})

    def end(self) -> Iterator[Event]:
        part = self._part
        yield Event(
            "response.output_text.done",
            {**self._where, "text": part.text, "logprobs": part.logprobs},
        )
        yield Event("response.content_part.done", {**self._where, "part": part})


class _Call:
    """The call that is being written."""

    def __init__(self, name: str, place: int, delta: ToolCallDelta) -> None:
        self.index = delta.index
        self._name = name
        self._where = {"output_index": place, "item_id": name}
        self._call_id = delta.id or f"call_{secrets.token_hex(12)}"
        self._function = (delta.function and delta.function.name) or ""
        self._arguments: list[str] = []

    def item(self, status: Status) -> CallItem:
        return CallItem(
            id=self._name,
            status=status,
            call_id=self._call_id,
            name=self._function,
            arguments="".join(self._arguments),
        )

    def begin(self) -> Iterator[Event]:
        fields = {"output_index": self._where["output_index"], "item": self.item("in_progress")}
        yield Event("response.output_item.added", fields)

    def add(self, delta: ToolCallDelta) -> Iterator[Event]:
        arguments = delta.function and delta.function.arguments
        if arguments:
            self._arguments.append(arguments)
            fields = {**self._where, "delta": arguments}
            yield Event("response.function_call_arguments.delta", fields)

    def end(self) -> Iterator[Event]:
        item = self.item("completed")
        yield Event(
            "response.function_call_arguments.done",
            {**self._where, "name": item.name, "arguments": item.arguments},
        )


class Draft:
    """The output of one response. Items come one after the other; ``output`` has those that ended.

    Args:
        response: the response's id without its prefix, for the ids of items.
        first: the number of the first item, after those of the input.
    """

    def __init__(self, response: str, *, first: int) -> None:
        self._response = response
        self._first = first
        self._open: _Text | _Call | None = None
        self._early: list[TokenLogprob] = []  # log-probabilities that came before any text
        self.output: list[MessageItem | CallItem] = []
        self.finish_reason = "stop"

    def add(self, choice: ChunkChoice) -> Iterator[Event]:
        """What a chunk adds.

        Raises:
            StreamBroken: it adds to a call that has ended.
        """
        text = choice.delta.content
        tokens = (choice.logprobs.content if choice.logprobs else None) or []
        calls = choice.delta.tool_calls or ()
        if text or (tokens and not calls and isinstance(self._open, _Text)):
            yield from self._add_text(text or "", tokens)
        elif self._open is None:  # half a character, or the beginning of a call
            self._early += tokens
        if choice.delta.annotations and isinstance(self._open, _Text):
            yield from self._open.cite(choice.delta.annotations)
        for call in calls:
            yield from self._add_call(call)
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason

    def end(self) -> Iterator[Event]:
        """The end of the last item; where there was none, of an empty one."""
        if self._open is None and not self.output:
            yield from self._add_text("", [])
        yield from self._end_item("incomplete" if self.incomplete else "completed")

    @property
    def incomplete(self) -> bool:
        """Whether something cut the answer off."""
        return self.finish_reason in ("length", "content_filter")

    def broken(self) -> list[MessageItem | CallItem]:
        """The output of a response that failed, as far as it came."""
        return [*self.output, *([self._open.item("incomplete")] if self._open else ())]

    def _add_text(self, text: str, tokens: list[TokenLogprob]) -> Iterator[Event]:
        if not isinstance(self._open, _Text):
            yield from self._end_item("completed")
            self._open = _Text(self._name(MessageItem), len(self.output))
            yield from self._open.begin()
            tokens, self._early = [*self._early, *tokens], []
        yield from self._open.add(text, tokens)

    def _add_call(self, delta: ToolCallDelta) -> Iterator[Event]:
        if not isinstance(self._open, _Call) or self._open.index != delta.index:
            if delta.function is None or not delta.function.name:
                raise StreamBroken("the engine added to a call that had ended")
            yield from self._end_item("completed")
            self._early = []
            self._open = _Call(self._name(CallItem), len(self.output), delta)
            yield from self._open.begin()
        yield from self._open.add(delta)

    def _end_item(self, status: Status) -> Iterator[Event]:
        if self._open is None:
            return
        yield from self._open.end()
        item = self._open.item(status)
        fields = {"output_index": len(self.output), "item": item}
        self.output.append(item)
        self._open = None
        yield Event("response.output_item.done", fields)

    def _name(self, kind: type[MessageItem | CallItem]) -> str:
        return item_id(kind, self._response, self._first + len(self.output))


def _token(token: TokenLogprob) -> Token:
    return Token(
        token=token.token,
        logprob=token.logprob,
        bytes=_bytes(token.token, token.bytes),
        top_logprobs=[
            TopToken(token=top.token, logprob=top.logprob, bytes=_bytes(top.token, top.bytes))
            for top in token.top_logprobs
        ],
    )


def _bytes(token: str, known: list[int] | None) -> list[int]:
    return list(token.encode()) if known is None else known
