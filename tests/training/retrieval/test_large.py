"""An index that stays in its file finds what an exact one finds."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.evaluation.samples import letters
from training.data.contexts import Context
from training.errors import ArtifactError
from training.retrieval import large
from training.retrieval.index import (
    Exchange,
    ExchangeIndex,
    Thresholds,
    Vectors,
    encode,
    reference_of,
)

ROWS, SIZE = 3_000, 32


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "EXACT_ROWS", 100)


def exchange(number: int) -> Exchange:
    """Two in a conversation; every reply is given ten times."""
    return Exchange(
        conversation=f"c{number // 2}",
        turn=1 + 2 * (number % 2),
        question=f"Where is {number}?",
        before="",
        reply=f"On its way, {number % (ROWS // 10)}.",
    )


def clustered(count: int) -> Vectors:
    """As two turns have: side by side, each of length 1."""
    source = np.random.default_rng(3)
    sides = []
    for _ in range(2):
        centres = source.standard_normal((20, SIZE))
        found = centres[source.integers(20, size=count)] + 0.5 * source.standard_normal(
            (count, SIZE)
        )
        sides.append(found / np.linalg.norm(found, axis=1, keepdims=True))
    joined: Vectors = np.concatenate(sides, axis=1).astype(np.float32)
    return joined


VECTORS = clustered(ROWS + 40)
QUERIES = VECTORS[ROWS:]


@pytest.fixture
def exact() -> ExchangeIndex:
    return ExchangeIndex(
        [exchange(number) for number in range(ROWS)],
        VECTORS[:ROWS].astype(np.float16),
        thresholds=Thresholds(0.1, 0.2),
        tokens=[[number, number + 1] if number % 3 else [] for number in range(ROWS)],
        copy_bias=0.5,
    )


@pytest.fixture
def mapped(exact: ExchangeIndex, tmp_path: Path) -> ExchangeIndex:
    exact.save(tmp_path / "index")
    return ExchangeIndex.load(tmp_path / "index")


def test_what_is_found_is_what_an_exact_search_finds(
    exact: ExchangeIndex, mapped: ExchangeIndex
) -> None:
    assert (exact.held_rows, mapped.held_rows, len(mapped)) == (ROWS, 0, ROWS)
    pairs = list(zip(exact.search(QUERIES, 3), mapped.search(QUERIES, 3), strict=True))
    shared = sum(len(set(wanted) & set(found)) for wanted, found in pairs)
    assert shared / (3 * len(QUERIES)) >= 0.95
    for _, found in pairs:
        scores = [each.score for each in found]
        assert scores == sorted(scores, reverse=True)
        assert len({each.exchange.reply for each in found}) == 3


def test_candidates_are_added_until_there_are_enough(
    exact: ExchangeIndex, mapped: ExchangeIndex
) -> None:
    every = ROWS // 10  # replies
    (found,) = mapped.search(QUERIES[:1], every)
    (wanted,) = exact.search(QUERIES[:1], every)
    assert found[:10] == wanted[:10]
    assert {each.exchange.reply for each in found} == {each.exchange.reply for each in wanted}
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)
    (all_of_them,) = mapped.search(QUERIES[:1], every + 1)
    assert len(all_of_them) == every


def test_a_conversation_does_not_find_itself(mapped: ExchangeIndex) -> None:
    contexts = [
        Context(conversation=f"c{n // 2}", turn=1 + 2 * (n % 2), history=(), reference="")
        for n in (0, 7, 2_999)
    ]
    for context, hits in zip(contexts, mapped.neighbours(contexts, 4), strict=True):
        assert len(hits) == 4
        assert all(each.exchange.conversation != context.conversation for each in hits)
    absent = Context(conversation="c1", turn=2, history=(), reference="")
    with pytest.raises(KeyError):
        mapped.neighbours([absent], 1)


def test_all_else_is_as_in_memory(exact: ExchangeIndex, mapped: ExchangeIndex) -> None:
    assert list(mapped.exchanges) == list(exact.exchanges)
    assert mapped.exchanges[-1] == exact.exchanges[-1]
    assert mapped.exchanges[5:8] == exact.exchanges[5:8]
    assert (mapped.thresholds, mapped.copy_bias) == (exact.thresholds, exact.copy_bias)
    (found,) = mapped.search(QUERIES[:1], 3)
    references = [reference_of(each) for each in found]
    assert mapped.copied(references) == exact.copied(references)
    assert mapped.calibrate() == pytest.approx(exact.calibrate(), abs=0.01)


def test_it_can_be_saved_again_with_its_graph(mapped: ExchangeIndex, tmp_path: Path) -> None:
    before = (tmp_path / "index").read_bytes()
    mapped.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == before
    mapped.copy_bias = 2.0
    mapped.save(tmp_path / "index")  # what is mapped stays what it was
    assert ExchangeIndex.load(tmp_path / "index").copy_bias == 2.0
    assert mapped.exchanges[7] == exchange(7)


def test_up_to_the_bound_there_is_no_graph(tmp_path: Path) -> None:
    few = ExchangeIndex([exchange(n) for n in range(100)], VECTORS[:100].astype(np.float16))
    few.save(tmp_path / "index")
    assert ExchangeIndex.load(tmp_path / "index").held_rows == 100


def test_two_exchanges_with_one_key_are_told_apart() -> None:
    keys = np.zeros(2, np.uint64) + large._key("a", 1)
    places = [("b", 1), ("a", 1)]
    assert large.RowsByKey(keys, places.__getitem__)["a", 1] == 1


def test_a_cut_file_is_refused_by_name(exact: ExchangeIndex, tmp_path: Path) -> None:
    path = tmp_path / "retrieval.safetensors"
    exact.save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match=r"retrieval\.safetensors"):
        ExchangeIndex.load(path)


def test_the_graph_of_other_vectors_is_refused(
    exact: ExchangeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = large.graph_parts(VECTORS[:50], [("a", 1)] * ROWS)
    monkeypatch.setattr(large, "graph_parts", lambda *_: other)
    exact.save(tmp_path / "index")
    with pytest.raises(ArtifactError, match="of other vectors"):
        ExchangeIndex.load(tmp_path / "index")


def test_items_must_fill_their_array() -> None:
    data = np.arange(5)
    assert list(large.Slices(data, np.array([2, 2, 5]), list)) == [[0, 1], [], [2, 3, 4]]
    for ends in ([2, 4], [3, 2, 5], [2, 6]):
        with pytest.raises(ValueError, match="fill"):
            large.Slices(data, np.array(ends), list)


def test_texts_are_encoded_as_for_an_exact_search(tmp_path: Path) -> None:
    exchanges = [
        Exchange(conversation=f"c{n}", turn=1, question=f"q {n}", before="", reply=f"r {n}")
        for n in range(200)
    ]
    vectors = encode([(each.question, "") for each in exchanges], letters)
    ExchangeIndex(exchanges, vectors.astype(np.float16)).save(tmp_path / "index")
    (found,) = ExchangeIndex.load(tmp_path / "index").search(encode([("q 17", "")], letters), 1)
    assert found[0].score == pytest.approx(1, abs=1e-3)
