"""What an evaluation reads: held-out conversations, and the replies that nobody wanted."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from connectors.conversation import ChatMessage, Split
from training.config import TrainingSpec
from training.data.chat_template import TrainingSequence, render, token_ids
from training.data.dataset import Dataset, Example
from training.data.dataset import load as load_dataset
from training.data.tokenization import ExampleTokenizer, rows_of
from training.errors import BadInput
from training.evaluation.metrics import Context

if TYPE_CHECKING:
    from training.evaluation.generator import Generator, Prefill

SPLIT: Split = "test"


class HeldOutData:
    """The conversations that a spec's evaluation reads, chosen by its seed."""

    def __init__(self, spec: TrainingSpec) -> None:
        self.dataset: Dataset = load_dataset(Path(spec.dataset))
        self._max_length = spec.recipe.max_length
        prompt = self.dataset.system_prompt
        self._system = [ChatMessage(role="system", content=prompt)] if prompt else []
        found = self.dataset.read(SPLIT)
        order = [found[i] for i in np.random.default_rng(spec.seed).permutation(len(found))]
        most = spec.recipe.evaluation_conversations
        self.examples: list[Example] = [example for example in order if example.desirable][:most]
        self._unwanted = [example for example in order if not example.desirable][:most]

    @property
    def paired(self) -> bool:
        """Whether each unwanted reply belongs to one wanted reply: to that of the same number."""
        return self.dataset.kind == "preferences"

    def sequences(self, speaker: "Generator") -> list[tuple[str, TrainingSequence]]:
        """(conversation, tokens and mask), exactly as training makes them; wanted replies alone.

        Those that fit into the recipe's ``max_length``: perhaps none.
        """
        return self._rows(speaker, self.examples)

    def parity_sequences(self, speaker: "Generator") -> list[tuple[str, TrainingSequence]]:
        """What trainer and engine are compared on: the same, or training's where that is nothing.

        Whether both are one model can be seen on any text; how good it is, only on new ones.

        Raises:
            BadInput: no reply of either fits into ``max_length``.
        """
        training = (example for example in self.dataset.read("train") if example.desirable)
        found = self.sequences(speaker) or self._rows(speaker, training)
        if not found:
            raise BadInput(
                f"no reply fits into {self._max_length} tokens: raise the recipe's max_length"
            )
        return found

    def _rows(
        self, speaker: "Generator", examples: Iterable[Example]
    ) -> list[tuple[str, TrainingSequence]]:
        encoder = self._encoder(speaker)
        return [
            (example.id, row)
            for example in examples
            for item in encoder.items(example)
            for row in rows_of(item)[:1]
        ]

    def unwanted(self, speaker: "Generator") -> list[TrainingSequence]:
        """The replies that are not wanted; none where the dataset is of conversations."""
        encoder = self._encoder(speaker)
        if self.paired:
            items = [item for example in self.examples for item in encoder.items(example)]
            return [rejected for item in items for rejected in rows_of(item)[1:]]
        items = [item for example in self._unwanted for item in encoder.items(example)]
        return [row for item in items for row in rows_of(item)]

    def _encoder(self, speaker: "Generator") -> ExampleTokenizer:
        return ExampleTokenizer(
            self.dataset,
            speaker.tokenizer,
            stop_ids=speaker.stop_ids,
            max_length=self._max_length,
        )

    def prompt(self, speaker: "Generator", context: Context) -> list[int]:
        """Token ids up to where the reply begins; a long history loses its oldest exchanges."""
        history = list(context.history)
        while True:
            text = render(speaker.tokenizer, [*self._system, *history], add_generation_prompt=True)
            ids = token_ids(speaker.tokenizer, text)
            if len(ids) <= self._max_length or len(history) == 1:
                return ids
            history = history[2:]


class ScoringInputs:
    """What a speaker reads: the held-out conversations, and prompts that do not begin one.

    ``cuts[i]``: where in ``sequences[i]`` replies start.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, TrainingSequence]],
        prompts: Sequence[tuple[Context, list[int]]],
    ) -> None:
        self.sequences = [sequence for _, sequence in named]
        self.prompt_lengths: list[list[int]] = [[] for _ in named]
        self._places: list[tuple[int, int]] = []
        numbers = {name: number for number, (name, _) in enumerate(named)}
        for context, ids in prompts:
            number = numbers.get(context.conversation)
            if number is None or self.sequences[number].token_ids[: len(ids)] != ids:
                number = len(self.sequences)  # a shortened history, or a template that rewrites it
                self.sequences.append(TrainingSequence(ids, [False] * len(ids)))
                self.prompt_lengths.append([])
            self._places.append((number, len(self.prompt_lengths[number])))
            self.prompt_lengths[number].append(len(ids))

    def prompt_prefills(self, starts: Sequence[Sequence["Prefill"]]) -> list["Prefill"]:
        """The starts of the prompts, in the prompts' order."""
        return [starts[number][place] for number, place in self._places]
