from itertools import combinations
from pathlib import Path

import pytest

import training.heads.samples
from training.data.deduplication import SAME_SPLIT, jaccard, shingles
from training.errors import BadInput
from training.heads.alike import content_of, key_of, near_any
from training.heads.dataset import SPLITS, create_version, load
from training.heads.examples import Labelled, read_examples

SAMPLES = Path(next(iter(training.heads.samples.__path__)))
SENTIMENT = SAMPLES / "sentiment.csv"


def test_the_order_of_texts_does_not_change_the_dataset(tmp_path: Path) -> None:
    texts = read_examples(SENTIMENT)
    first = create_version(texts, tmp_path / "a", task="sentiment")
    second = create_version([*reversed(texts), texts[0]], tmp_path / "b", task="sentiment")
    assert first.manifest.files == second.manifest.files
    assert second.manifest.repeated == 1
    assert sum(len(first.read(split)) for split in SPLITS) == len(texts)


def test_near_duplicates_stay_in_one_split(tmp_path: Path) -> None:
    texts = read_examples(SENTIMENT)
    texts += [Labelled(f"{each.text} Please!", each.label) for each in texts]
    dataset = create_version(texts, tmp_path, task="sentiment")
    marks = {split: [shingles(key_of(each)) for each in dataset.read(split)] for split in SPLITS}
    nearest = max(
        jaccard(a, b)
        for one, other in combinations(SPLITS, 2)
        for a in marks[one]
        for b in marks[other]
    )
    assert nearest < SAME_SPLIT
    assert dataset.manifest.counts["test"].keys() == {"negative", "neutral", "positive"}


def test_a_text_with_two_labels_is_left_out(tmp_path: Path) -> None:
    texts = read_examples(SENTIMENT)
    texts.append(Labelled(texts[0].text.upper(), "positive"))
    dataset = create_version(texts, tmp_path, task="sentiment")
    assert dataset.manifest.conflicting == 1
    assert texts[0].text not in [
        content_of(each) for split in SPLITS for each in dataset.read(split)
    ]


def test_too_few_texts_of_a_label_are_refused(tmp_path: Path) -> None:
    texts = [each for each in read_examples(SENTIMENT) if each.label != "neutral"]
    with pytest.raises(BadInput, match="'odd' has 1"):
        create_version([*texts, Labelled("Hm.", "odd")], tmp_path, task="sentiment")
    with pytest.raises(BadInput, match="annoyance has two labels"):
        create_version(texts, tmp_path, task="annoyance")
    assert not list(tmp_path.iterdir())


def test_a_changed_dataset_is_not_read(tmp_path: Path) -> None:
    dataset = create_version(read_examples(SENTIMENT), tmp_path, task="sentiment")
    path = dataset.folder / "test.jsonl"
    path.write_bytes(path.read_bytes().replace(b"negative", b"positive", 1))
    with pytest.raises(BadInput, match=r"test\.jsonl was changed"):
        load(dataset.folder)


def test_a_text_in_nearly_the_same_words_is_known() -> None:
    known = "Where is my parcel? I ordered it last Monday."
    asked = ["Where is my parcel?? I ordered it last Tuesday.", "Do you sell flour?", known]
    found = near_any([Labelled(text, "a") for text in asked], [Labelled(known, "b")])
    assert found == [True, False, True]
