"""A tenant's articles are shown in training as serving would show them, and only a whole file holds them."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.evaluation.samples import conversation, letters
from training.data.contexts import contexts_of
from training.errors import BadInput
from training.references import ARTICLE_SCORE, ARTICLES, Piece, show
from training.retrieval import articles as module
from training.retrieval.articles import ArticleIndex, sha256_of
from training.retrieval.index import ExchangeIndex, reference_of
from training.retrieval.nearest import lengths_of, nearest
from training.retrieval.prompts import find_references, training_turns

TEXTS = ["Rye bread is baked on Fridays.", "Milk comes from Alm.", "Zzz qqq xxx."]
EXAMPLES = [
    conversation("bread", "is rye bread baked on fridays", "It is.", "and cake", "On Sundays."),
    conversation("milk", "where does milk come from", "From Alm."),
    conversation("jazz", "kkkkkk", "What?"),
]


def index_of(texts: list[str]) -> ArticleIndex:
    pieces = [
        Piece(id=f"a{number}@1#0", title=f"T{number}", headings=("H",), text=text)
        for number, text in enumerate(texts)
    ]
    return ArticleIndex(pieces, letters(texts).astype(np.float16))


@pytest.fixture
def articles() -> ArticleIndex:
    return index_of(TEXTS)


def test_a_question_is_shown_the_nearest_piece_where_that_is_near(articles: ArticleIndex) -> None:
    found = articles.search(letters(["is rye bread baked on fridays", "kkkkkk"]))
    assert [[each.title for each in one] for one in found] == [["T0 > H"], []]
    assert found[0][0].kind == "article"
    assert ARTICLE_SCORE <= found[0][0].score <= 1
    assert articles.search(letters(["bread"])[:0]) == []


def test_many_questions_at_once_find_what_each_finds_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(1)
    rows = random.normal(size=(700, 384)).astype(np.float16)
    rows[500:] = rows[:200]  # twins: of equally near ones the earlier is found
    pieces = [Piece(id=str(n), title="", headings=(), text="") for n in range(len(rows))]
    questions = rows[random.permutation(700)].astype(np.float32)
    questions += random.normal(scale=2.3, size=questions.shape).astype(np.float32)
    questions /= np.linalg.norm(questions, axis=1, keepdims=True)
    expected = [
        [
            (str(row), round(score, 4))
            for row, score in nearest(rows, lengths_of(rows), each, ARTICLES)
            if score >= ARTICLE_SCORE
        ]
        for each in questions
    ]
    assert {len(each) for each in expected} == {0, 1}
    for most in (1 << 24, 5_000):  # in one block, and in many
        monkeypatch.setattr(module, "MOST_SCORES", most)
        found = ArticleIndex(pieces, rows).search(questions)
        assert [[(each.id, each.score) for each in one] for one in found] == expected


def test_of_equally_near_rows_the_earlier_come_first() -> None:
    rows = np.ones((9, 4), dtype=np.float16)
    rows[4] = -1
    found = nearest(rows, lengths_of(rows), np.ones(4, dtype=np.float32), 3)
    assert [row for row, _ in found] == [0, 1, 2]
    assert nearest(rows[:0], lengths_of(rows[:0]), np.ones(4, dtype=np.float32), 3) == []


def test_equal_pieces_are_one_file_by_its_hash(articles: ArticleIndex, tmp_path: Path) -> None:
    path = articles.save(tmp_path)
    assert index_of(TEXTS).save(tmp_path) == path
    assert index_of(TEXTS[:2]).save(tmp_path) != path
    loaded = ArticleIndex.load(path)
    assert loaded.pieces == articles.pieces
    questions = letters(["rye bread", "milk", "zzz"])
    assert loaded.search(questions) == articles.search(questions)


@pytest.mark.parametrize("damage", ["changed", "absent", "renamed", "other"])
def test_a_damaged_file_is_refused_by_name(
    articles: ArticleIndex, tmp_path: Path, damage: str
) -> None:
    path = articles.save(tmp_path)
    match damage:
        case "changed":
            path.write_bytes(path.read_bytes().replace(b"Fridays", b"Mondays"))
        case "absent":
            path.unlink()
        case "renamed":
            path = path.rename(tmp_path / "articles.safetensors")
        case "other":
            other = path.with_name(path.name.replace(sha256_of(path), "0" * 64))
            path = path.rename(other)
    with pytest.raises(BadInput, match=path.name):
        ArticleIndex.load(path)


def turns(
    articles: ArticleIndex | None,
    *,
    count: int = 2,
    unreferenced: float = 0,
    distractors: float = 0,
) -> dict[str, dict[int, str]]:
    return training_turns(
        EXAMPLES,
        ExchangeIndex.build(EXAMPLES, embed=letters) if count else None,
        count,
        unreferenced=unreferenced,
        distractors=distractors,
        seed=1,
        embed=letters,
        articles=articles,
    )


def test_in_training_articles_stand_behind_the_exchanges(articles: ArticleIndex) -> None:
    index = ExchangeIndex.build(EXAMPLES, embed=letters)
    shown = turns(articles)
    for example in EXAMPLES:
        for context in contexts_of(example):
            (past,) = index.neighbours([context], 2)
            (near,) = articles.search(letters([context.question]))
            expected = show(context.question, [*map(reference_of, past), *near])
            assert shown[context.conversation][context.turn] == expected
    assert shown["bread"][1].startswith("Q: T0 > H\nA: Rye bread is baked on Fridays.\nQ: ")
    assert turns(None)["bread"][1] == shown["bread"][1].split("\n", 2)[2]  # the rest is as without


def test_where_no_exchanges_are_shown_articles_are_alone(articles: ArticleIndex) -> None:
    shown = turns(articles, count=0)
    assert shown["milk"] == {1: "Q: T1 > H\nA: Milk comes from Alm.\n\nwhere does milk come from"}
    assert "jazz" not in shown  # nothing is near: as it stands in the conversation
    assert turns(None, count=0) == {}
    held_out = contexts_of(EXAMPLES[1])
    (found,) = find_references(held_out, None, 0, embed=letters, articles=articles)
    assert show(held_out[0].question, found) == shown["milk"][1]


def test_shares_of_nothing_and_of_distractors_hold_for_articles_too(articles: ArticleIndex) -> None:
    assert turns(articles, unreferenced=1) == {}
    far = turns(articles, count=0, distractors=1)
    assert far == turns(articles, count=0, distractors=1)
    assert set(far) == set(turns(articles, count=0))
    many = index_of([TEXTS[1], *(f"Zzz qqq xxx {number}." for number in range(30))])
    assert "Milk comes" not in turns(many, count=0, distractors=1)["milk"][1]
