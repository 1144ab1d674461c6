"""Preferences and judgements become versions like conversations: by hash, split, without duplicates."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from connectors.conversation import Role, Turn
from connectors.preference import Preference, UnpairedPreference
from tests.training.data.test_dataset import ids, varied
from training.data.dataset import Dataset, create_version, load
from training.data.splitting import SPLITS, Record
from training.errors import BadInput


def turn(speaker: Role, text: str) -> Turn:
    return Turn(role=speaker, text=text)


def asked(text: str) -> tuple[Turn, ...]:
    return (turn(Role.CUSTOMER, text),)


def said(text: str) -> tuple[Turn, ...]:
    return (turn(Role.AGENT, text),)


def preferences(count: int, *, seed: int = 1) -> list[Preference]:
    return [
        Preference(id=c.id, turns=c.turns[:1], chosen=c.turns[1:], rejected=said("No."))
        for c in varied(count, seed=seed)
    ]


def judgements(count: int, *, every: int = 2, seed: int = 1) -> list[UnpairedPreference]:
    """Every so-maniest reply was unwanted."""
    return [
        UnpairedPreference(id=c.id, turns=c.turns, label=number % every > 0)
        for number, c in enumerate(varied(count, seed=seed))
    ]


def make_dataset(records: Iterable[Record], root: Path, **options: Any) -> Dataset:
    return create_version(records, root, system_prompt="You are brief.", **options)


def test_the_manifest_tells_the_kind_and_the_hash_any_order(tmp_path: Path) -> None:
    for kind, records in (("preferences", preferences(40)), ("judgements", judgements(40))):
        first = make_dataset(records, tmp_path)
        assert load(first.folder).kind == first.kind == kind
        random.Random(3).shuffle(records)
        assert make_dataset(records, tmp_path / "again").sha256 == first.sha256


def test_a_dataset_of_conversations_is_written_as_it_always_was(tmp_path: Path) -> None:
    dataset = make_dataset(varied(40), tmp_path)
    assert dataset.kind == "conversations"
    assert b"kind" not in (dataset.folder / "manifest.json").read_bytes()
    assert all(e.rejected is None and e.desirable for e in dataset.read("train"))
    lines = (dataset.folder / "train.jsonl").read_text()
    assert "wanted" not in lines
    assert "rejected" not in lines


def test_only_the_compared_reply_has_weight(tmp_path: Path) -> None:
    longer = [
        Preference(
            id=p.id,
            turns=(
                *asked("hello"),
                *said("Hi!"),
                turn(Role.NOTE, "a regular"),
                *p.turns,
                turn(Role.SYSTEM, "transferred"),
            ),
            chosen=(*p.chosen, *said("Anything else?")),
            rejected=p.rejected,
        )
        for p in preferences(40)
    ]
    dataset = make_dataset(longer, tmp_path)
    for example in dataset.read("train"):
        assert [(m.role, m.weight) for m in example.messages] == [
            ("user", 1),
            ("assistant", 0),
            ("user", 1),
            ("assistant", 1),
        ]
        assert example.messages[-1].content.endswith("\nAnything else?")
        assert example.rejected == "No."


def test_judgements_of_both_sorts_are_in_train_and_test(tmp_path: Path) -> None:
    dataset = make_dataset(judgements(60, every=10), tmp_path)
    assert sum(dataset.manifest.counts.values()) == 60
    for split in ("train", "test"):
        assert {example.desirable for example in dataset.read(split)} == {True, False}


@pytest.mark.parametrize("every", [1, 1000], ids=["none wanted", "hardly any unwanted"])
def test_judgements_of_one_sort_are_refused(tmp_path: Path, every: int) -> None:
    with pytest.raises(BadInput, match=r"wanted reply among its .* add more judgements"):
        make_dataset(judgements(40, every=every), tmp_path)


def test_records_of_two_kinds_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="judgements and preferences cannot be in one dataset"):
        make_dataset([*preferences(20), *judgements(20, seed=2)], tmp_path)
    with pytest.raises(BadInput, match="conversations and judgements"):
        make_dataset([*varied(20), *judgements(20, seed=2)], tmp_path)


def test_what_is_no_preference_is_dropped_and_counted(tmp_path: Path) -> None:
    question = asked("When do you open?")
    useless = [
        Preference(id="same", turns=question, chosen=said("At 9."), rejected=said(" At  9.")),
        Preference(id="no reply", turns=question, chosen=said("At 9."), rejected=()),
        Preference(id="no question", turns=(), chosen=said("At 9."), rejected=said("No.")),
        Preference(
            id="answered", turns=(*question, *said("Well,")), chosen=said("9"), rejected=said("8")
        ),
        Preference(
            id="goes on", turns=question, chosen=(*said("9"), *asked("am?")), rejected=said("No.")
        ),
        Preference(id="two", turns=question, chosen=said("9"), rejected=(*asked("or"), *said("8"))),
        Preference(id="token", turns=question, chosen=said("9"), rejected=said("<|im_end|>")),
    ]
    dataset = make_dataset([*preferences(40), *useless], tmp_path)
    assert sum(dataset.manifest.counts.values()) == 40
    dropped = {reason: count for reason, count in dataset.manifest.dropped.items() if count}
    assert dropped == {"no_preference": 1, "unanswered": 5, "control_token": 1}


def test_digits_alone_can_be_what_is_preferred(tmp_path: Path) -> None:
    hours = Preference(
        id="hours", turns=asked("When do you open?"), chosen=said("At 9."), rejected=said("At 8.")
    )
    assert sum(make_dataset([*preferences(40), hours], tmp_path).manifest.counts.values()) == 41


def test_opposite_verdicts_stay_and_share_a_split(tmp_path: Path) -> None:
    question = "could you send the blue lamp to my sister instead of my own address please"
    one = Preference(
        id="one",
        turns=asked(question),
        chosen=said("Of course."),
        rejected=said("Ask your sister."),
    )
    other = Preference(
        id="other", turns=asked(f"{question}!"), chosen=one.rejected, rejected=one.chosen
    )
    again = Preference(
        id="again", turns=asked(f"{question}?"), chosen=one.chosen, rejected=one.rejected
    )
    dataset = make_dataset([*preferences(40), one, other, again], tmp_path)
    assert dataset.manifest.dropped["exact_duplicate"] == 1
    found = [ids(dataset, split) & {"one", "other", "again"} for split in SPLITS]
    assert sorted(len(some) for some in found) == [0, 0, 2]

    good, bad = (
        UnpairedPreference(
            id=name, turns=(*asked(question), *said("Of course.")), label=name == "good"
        )
        for name in ("good", "bad")
    )
    dataset = make_dataset([*judgements(40), good, bad], tmp_path)
    assert sorted(len(ids(dataset, s) & {"good", "bad"}) for s in SPLITS) == [0, 0, 2]


def test_pinned_splits_are_kept(tmp_path: Path) -> None:
    held = [
        Preference(f"v{n}", p.turns, p.chosen, p.rejected, "validation")
        for n, p in enumerate(preferences(6, seed=9))
    ]
    dataset = make_dataset([*preferences(40), *held], tmp_path)
    assert ids(dataset, "validation") == {p.id for p in held}


def test_a_conversation_alone_is_no_judgement(tmp_path: Path) -> None:
    open_ended = UnpairedPreference(id="open", turns=asked("Hello?"), label=True)
    dataset = make_dataset([*judgements(40), open_ended], tmp_path)
    assert dataset.manifest.dropped["unanswered"] == 1
