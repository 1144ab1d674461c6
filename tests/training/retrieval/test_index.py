"""The index finds the nearest exchanges, and only a whole file is one."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.training.evaluation.samples import conversation, letters
from training.data.contexts import contexts_of
from training.data.dataset import Example
from training.errors import ArtifactError
from training.retrieval.index import ExchangeIndex, Thresholds, _ranked, encode, reference_of
from training.retrieval.prompts import find_references, training_turns

EXAMPLES = [
    conversation("bread", "do you bake bread", "Every day.", "and cake", "On Sundays."),
    conversation("milk", "is there milk", "No milk, sorry."),
    conversation("copy", "is there any milk", "No milk, sorry."),
    conversation("oven", "my oven broke", "We come on Monday."),
]


@pytest.fixture
def index() -> ExchangeIndex:
    return ExchangeIndex.build(EXAMPLES, embed=letters)


def replies(index: ExchangeIndex, question: str, count: int, before: str = "") -> list[str]:
    (found,) = index.search(encode([(question, before)], letters), count)
    return [each.exchange.reply for each in found]


def test_the_nearest_exchange_comes_first(index: ExchangeIndex) -> None:
    assert replies(index, "is there milk", 1) == ["No milk, sorry."]
    assert replies(index, "and cake", 1, before="Every day.") == ["On Sundays."]


def test_no_reply_is_found_twice(index: ExchangeIndex) -> None:
    found = replies(index, "is there milk", 9)
    assert len(found) == len(set(found)) == 4


def test_scores_fall_and_are_the_mean_of_two_cosines(index: ExchangeIndex) -> None:
    (found,) = index.search(encode([("is there milk", "")], letters), 4)
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(1, abs=1e-3)


def test_a_conversation_does_not_find_itself(index: ExchangeIndex) -> None:
    for example in EXAMPLES:
        for hits in index.neighbours(contexts_of(example), 9):
            assert all(each.exchange.conversation != example.id for each in hits)


@pytest.mark.parametrize("rows", [1, 64, 65, 500, 513, 3_000])
@pytest.mark.parametrize("kinds", [1, 3, 40, 10_000])
def test_what_is_ranked_is_what_a_stable_sort_of_all_has(rows: int, kinds: int) -> None:
    """Ties by place, those that go over the end of a step too."""
    source = np.random.default_rng(rows * kinds)
    scores = (source.integers(-kinds, kinds + 1, rows) / np.float32(kinds)).astype(np.float32)
    assert list(_ranked(scores)) == np.argsort(-scores, kind="stable").tolist()


def test_the_nearest_of_another_conversation_is_found_behind_many_that_are_passed_over() -> None:
    turns = [text for number in range(700) for text in (f"is there milk {number}", f"No {number}.")]
    examples = [conversation("long", *turns), conversation("far", "zzz", "Zzz.")]
    index = ExchangeIndex.build(examples, embed=letters)
    (hits,) = index.neighbours(contexts_of(examples[0])[:1], 2)
    assert [each.exchange.reply for each in hits] == ["Zzz."]
    templates = [conversation(f"c{number}", "is there milk", "No.") for number in range(700)]
    index = ExchangeIndex.build([*templates, conversation("far", "zzz", "Zzz.")], embed=letters)
    assert replies(index, "is there milk", 2) == ["No.", "Zzz."]


def test_replies_without_weight_are_not_in_it() -> None:
    index = ExchangeIndex.build(
        [conversation("one", "hello", "Hi.", "and", "Bye.", weights=[1])], embed=letters
    )
    assert [each.reply for each in index.exchanges] == ["Bye."]


def test_it_is_the_same_after_saving(index: ExchangeIndex, tmp_path: Path) -> None:
    path = tmp_path / "retrieval.safetensors"
    index.thresholds = Thresholds(0.25, 0.5)
    index.save(path)
    loaded = ExchangeIndex.load(path)
    assert loaded.exchanges == index.exchanges
    assert loaded.thresholds == (0.25, 0.5)
    for question in ("is there milk", "my oven"):
        assert replies(loaded, question, 3) == replies(index, question, 3)


def test_a_reply_s_tokens_and_the_bias_are_kept(tmp_path: Path) -> None:
    tokens = {
        "Every day.": [5, 9],
        "On Sundays.": [],
        "No milk, sorry.": [1],
        "We come on Monday.": [3],
    }
    index = ExchangeIndex.build(EXAMPLES, embed=letters, tokenize=tokens.__getitem__)
    index.copy_bias, index.draft_weight = 0.75, 0.2
    index.products = ("family loaf",)
    index.save(tmp_path / "index")
    loaded = ExchangeIndex.load(tmp_path / "index")
    assert (loaded.copy_bias, loaded.draft_weight) == (0.75, 0.2)
    assert loaded.products == ("family loaf",)
    assert loaded.tokens == [tokens[each.reply] for each in loaded.exchanges]
    (found,) = loaded.search(encode([("my oven", "")], letters), 2)
    references = [reference_of(each) for each in found]
    article = msgspec.structs.replace(references[0], kind="article", id="a@1#0")
    assert loaded.copied([article, *references]) == [3]
    assert loaded.copied([article]) == loaded.copied([]) == ()


def test_equal_data_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        ExchangeIndex.build(EXAMPLES, embed=letters).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("damage", ["cut", "other", "absent", "texts"])
def test_a_damaged_file_is_refused_by_name(
    index: ExchangeIndex, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "retrieval.safetensors"
    index.save(path)
    data = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(data[:-40])
        case "other":
            path.write_bytes(b"not safetensors at all")
        case "absent":
            path.unlink()
        case "texts":
            path.write_bytes(data.replace(b'"question"', b'"Question"', 1))
    with pytest.raises(ArtifactError, match=r"retrieval\.safetensors"):
        ExchangeIndex.load(path)


def test_an_index_of_nothing_finds_nothing(tmp_path: Path) -> None:
    index = ExchangeIndex.build([], embed=letters)
    index.save(tmp_path / "empty")
    assert replies(ExchangeIndex.load(tmp_path / "empty"), "is there milk", 2) == []


def test_the_threshold_is_what_most_of_the_own_questions_reach() -> None:
    words = ["bread", "cake", "milk", "oven", "refund", "order", "parcel", "invoice"]
    examples = [
        conversation(f"c{number}", f"a question about {word} {number % 3}", f"Reply {number}.")
        for number, word in enumerate(words * 6)
    ]
    index = ExchangeIndex.build(examples, embed=letters)
    contexts = [context for example in examples for context in contexts_of(example)]
    best = [hits[0].score for hits in index.neighbours(contexts, 1)]
    above = sum(index.supports(score, is_first=True) for score in best) / len(best)
    assert 0.9 <= above <= 1
    (far,) = index.search(encode([("zzz qqq xxx", "jjj")], letters), 1)
    assert not index.supports(far[0].score, is_first=False)
    (far,) = index.search(encode([("zzz qqq xxx", "")], letters), 1)
    assert not index.supports(far[0].score, is_first=True)  # although half of its score is 1


def test_beginnings_and_later_questions_have_thresholds_of_their_own() -> None:
    examples = [
        conversation(f"c{number}", f"may i ask {word}", "Yes?", f"{word} {number}", f"{number}.")
        for number, word in enumerate(["bread", "cake", "milk", "oven", "jam"] * 5)
    ]
    first, later = ExchangeIndex.build(examples, embed=letters).thresholds
    assert first > later > 0
    # too few of one sort: both stand for it
    few = [*examples[:8], *(conversation(f"d{n}", f"bread {n}", f"No {n}.") for n in range(30))]
    first, later = ExchangeIndex.build(few, embed=letters).thresholds
    assert -1 < later <= first
    assert ExchangeIndex.build(examples[:3], embed=letters).thresholds == (-1, -1)


def test_progress_can_stop_it() -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ExchangeIndex.build(EXAMPLES, embed=letters, on_progress=stop)


def turns(examples: list[Example], **options: float) -> dict[str, dict[int, str]]:
    index = ExchangeIndex.build(examples, embed=letters)
    return training_turns(
        examples,
        index,
        2,
        unreferenced=options.get("unreferenced", 0),
        distractors=options.get("distractors", 0),
        seed=1,
        embed=letters,
    )


def test_in_training_a_reply_is_shown_others_and_never_its_own_conversation() -> None:
    shown = turns(EXAMPLES)
    assert set(shown) == {"bread", "milk", "copy", "oven"}
    assert "No milk, sorry." in shown["milk"][1]  # of the copy
    assert "Every day." not in shown["bread"][3].removesuffix("and cake")
    for example in EXAMPLES:
        for turn, text in shown[example.id].items():
            assert text.endswith(f"\n\n{example.messages[turn - 1].content}")


def test_a_share_is_shown_nothing_and_a_share_of_references_comes_from_anywhere() -> None:
    many = [
        conversation(f"c{number}", f"question {chr(97 + number % 26) * 9}", f"Reply {number}.")
        for number in range(300)
    ]
    some = turns(many, unreferenced=0.3)
    assert 0.6 < len(some) / 300 < 0.8
    near, far = turns(many), turns(many, distractors=0.5)
    assert sum(near[name] != far[name] for name in near) / 300 > 0.5
    assert turns(many, distractors=0.5) == far


def test_at_serving_it_finds_what_it_finds_in_evaluation(index: ExchangeIndex) -> None:
    (context,) = contexts_of(conversation("held out", "is there milk", "?"))
    (references,) = find_references([context], index, 2, embed=letters)
    (found,) = index.search(encode([("is there milk", "")], letters), 2)
    assert references == [reference_of(each) for each in found]
    assert references[0].id == "copy:1" or references[0].id == "milk:1"
    assert np.isclose(references[0].score, 1, atol=1e-3)
