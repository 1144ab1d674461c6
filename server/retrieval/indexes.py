"""The indexes of adapters in memory: the most recently used ones, up to a bound."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog

from training.errors import TrainingError
from training.references import Reference

if TYPE_CHECKING:
    from training.retrieval.index import ExchangeIndex

log = structlog.get_logger(__name__)

MAX_ROWS = 100_000
"""Exchanges in memory: about 4 KB each (3 of vectors, the text), 400 MB in all. The last one used stays,
whatever its size."""


class LoadedIndex(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter's index, and how many references it was trained with.

    Where the index has a bias, the words of the nearest reply are raised (`training.evaluation.copying`).
    """

    index: "ExchangeIndex"
    references: int
    dataset: str

    def logit_bias(self, references: Sequence[Reference]) -> dict[int, float]:
        """What the engine adds to the logits of the nearest past reply's tokens, in nats."""
        bias = self.index.copy_bias
        return dict.fromkeys(self.index.copied(references), bias) if bias else {}


class IndexCache:
    """Reads indexes from adapters' folders, which never change. Use on one event loop."""

    def __init__(self, *, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._loaded: OrderedDict[str, LoadedIndex | None] = OrderedDict()
        self._loading = asyncio.Lock()

    async def get(self, folder: str) -> LoadedIndex | None:
        """The index of an adapter; None where it is served without, or its index cannot be read."""
        if folder not in self._loaded:
            async with self._loading:  # one at a time, each once
                if folder not in self._loaded:
                    self._loaded[folder] = await asyncio.to_thread(_load, Path(folder))
                self._loaded.move_to_end(folder)
                while len(self._loaded) > 1 and self._rows > self._max_rows:
                    self._loaded.popitem(last=False)
                return self._loaded[folder]
        self._loaded.move_to_end(folder)
        return self._loaded[folder]

    @property
    def _rows(self) -> int:
        # an adapter without one counts as well: their number has a bound too
        return sum(1 if one is None else len(one.index) for one in self._loaded.values())


def has_index(adapters: Path) -> bool:
    """Whether one of the published adapters has an index."""
    from training.adapters.package import INDEX_NAME  # noqa: PLC0415 - not before it is needed

    return next(adapters.glob(f"*/{INDEX_NAME}"), None) is not None


def _load(folder: Path) -> LoadedIndex | None:
    from training.adapters.package import INDEX_NAME, read_manifest  # noqa: PLC0415 - loads numpy
    from training.retrieval.index import ExchangeIndex  # noqa: PLC0415

    if not (folder / INDEX_NAME).is_file():
        return None
    try:
        manifest = read_manifest(folder)
        index = ExchangeIndex.load(folder / INDEX_NAME)
    except TrainingError:
        log.exception("an index cannot be read: answers go without", folder=str(folder))
        return None
    if not manifest.recipe.references and not index.copy_bias:
        return None
    return LoadedIndex(
        index=index, references=manifest.recipe.references, dataset=manifest.dataset_sha256
    )
