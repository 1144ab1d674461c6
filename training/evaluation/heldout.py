"""What an evaluation reads: held-out conversations, undesirable replies, contexts to reply to."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from connectors.conversation import ChatMessage, Split
from training.config import TrainingSpec
from training.data.chat_template import TrainingSequence, render, token_ids
from training.data.contexts import Context, contexts_of
from training.data.dataset import Dataset, Example
from training.data.dataset import load as load_dataset
from training.data.tokenization import ExampleTokenizer, rows_of
from training.errors import BadInput
from training.retrieval.prompts import Shown

if TYPE_CHECKING:
    from training.evaluation.generator import Generator, Prefill

SPLIT: Split = "test"


def choose_contexts(conversations: Iterable[Example], count: int, *, seed: int) -> list[Context]:
    """Choose ``count`` contexts by seed, one from each conversation before a second from any."""
    chooser = random.Random(seed)  # noqa: S311 - a sample, not a secret
    queues = [contexts_of(conversation) for conversation in conversations]
    chooser.shuffle(queues)
    for queue in queues:
        chooser.shuffle(queue)
    chosen: list[Context] = []
    while len(chosen) < count and any(queues):
        chosen += [queue.pop() for queue in queues if queue]
    return chosen[:count]


class HeldOutData:
    """The held-out conversations that an evaluation reads, or those of another split.

    The spec's seed decides which, up to the recipe's ``evaluation_conversations``; ``examples`` are
    those whose reply was desirable.
    """

    def __init__(self, spec: TrainingSpec, split: Split = SPLIT) -> None:
        self.dataset: Dataset = load_dataset(Path(spec.dataset))
        self._max_length = spec.recipe.max_length
        prompt = self.dataset.system_prompt
        self._system = [ChatMessage(role="system", content=prompt)] if prompt else []
        found = self.dataset.read(split)
        order = [found[i] for i in np.random.default_rng(spec.seed).permutation(len(found))]
        count = spec.recipe.evaluation_conversations
        self.examples: list[Example] = [example for example in order if example.desirable][:count]
        self._undesirable = [example for example in order if not example.desirable][:count]

    @property
    def paired(self) -> bool:
        """Whether undesirable reply i was rejected in favour of desirable reply i."""
        return self.dataset.kind == "preferences"

    @property
    def contexts(self) -> list[Context]:
        """Every reply that is scored, with the history before it: also the undesirable ones."""
        examples = [*self.examples, *self._undesirable]
        return [context for example in examples for context in contexts_of(example)]

    def sequences(
        self, generator: "Generator", shown: Shown | None = None
    ) -> list[tuple[str, TrainingSequence]]:
        """(conversation, tokens and mask), exactly as training makes them; desirable replies only.

        Those that fit into the recipe's ``max_length``: perhaps none. With ``shown`` every reply is scored
        after what it is shown, and not as it stands in the conversation.
        """
        return self._sequences(generator, self.examples, shown)

    def parity_sequences(self, generator: "Generator") -> list[tuple[str, TrainingSequence]]:
        """What trainer and engine are compared on: `sequences`, or the training split's if empty.

        Any text shows whether both are one model; only new text shows how good it is.

        Raises:
            BadInput: no reply of either split fits into ``max_length``.
        """
        training = (example for example in self.dataset.read("train") if example.desirable)
        found = self.sequences(generator) or self._sequences(generator, training)
        if not found:
            raise BadInput(
                f"no reply fits into {self._max_length} tokens: raise the recipe's max_length"
            )
        return found

    def _sequences(
        self, generator: "Generator", examples: Iterable[Example], shown: Shown | None = None
    ) -> list[tuple[str, TrainingSequence]]:
        tokenizer = self._example_tokenizer(generator)
        shown = shown or {}
        return [
            (example.id, sequence)
            for example in examples
            for item in tokenizer.items(example, shown.get(example.id))
            for sequence in rows_of(item)[:1]
        ]

    def undesirable(
        self, generator: "Generator", shown: Shown | None = None
    ) -> list[TrainingSequence]:
        """The rejected or undesirable replies; none where the dataset is of conversations.

        ``shown`` is as in `sequences`: both sorts of replies must be shown alike to be compared.
        """
        tokenizer, shown = self._example_tokenizer(generator), shown or {}
        examples = self.examples if self.paired else self._undesirable
        first = 1 if self.paired else 0
        return [
            sequence
            for example in examples
            for item in tokenizer.items(example, shown.get(example.id))
            for sequence in rows_of(item)[first:]
        ]

    def _example_tokenizer(self, generator: "Generator") -> ExampleTokenizer:
        return ExampleTokenizer(
            self.dataset,
            generator.tokenizer,
            stop_ids=generator.stop_ids,
            max_length=self._max_length,
        )

    def prompt(
        self, generator: "Generator", context: Context, shown: Shown | None = None
    ) -> list[int]:
        """Token ids up to where the reply begins; a long history loses its oldest exchanges."""
        *history, turn = context.history
        text = (shown or {}).get(context.conversation, {}).get(context.turn, turn.content)
        history.append(msgspec.structs.replace(turn, content=text))
        while True:
            text = render(
                generator.tokenizer, [*self._system, *history], add_generation_prompt=True
            )
            ids = token_ids(generator.tokenizer, text)
            if len(ids) <= self._max_length or len(history) == 1:
                return ids
            history = history[2:]


class ScoringInputs:
    """The sequences that a model reads once: held-out conversations, and other prompts.

    A prompt that is the beginning of a conversation is not a sequence of its own:
    ``prompts[i]`` holds, for each prompt, the places of its tokens in ``sequences[i]``.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, TrainingSequence]],
        prompts: Sequence[tuple[Context, list[int]]],
    ) -> None:
        self.sequences = [sequence for _, sequence in named]
        self.prompts: list[list[Sequence[int]]] = [[] for _ in named]
        self._places: list[tuple[int, int]] = []
        numbers: dict[str, list[int]] = {}
        for number, (name, _) in enumerate(named):
            numbers.setdefault(name, []).append(number)
        for context, ids in prompts:
            number, places = self._find(ids, numbers.get(context.conversation, ()))
            self._places.append((number, len(self.prompts[number])))
            self.prompts[number].append(places)

    def _find(self, ids: list[int], numbers: Iterable[int]) -> tuple[int, Sequence[int]]:
        """Which sequence begins like a prompt, and where in it; a new one where none does."""
        for number in numbers:
            tokens = self.sequences[number].token_ids
            for path in self.sequences[number].paths():
                if len(path) >= len(ids) and [tokens[i] for i in path[: len(ids)]] == ids:
                    return number, path[: len(ids)]
        # a shortened history, or a template that rewrites it
        self.sequences.append(TrainingSequence(ids, [False] * len(ids)))
        self.prompts.append([])
        return len(self.sequences) - 1, range(len(ids))

    def prompt_prefills(self, prefills: Sequence[Sequence["Prefill"]]) -> list["Prefill"]:
        """The prefills of the prompts in their order, out of what `Generator.score` returned."""
        return [prefills[number][place] for number, place in self._places]
