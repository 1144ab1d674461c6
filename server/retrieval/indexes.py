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
"""Exchanges in memory: about 4 KB each (3 of vectors, the text), 400 MB in all. One index alone has no more: a larger
one stays in its file (`training.retrieval.large`)."""


class LoadedIndex(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter's index, and how many references it was trained with.

    Where the index has a bias, the words of the nearest reply are raised (`training.evaluation.copying`), and
    where it says so, agents' own replies are sent (`training.retrieval.quoting`).
    """

    index: "ExchangeIndex"
    references: int

    @property
    def quotes(self) -> bool:
        """Whether a reply of the past may be sent."""
        return self.index.draft_weight < 1

    @property
    def searched(self) -> int:
        """How many exchanges are looked up."""
        from training.retrieval.quoting import CANDIDATES  # noqa: PLC0415 - not before it is needed

        return max(1, self.references, CANDIDATES if self.quotes else 0)

    def supports(self, exchanges: Sequence[Reference], *, is_first: bool) -> bool:
        """Whether the nearest of what was found supports an answer."""
        return bool(exchanges) and self.index.supports(exchanges[0].score, is_first=is_first)

    def logit_bias(self, references: Sequence[Reference]) -> dict[int, float]:
        """What the engine adds to the logits of the nearest past reply's tokens, in nats."""
        bias = self.index.copy_bias
        return dict.fromkeys(self.index.copied(references), bias) if bias else {}


class _Folder(msgspec.Struct, frozen=True):
    """What is known of an adapter."""

    dataset: str | None
    index: LoadedIndex | None


class IndexCache:
    """Reads indexes from adapters' folders, which never change. Use on one event loop."""

    def __init__(self, *, max_rows: int = MAX_ROWS) -> None:
        self._max_rows = max_rows
        self._loaded: OrderedDict[str, _Folder] = OrderedDict()
        self._loading = asyncio.Lock()

    async def get(self, folder: str) -> LoadedIndex | None:
        """The index of an adapter; None where it is served without, or its index cannot be read."""
        return (await self._get(folder)).index

    async def dataset(self, folder: str) -> str | None:
        """The hash of the dataset version that an adapter was trained on; None where it does not say."""
        return (await self._get(folder)).dataset

    async def _get(self, folder: str) -> _Folder:
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
        # an adapter without one, or whose index stays in its file, counts as well: their number has a bound too
        return sum(
            max(1, one.index.index.held_rows if one.index else 0) for one in self._loaded.values()
        )


def has_index(adapters: Path) -> bool:
    """Whether one of the published adapters has an index."""
    from training.adapters.package import INDEX_NAME  # noqa: PLC0415 - not before it is needed

    return next(adapters.glob(f"*/{INDEX_NAME}"), None) is not None


def _load(folder: Path) -> _Folder:
    from training.adapters.package import INDEX_NAME, read_manifest  # noqa: PLC0415 - loads numpy

    try:
        manifest = read_manifest(folder)
    except TrainingError as exc:
        log.warning("a manifest cannot be read: answers go without", reason=str(exc))
        return _Folder(None, None)
    index = None
    if (folder / INDEX_NAME).is_file():
        index = _load_index(folder / INDEX_NAME, references=manifest.recipe.references)
    return _Folder(manifest.dataset_sha256 or None, index)


def _load_index(path: Path, *, references: int) -> LoadedIndex | None:
    from training.retrieval.index import ExchangeIndex  # noqa: PLC0415 - loads numpy

    try:
        index = ExchangeIndex.load(path)
    except TrainingError:
        log.exception("an index cannot be read: answers go without", path=str(path))
        return None
    if not references and not index.copy_bias and index.draft_weight == 1:
        return None
    return LoadedIndex(index=index, references=references)
