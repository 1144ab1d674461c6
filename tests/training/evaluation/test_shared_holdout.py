"""What a new adapter and the live one are compared on: nothing that either of them was taught."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from connectors.conversation import Conversation, Role, Turn
from tests.training.adapters.sample_manifest import MANIFEST
from tests.training.conftest import TINY_RECIPE
from training.adapters.package import MANIFEST_NAME
from training.config import TrainingSpec
from training.data.dataset import Dataset, create_version
from training.evaluation import shared_holdout as module
from training.evaluation.shared_holdout import find_shared_holdout


@pytest.fixture(autouse=True)
def base(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base, as far as anybody looks."""
    found = SimpleNamespace(serving_sha256=MANIFEST.base.serving_sha256)
    monkeypatch.setattr(module, "load_base", lambda _: found)


def varied(count: int, *, seed: int) -> list[Conversation]:
    """Conversations that are no near-duplicates of one another."""
    source = random.Random(seed)
    return [
        Conversation(
            id=f"{seed}-{n}",
            turns=(
                Turn(
                    speaker=Role.CUSTOMER,
                    text=" ".join("".join(source.choices("abcdefghij", k=6)) for _ in range(8)),
                ),
                Turn(speaker=Role.AGENT, text="We will look."),
            ),
        )
        for n in range(count)
    ]


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[[Sequence[Conversation]], Dataset]:
    """Datasets beside one another, as an installation keeps them."""
    return lambda some: create_version(some, tmp_path / "datasets", system_prompt="")


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., str]:
    """A published adapter that was trained on a dataset."""

    def make(name: str, dataset: str, *, base: str | None = None, begun: str | None = None) -> str:
        folder = tmp_path / "adapters" / name
        folder.mkdir(parents=True)
        ref = MANIFEST.base
        manifest = msgspec.structs.replace(
            MANIFEST,
            base=msgspec.structs.replace(ref, serving_sha256=base or ref.serving_sha256),
            dataset_sha256=dataset,
            started_from=begun,
        )
        (folder / MANIFEST_NAME).write_bytes(msgspec.json.encode(manifest))
        return str(folder)

    return make


def spec(dataset: Dataset, live: str | None, start: str | None = None) -> TrainingSpec:
    return TrainingSpec(
        label="acme",
        base="/bases/tiny",
        dataset=str(dataset.folder),
        recipe=TINY_RECIPE,
        live_adapter=live,
        start_adapter=start,
    )


def test_without_a_live_adapter_there_is_nothing_to_compare(make_dataset) -> None:
    dataset = make_dataset(varied(30, seed=1))
    found = find_shared_holdout(spec(dataset, None), dataset.read("test"))
    assert (found.conversations, found.note) == (frozenset(), "")


def test_versions_of_one_growing_dataset_are_compared_on_what_neither_was_trained_on(
    make_dataset, adapter
) -> None:
    old = make_dataset(varied(60, seed=1))
    new = make_dataset(varied(60, seed=1) + varied(90, seed=2))
    held_out = new.read("test")
    live = adapter("acme.1", old.sha256)
    found = find_shared_holdout(spec(new, live), held_out)
    assert found.conversations == {example.id for example in held_out}, "the old test split stays"
    assert found.note == ""


@pytest.mark.parametrize("fresh", [0, 3])
def test_what_the_live_adapter_was_trained_on_is_left_out(
    make_dataset, adapter, fresh: int
) -> None:
    some = varied(60, seed=1)
    live_data = make_dataset(some)
    trained = [example.id for example in live_data.read("train")][:4]
    untrained = [example.id for example in live_data.read("test")][:fresh]
    new_data = make_dataset(
        [
            msgspec.structs.replace(c, split="test") if c.id in {*trained, *untrained} else c
            for c in some
        ]
    )
    held_out = new_data.read("test")
    assert {example.id for example in held_out} == {*trained, *untrained}
    found = find_shared_holdout(spec(new_data, adapter("acme.1", live_data.sha256)), held_out)
    assert found.conversations == set(untrained)
    if fresh:
        assert found.note.startswith("the live adapter is scored on 3 of 7 conversations")
    else:
        assert "was trained on all that is held out" in found.note


def test_so_is_what_it_began_with_and_what_the_new_one_began_with(make_dataset, adapter) -> None:
    some = varied(80, seed=1)
    dataset = make_dataset(some)
    held_out = dataset.read("test")
    assert len(held_out) > 3
    by_id = {c.id: c for c in some}
    others = varied(30, seed=5)

    def taught(*ids: str) -> str:
        pinned = [msgspec.structs.replace(by_id[name], split="train") for name in ids]
        return str(make_dataset(pinned + others).sha256)

    adapter("acme.0", taught(held_out[0].id))
    live = adapter("acme.1", dataset.sha256, begun="acme.0")
    start = adapter("acme.2", taught(held_out[1].id))
    found = find_shared_holdout(spec(dataset, live, start), held_out)
    assert found.conversations == {example.id for example in held_out[2:]}


def test_an_adapter_that_began_with_itself_ends(make_dataset, adapter) -> None:
    dataset = make_dataset(varied(30, seed=1))
    live = adapter("acme.1", dataset.sha256, begun="acme.1")
    assert find_shared_holdout(spec(dataset, live), dataset.read("test")).conversations


@pytest.mark.parametrize("shared", [0, 5])
def test_other_data_are_not_compared_and_the_note_says_so(
    make_dataset, adapter, shared: int
) -> None:
    live_data = make_dataset(varied(50, seed=1))
    new_data = make_dataset(varied(50, seed=2)[shared:] + varied(50, seed=1)[:shared])
    found = find_shared_holdout(
        spec(new_data, adapter("acme.1", live_data.sha256)), new_data.read("test")
    )
    assert not found.conversations
    assert "it was trained on other data" in found.note
    assert f"share {shared} of 50 and 50 conversations" in found.note


def test_a_part_of_the_live_adapters_data_is_no_other_data(make_dataset, adapter) -> None:
    whole = varied(120, seed=1)
    live_data, new_data = make_dataset(whole), make_dataset(whole[:20])
    live = adapter("acme.1", live_data.sha256)
    note = find_shared_holdout(spec(new_data, live), new_data.read("test")).note
    assert "other data" not in note


@pytest.mark.parametrize("dataset", ["d" * 64, "../elsewhere", "/etc", ""])
def test_data_that_are_not_here_are_not_compared(make_dataset, adapter, dataset: str) -> None:
    new_data = make_dataset(varied(30, seed=1))
    found = find_shared_holdout(spec(new_data, adapter("acme.1", dataset)), new_data.read("test"))
    assert not found.conversations
    assert "what it was trained on is not here" in found.note


def test_a_live_adapter_of_another_base_is_not_compared(make_dataset, adapter) -> None:
    new_data = make_dataset(varied(30, seed=1))
    live = adapter("acme.1", new_data.sha256, base="f" * 64)
    found = find_shared_holdout(spec(new_data, live), new_data.read("test"))
    assert not found.conversations
    assert "another base (tiny)" in found.note
