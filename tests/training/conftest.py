"""A tiny base and a small dataset, made once for every test that trains."""

from itertools import cycle
from pathlib import Path

import msgspec
import pytest

from connectors.conversation import Conversation, Role, Turn
from connectors.importers import ImportOptions, choose
from connectors.preference import Preference, UnpairedPreference
from training.compute_dtype import WORKS, TypeChoice
from training.config import Method, Recipe, TrainingSpec
from training.data.dataset import Dataset, create_version

FLOAT32 = {work: TypeChoice(type="float32", reason="the test says so") for work in WORKS}
SAMPLE = Path(__file__).parents[2] / "connectors" / "samples" / "loaf.jsonl"
TINY_RECIPE = Recipe(
    name="tiny",
    rank=4,
    alpha=8,
    learning_rate=1e-2,
    epochs=4.0,
    max_train_tokens=12_000,
    batch_tokens=1500,
    max_length=512,
    validate_every=4,
    validation_conversations=6,
    checkpoint_every=3,
    evaluation_replies=2,
    evaluation_conversations=4,
    max_reply_tokens=4,
    memory_bytes=1_000_000_000,
)


@pytest.fixture(scope="session")
def one_thread() -> None:
    """A model this small computes fastest on one thread, and a busy machine cannot stall it."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A transformers checkpoint as an operator might bring it."""
    from tests.tiny import make_tiny_checkpoint  # noqa: PLC0415 - loads torch

    del one_thread
    return make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="session")
def tiny_base(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That checkpoint as a base."""
    from training.base_models.quantize import add_base  # noqa: PLC0415 - loads torch

    root = tmp_path_factory.mktemp("bases")
    return root / add_base(str(tiny_checkpoint), root, on_progress=lambda _: None).name


def loaf() -> list[Conversation]:
    """Forty of the sample conversations."""
    with SAMPLE.open("rb") as file:
        importer = choose(file.read(4096), SAMPLE.name)
        file.seek(0)
        found = importer.read(file, ImportOptions())
        return [c for c in found if isinstance(c, Conversation)][:40]


RUDE = Turn(speaker=Role.AGENT, text="No idea, read the page yourself. Next!")


def comparisons() -> list[Preference]:
    """Each conversation's last reply, preferred to a rude one."""
    return [
        Preference(id=c.id, turns=c.turns[:-1], chosen=c.turns[-1:], rejected=(RUDE,))
        for c in loaf()
    ]


def judgements() -> list[UnpairedPreference]:
    """Every other conversation ends in the rude reply, which is undesirable."""
    return [
        UnpairedPreference(
            id=p.id, turns=(*p.turns, *(p.chosen if good else p.rejected)), label=good
        )
        for p, good in zip(comparisons(), cycle((True, False)), strict=False)
    ]


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Forty of the sample conversations as a dataset version."""
    root = tmp_path_factory.mktemp("datasets")
    return create_version(loaf(), root, system_prompt="You answer for Loaf, a bakery.")


@pytest.fixture(scope="session")
def preference_datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[Method, Dataset]:
    """The same as preferences and as judgements."""
    root = tmp_path_factory.mktemp("datasets")
    prompt = "You answer for Loaf, a bakery."
    return {
        "dpo": create_version(comparisons(), root, system_prompt=prompt),
        "kto": create_version(judgements(), root, system_prompt=prompt),
    }


@pytest.fixture
def spec(tiny_base: Path, small_dataset: Dataset) -> TrainingSpec:
    """Some dozen steps over the small dataset."""
    return TrainingSpec(
        label="loaf",
        base=str(tiny_base),
        dataset=str(small_dataset.folder),
        recipe=TINY_RECIPE,
    )


def write_spec(folder: Path, spec: TrainingSpec) -> Path:
    """Write a spec as the server does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "spec.json"
    path.write_bytes(msgspec.json.encode(spec))
    return path
