"""What replies are shown in training is settled once, and the same after a restart."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.conversation import Conversation, Role, Turn
from tests.training.frozen_articles import freeze_articles
from training.config import Method, TrainingSpec, load_recipe
from training.data.dataset import Dataset, create_version
from training.errors import Interrupted
from training.events import EventWriter, StageEvent, parse

SHOWN = msgspec.structs.replace(
    load_recipe("cpu-demo"), references=2, copy_words=False, quote_replies=False
)

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]
WORDS = [
    "bread",
    "cake",
    "milk",
    "oven",
    "refund",
    "order",
    "parcel",
    "invoice",
    "garden",
    "window",
    "river",
    "mountain",
]


@pytest.fixture
def progress(tmp_path: Path) -> Iterator[EventWriter]:
    with closing(EventWriter(tmp_path / "events.jsonl")) as writer:
        yield writer


def spec_of(root: Path, *, distinct: bool, **recipe: float) -> TrainingSpec:
    conversations = [
        Conversation(
            id=f"c{number}-{word}",
            turns=(
                Turn(Role.CUSTOMER, f"a question about {word} and {number} other things"),
                Turn(Role.AGENT, f"Reply {number} about {word}." if distinct else "Thank you."),
            ),
        )
        for number in range(3)
        for word in WORDS
    ]
    dataset = create_version(conversations, root, system_prompt="You answer.")
    return TrainingSpec(
        label="acme",
        base=str(root / "base"),
        dataset=str(dataset.folder),
        recipe=msgspec.structs.replace(SHOWN, **recipe),
    )


def details(folder: Path) -> list[str]:
    events = map(parse, (folder / "events.jsonl").read_bytes().splitlines())
    return [event.detail for event in events if isinstance(event, StageEvent)]


def test_templates_are_learnt_without_references(tmp_path: Path, progress: EventWriter) -> None:
    from training.finetuning.references import settle_references  # noqa: PLC0415 - loads torch

    spec = spec_of(tmp_path, distinct=False)
    assert settle_references(spec, progress).recipe.references == 0
    assert "of the replies are distinct" in details(tmp_path)[-1]
    always = spec_of(tmp_path, distinct=False, min_distinct_replies=0.0)
    assert settle_references(always, progress) == always
    varied = spec_of(tmp_path, distinct=True)
    assert settle_references(varied, progress) == varied


def test_what_is_shown_is_kept_and_read_again(tmp_path: Path, progress: EventWriter) -> None:
    from training.finetuning import references  # noqa: PLC0415 - loads torch
    from training.retrieval.index import ExchangeIndex  # noqa: PLC0415

    spec = spec_of(tmp_path, distinct=True)
    shown = references.prepare_references(spec, tmp_path, progress, should_stop=lambda: False)
    assert set(shown) == {"train", "validation"}
    index = ExchangeIndex.load(tmp_path / "retrieval.safetensors")
    assert len(index) == len(shown["train"])
    written = (tmp_path / "shown.json").stat().st_mtime_ns
    again = references.prepare_references(spec, tmp_path, progress, should_stop=lambda: True)
    assert again == shown
    assert (tmp_path / "shown.json").stat().st_mtime_ns == written
    other = msgspec.structs.replace(spec, seed=spec.seed + 1)
    with pytest.raises(Interrupted, match="were indexed"):
        references.prepare_references(other, tmp_path, progress, should_stop=lambda: True)


def test_a_large_index_is_searched_in_its_file_in_training_too(
    tmp_path: Path, progress: EventWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.finetuning import references  # noqa: PLC0415 - loads torch
    from training.retrieval import large  # noqa: PLC0415
    from training.retrieval.index import ExchangeIndex  # noqa: PLC0415

    spec = spec_of(tmp_path, distinct=True)
    shown = references.prepare_references(spec, tmp_path, progress, should_stop=lambda: False)
    monkeypatch.setattr(large, "EXACT_ROWS", 5)
    out = tmp_path / "large"
    out.mkdir()
    searched: list[int] = []
    nearest = large.GraphedVectors.nearest

    def spy(self: large.GraphedVectors, query: Any) -> Iterator[tuple[int, float]]:
        searched.append(len(self))
        return nearest(self, query)

    monkeypatch.setattr(large.GraphedVectors, "nearest", spy)
    again = references.prepare_references(spec, out, progress, should_stop=lambda: False)
    assert again == shown  # of so few the graph misses none
    assert len(searched) >= len(shown["train"])
    assert ExchangeIndex.load(out / "retrieval.safetensors").held_rows == 0


def test_without_references_nothing_is_made(tmp_path: Path, progress: EventWriter) -> None:
    from training.finetuning import references  # noqa: PLC0415 - loads torch

    spec = spec_of(tmp_path, distinct=True, references=0)
    none = references.prepare_references(spec, tmp_path, progress, should_stop=lambda: True)
    assert none == {}
    assert not (tmp_path / "retrieval.safetensors").exists()


@pytest.mark.parametrize("references", [0, 2])
def test_articles_are_shown_with_exchanges_and_without(
    tmp_path: Path, progress: EventWriter, references: int
) -> None:
    from training.finetuning.references import prepare_references  # noqa: PLC0415 - loads torch

    spec = spec_of(tmp_path, distinct=True, references=references, distractors=0.0)
    knowledge = freeze_articles(
        tmp_path, ["Questions about bread: the bread is rye.", "Elephants."]
    )
    spec = msgspec.structs.replace(spec, knowledge=str(knowledge))
    shown = prepare_references(spec, tmp_path, progress, should_stop=lambda: False)
    assert (tmp_path / "retrieval.safetensors").exists() == bool(references)
    splits = {**shown["train"], **shown["validation"]}
    bread = [turns[1] for name, turns in splits.items() if "bread" in name]
    assert bread
    for text in bread:
        assert text.startswith("Q: Article 0\nA: Questions about bread: the bread is rye.\n")
        assert text.count("\nA: ") == references + 1
    assert not any("Elephants" in text for turns in splits.values() for text in turns.values())
    assert details(tmp_path)[-1].endswith("articles, by meaning")
    again = prepare_references(spec, tmp_path, progress, should_stop=lambda: True)
    assert again == shown
    other = freeze_articles(tmp_path, ["Elephants."])
    without = msgspec.structs.replace(spec, knowledge=str(other))
    if references:
        with pytest.raises(Interrupted):  # it is not what was shown before
            prepare_references(without, tmp_path, progress, should_stop=lambda: True)
    else:
        empty = prepare_references(without, tmp_path, progress, should_stop=lambda: True)
        assert empty == {"train": {}, "validation": {}}


def test_wanted_and_unwanted_replies_are_shown_alike(
    tmp_path: Path, progress: EventWriter, preference_datasets: dict[Method, Dataset]
) -> None:
    """Else the model would learn to tell them by the prompt."""
    from training.finetuning import references  # noqa: PLC0415 - loads torch

    dataset = preference_datasets["kto"]
    recipe = msgspec.structs.replace(SHOWN, unreferenced=0.5, distractors=0.5)
    spec = TrainingSpec(
        label="acme",
        base=str(tmp_path / "base"),
        dataset=str(dataset.folder),
        recipe=recipe,
        method="kto",
    )
    shown = references.prepare_references(spec, tmp_path, progress, should_stop=lambda: False)
    train = dataset.read("train")
    assert {example.desirable for example in train} == {True, False}
    counts: dict[bool, set[int]] = {True: set(), False: set()}
    for example in train:
        text = shown["train"][example.id][len(example.messages) - 1]
        counts[example.desirable].add(text.count("\nA: "))
    assert counts[True] == counts[False] == {recipe.references}
