"""Whole runs without a model: hashed words in place of the encoder."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.training.heads.test_dataset import SAMPLES, SENTIMENT
from training.errors import ArtifactError
from training.events import EXIT_BAD_INPUT, EXIT_OK, ErrorEvent, parse
from training.heads.config import HeadRecipe, HeadSpec, Task
from training.heads.dataset import LabelDataset, create_version
from training.heads.examples import Labelled, read_examples
from training.heads.package import Head, verify
from training.heads.pipeline import finished_head, run

ROOT = Path(__file__).parents[3]


def dataset_of(folder: Path, path: Path = SENTIMENT, task: Task = "sentiment") -> LabelDataset:
    return create_version(read_examples(path), folder / "datasets", task=task)


def write_spec(folder: Path, spec: HeadSpec) -> Path:
    path = folder / "spec.json"
    path.write_bytes(msgspec.json.encode(spec))
    return path


def train(folder: Path, dataset: LabelDataset, *, live: Path | None = None) -> Path:
    spec = HeadSpec(
        dataset=str(dataset.folder), encoder="hashed-words", live=str(live) if live else None
    )
    out = folder / f"run{len(list(folder.iterdir()))}"
    assert run(write_spec(folder, spec), out, resume=False) == EXIT_OK
    return finished_head(out)


def plain(folder: Path) -> LabelDataset:
    """Texts that hashed words can tell apart."""
    texts = [
        Labelled(f"{word} {number} {number * 7} {other}", label)
        for label, word in (("annoyed", "ridiculous awful"), ("calm", "please kindly"))
        for number, other in enumerate(
            [
                "salt",
                "bread",
                "lamp",
                "door",
                "chair",
                "green",
                "table",
                "shoe",
                "river",
                "apple",
                "cloud",
                "stone",
            ]
        )
    ]
    return create_version(texts, folder / "datasets", task="annoyance")


def test_a_head_tells_labels_apart_and_says_what_it_was_made_of(tmp_path: Path) -> None:
    dataset = plain(tmp_path)
    folder = train(tmp_path, dataset)
    head = Head(folder)
    assert head.manifest.verdict.passed
    assert head.manifest.dataset_sha256 == dataset.manifest.sha256
    said = head.classify(["This is awful and ridiculous", "Would you please"])
    assert [each.label for each in said] == ["annoyed", "calm"]
    assert sum(said[0].probabilities.values()) == pytest.approx(1)
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "head.safetensors"}


def test_the_same_spec_gives_the_same_weights(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    first, second = (train(tmp_path, dataset) for _ in range(2))
    assert (first / "head.safetensors").read_bytes() == (second / "head.safetensors").read_bytes()


def test_a_new_head_is_held_against_the_live_one(tmp_path: Path) -> None:
    dataset = plain(tmp_path)
    live = train(tmp_path, dataset)
    again = verify(train(tmp_path, dataset, live=live))
    assert again.live_sha256 == live.name
    assert [gate.name for gate in again.verdict.gates] == ["majority", "live"]
    assert again.verdict.result == "cannot_tell"
    other = verify(train(tmp_path, dataset_of(tmp_path), live=live))
    assert "other labels" in other.note
    assert [gate.name for gate in other.verdict.gates] == ["majority"]


@pytest.mark.parametrize("name", ["manifest.json", "head.safetensors"])
def test_a_changed_head_is_refused(tmp_path: Path, name: str) -> None:
    folder = train(tmp_path, plain(tmp_path))
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ArtifactError):
        verify(folder)


def test_a_foreign_file_in_a_head_is_refused(tmp_path: Path) -> None:
    folder = train(tmp_path, plain(tmp_path))
    (folder / "head.pkl").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"head\.pkl"):
        verify(folder)


def test_a_killed_run_goes_on_and_a_finished_one_is_not_repeated(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path)
    spec = write_spec(tmp_path, HeadSpec(dataset=str(dataset.folder), encoder="hashed-words"))
    argv = [sys.executable, "-m", "training.heads", "train", str(spec), str(tmp_path / "out")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()  # it has begun
    child.kill()
    child.wait()
    child.stdout.close()
    assert subprocess.run(argv, env=env, check=False, capture_output=True).returncode in {
        EXIT_OK,
        EXIT_BAD_INPUT,
    }
    assert subprocess.run([*argv, "--resume"], env=env, check=False).returncode == EXIT_OK
    first = finished_head(tmp_path / "out")
    assert subprocess.run([*argv, "--resume"], env=env, check=False).returncode == EXIT_OK
    assert finished_head(tmp_path / "out") == first


def test_another_spec_does_not_take_over_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = dataset_of(tmp_path)
    spec = HeadSpec(dataset=str(dataset.folder), encoder="hashed-words")
    out = tmp_path / "out"
    assert run(write_spec(tmp_path, spec), out, resume=False) == EXIT_OK
    other = msgspec.structs.replace(spec, recipe=HeadRecipe(inverse_penalty=1.0))
    assert run(write_spec(tmp_path, other), out, resume=True) == EXIT_BAD_INPUT
    event = parse(capsys.readouterr().out.splitlines()[-1])
    assert isinstance(event, ErrorEvent)
    assert "another spec" in event.message


def test_the_samples_can_be_trained_on(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, SAMPLES / "annoyance.jsonl", "annoyance")
    assert dataset.manifest.labels == ("annoyed", "calm")
    assert verify(train(tmp_path, dataset)).scores.texts == 8
