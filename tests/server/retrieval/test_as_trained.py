"""What a model reads at serving is what it read in training, token by token."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.conversation import ChatMessage
from server.knowledge.pieces import freeze
from tests.server.knowledge.conftest import Knowledge
from tests.server.retrieval.indexed import publish, words
from tests.server.retrieval.test_grounding import BREAD, asked, knowledge
from tests.server.serving import Serving, database_url, server
from tests.tiny import make_tiny_tokenizer
from tests.training.evaluation.samples import conversation
from training.data.chat_template import token_ids, training_sequences
from training.data.dataset import Example
from training.retrieval.articles import ArticleIndex
from training.retrieval.index import ExchangeIndex
from training.retrieval.prompts import training_turns

__all__ = ["asked", "database_url", "knowledge", "server"]

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]

SYSTEM = "You answer for Loaf, a bakery."
LEARNT = conversation(
    "learnt",
    "do you bake rye bread",
    "Yes, on Fridays.",
    "and where is my parcel",
    "Under My Orders.",
    "zebra quantum volcano",
    "Pardon?",
)
OTHERS = [
    conversation("c1", "where is my parcel", "Look under My Orders.", "and my refund", "Monday."),
    conversation("c2", "do you bake white bread", "Every day."),
    conversation("c3", "is rye bread baked today", "It is."),
]
BEHIND = {True: [1, 3, 5], False: [1]}
"""Replies that are shown something, with exchanges and without."""


def read_in_training(
    tokenizer: Any, example: Example, shown: dict[int, str]
) -> Iterator[tuple[int, list[int]]]:
    """(place of a reply, the tokens before it), of each reply of a conversation that is learnt from."""
    system = [ChatMessage("system", SYSTEM)]
    sequences = training_sequences(
        tokenizer,
        [*system, *example.messages],
        stop_ids={tokenizer.eos_token_id},
        max_length=4096,
        shown={place + 1: text for place, text in shown.items()},
    )
    places = [place for place, message in enumerate(example.messages) if message.role != "user"]
    learnt = {}
    for sequence in sequences:
        for path in sequence.paths():
            ids = [sequence.token_ids[at] for at in path]
            mask = [sequence.loss_mask[at] for at in path]
            for start, is_learnt in enumerate(mask):
                if is_learnt and not mask[start - 1]:
                    end = start + (
                        mask[start:].index(False) if False in mask[start:] else len(mask)
                    )
                    learnt[tokenizer.decode(ids[start:end])] = ids[:start]
    for place in places:
        yield place, learnt[f"{example.messages[place].content}<|im_end|>"]


@pytest.mark.parametrize("references", [2, 0])
async def test_from_the_frozen_articles_to_the_token_ids(
    server: Serving,
    asked: list[dict[str, Any]],
    knowledge: Knowledge,
    tmp_path: Path,
    references: int,
) -> None:
    tenant = await server.tenant()
    await knowledge.add(tenant, BREAD, "bread.md")
    frozen = await freeze(server.database, tenant, tmp_path / "job")
    assert frozen is not None
    examples = [LEARNT, *OTHERS]
    shown = training_turns(
        examples,
        ExchangeIndex.build(examples, embed=words),
        references,
        unreferenced=0,
        distractors=0,
        seed=1,
        embed=words,
        articles=ArticleIndex.load(frozen),
    )["learnt"]
    assert sorted(shown) == BEHIND[references > 0]
    assert shown[1].startswith("Q: Bread > Rye\nA: Do you bake rye bread? ")
    assert shown[1].count("\nA: ") == references + 1

    # a reply never sees its own conversation in training: serve without it
    await publish(server, past=OTHERS, references=references, copy_bias=0.5, system_prompt=SYSTEM)
    client = server.openai(await server.key())
    tokenizer = make_tiny_tokenizer()
    for place, tokens in read_in_training(tokenizer, LEARNT, shown):
        said: list[Any] = [
            {"role": each.role, "content": each.content} for each in LEARNT.messages[:place]
        ]
        await client.chat.completions.create(model="acme", messages=said)
        served = [
            each if isinstance(each, dict) else {"role": each.role, "content": each.content}
            for each in asked[-1]["messages"]
        ]
        text = tokenizer.apply_chat_template(served, tokenize=False, add_generation_prompt=True)
        assert token_ids(tokenizer, text) == tokens, place
        assert (shown.get(place) or said[-1]["content"]) == served[-1]["content"]
