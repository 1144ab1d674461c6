"""Examples as tokens: a conversation, a pair of replies, or a reply with a label.

Both replies of a pair follow exactly the same tokens, whichever of them is longer.
"""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from connectors.conversation import ChatMessage
from training.data.chat_template import TrainingSequence, drop_oldest_exchange, training_sequences
from training.data.dataset import Dataset, Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenizedPair(msgspec.Struct, frozen=True):
    """Two replies to one history; the loss masks cover the replies only."""

    chosen: TrainingSequence
    rejected: TrainingSequence


class TokenizedUnpaired(msgspec.Struct, frozen=True):
    """A reply with KTO's label; the loss mask covers the reply only."""

    reply: TrainingSequence
    desirable: bool


TokenizedExample = TrainingSequence | TokenizedPair | TokenizedUnpaired


def rows_of(item: TokenizedExample) -> list[TrainingSequence]:
    """The sequences of an example."""
    match item:
        case TokenizedPair():
            return [item.chosen, item.rejected]
        case TokenizedUnpaired():
            return [item.reply]
        case TrainingSequence():
            return [item]


def token_count(item: TokenizedExample) -> int:
    """Tokens of all sequences of an example."""
    return sum(len(row.token_ids) for row in rows_of(item))


def width_of(item: TokenizedExample) -> int:
    """Positions of an example in a batch of its own, padding included."""
    rows = rows_of(item)
    return len(rows) * max(len(row.token_ids) for row in rows)


class ExampleTokenizer:
    """Encodes a dataset's examples for one base, prompt and ``max_length``."""

    def __init__(
        self,
        dataset: Dataset,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        stop_ids: Collection[int],
        max_length: int,
    ) -> None:
        prompt = dataset.system_prompt
        self._system = [ChatMessage(role="system", content=prompt)] if prompt else []
        self._kind = dataset.kind
        self._tokenizer, self._stop_ids, self._max_length = tokenizer, stop_ids, max_length

    def items(
        self, example: Example, shown: Mapping[int, str] | None = None
    ) -> list[TokenizedExample]:
        """Tokenise one example: usually one item.

        There is none where the last exchange is too long or no reply has weight. ``shown``
        is that of `training_sequences`, with places in the example's messages.

        Raises:
            BadInput: the template cannot be trained on; see `training_sequences`.
        """
        shown = shown or {}
        if self._kind != "conversations":
            example = _last_turn_as_shown(example, shown)
        if self._kind == "preferences":
            return list(self._pair(example))
        if self._kind == "judgements":
            sequences = self._encode(example.messages, max_length=self._max_length)
            return [TokenizedUnpaired(sequence, example.desirable) for sequence in sequences]
        return list(
            training_sequences(
                self._tokenizer,
                [*self._system, *example.messages],
                stop_ids=self._stop_ids,
                max_length=self._max_length,
                shown={turn + len(self._system): text for turn, text in shown.items()},
            )
        )

    def _pair(self, example: Example) -> Iterator[TokenizedPair]:
        """The pair, with as much of the history as fits beside the longer reply."""
        *history, chosen = example.messages
        rejected = msgspec.structs.replace(chosen, content=example.rejected or "")
        shorter: Sequence[ChatMessage] | None = history
        while shorter is not None:
            rows = [
                row
                for reply in (chosen, rejected)
                for row in self._encode([*shorter, reply], max_length=sys.maxsize)
            ]
            if len(rows) == 2 and max(len(r.token_ids) for r in rows) <= self._max_length:  # noqa: PLR2004
                yield TokenizedPair(*rows)
                return
            shorter = drop_oldest_exchange(shorter)

    def _encode(
        self, messages: Sequence[ChatMessage], *, max_length: int
    ) -> list[TrainingSequence]:
        return training_sequences(
            self._tokenizer,
            [*self._system, *messages],
            stop_ids=self._stop_ids,
            max_length=max_length,
        )


def _last_turn_as_shown(example: Example, shown: Mapping[int, str]) -> Example:
    """The example whose one reply is the last message, with the turn before it as it is shown."""
    last = len(example.messages) - 1
    if last not in shown:
        return example
    *history, turn, reply = example.messages
    turn = msgspec.structs.replace(turn, content=shown[last])
    return msgspec.structs.replace(example, messages=[*history, turn, reply])


def mismatched(
    prompt: TokenizedUnpaired, reply: TokenizedUnpaired, *, max_length: int
) -> TrainingSequence:
    """One judgement's history with the reply of another, truncated to ``max_length`` tokens."""
    before = prompt.reply.token_ids[: prompt.reply.loss_mask.index(True)]
    first = reply.reply.loss_mask.index(True)
    return TrainingSequence(
        [*before, *reply.reply.token_ids[first:]][:max_length],
        [*([False] * len(before)), *reply.reply.loss_mask[first:]][:max_length],
    )
