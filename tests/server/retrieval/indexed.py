"""A served adapter with an index, over the fake engine and the fake encoder."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from server.embeddings.encoders import FakeEncoder
from tests.server.serving import Serving
from tests.training.evaluation.samples import conversation
from training.adapters.package import INDEX_NAME, AdapterManifest, BaseRef, LoraShape
from training.config import load_recipe
from training.data.dataset import Example
from training.retrieval.index import ExchangeIndex, Thresholds, Vectors

DATASET = "d" * 64
PAST = [
    conversation("c1", "where is my parcel", "Look under My Orders.", "and my refund", "Monday."),
    conversation("c2", "how do i cancel my order", "Cancel it under My Orders."),
    conversation("c3", "do you bake rye bread", "On Fridays."),
]


def words(texts: Sequence[str]) -> Vectors:
    """As the fake encoder has it."""
    found: Vectors = np.array(FakeEncoder().encode(texts), dtype=np.float32)
    return found


def letters_of(reply: str) -> list[int]:
    """A token for each letter, and one that ends the turn."""
    return sorted({*map(ord, reply), 0})


async def publish(
    server: Serving,
    slug: str = "acme",
    *,
    past: Sequence[Example] = PAST,
    references: int = 2,
    threshold: float = 0.7,
    copy_bias: float = 0.0,
    draft_weight: float = 1.0,
    **options: Any,
) -> ExchangeIndex:
    """Make a version live that is served with an index; returns the index.

    With ``copy_bias`` a letter of a reply is a token.
    """
    adapter = await server.adapter(slug, **options)
    folder = server.settings.adapters / adapter.engine_name
    manifest = AdapterManifest(
        label=slug,
        base=BaseRef(name=server.settings.base, serving_sha256="0" * 64),
        dataset_sha256=DATASET,
        system_prompt="",
        recipe=msgspec.structs.replace(load_recipe("cpu-small"), references=references),
        seed=1,
        lora=LoraShape(rank=8, alpha=16, targets=("q_proj",)),
        packages={},
        created_at="2026-11-01T00:00:00+00:00",
    )
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    tokenize = letters_of if copy_bias else None
    index = ExchangeIndex.build(past, embed=words, tokenize=tokenize)
    index.copy_bias = copy_bias
    index.draft_weight = draft_weight
    index.thresholds = Thresholds(threshold, threshold)
    index.save(folder / INDEX_NAME)
    return index
