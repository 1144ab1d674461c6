"""What an index of more than `EXACT_ROWS` exchanges is made of: parts that stay in the file, and a graph.

The file has two tensors more than that of a smaller index, and is mapped, not read: what a search needs of
it comes into memory, and the system may let it go again::

    graph     bytes: usearch's HNSW graph over the vectors, which it holds in float16 (Malkov and Yashunin
              2016, arXiv 1603.09320)
    keys      (exchanges) uint64: what `RowsByKey` finds an exchange by

The graph names candidates, whose scores are then computed as in an exact search. What it costs and finds is in
``training/LOG.md`` (``tests/bench/retrieval.py``).
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

EXACT_ROWS = 100_000
"""Up to here every row is compared."""

EXPANSION_ADD = 128
"""Rows that are looked at for each new one's place in the graph: usearch's own default."""
EXPANSION_SEARCH = 1024
"""Rows that a search looks at: some 5 ms of a core."""
CANDIDATES = 64
"""Rows that a search takes from the graph at first: no reply is found twice, and one conversation is left out."""
GROWTH = 8
"""So many times more where these were not enough."""

_DTYPES = {"F16": np.float16, "U8": np.uint8, "I32": np.int32, "I64": np.int64, "U64": np.uint64}
_LENGTH_BYTES = 8

T = TypeVar("T")
Parts = dict[str, npt.NDArray[Any]]
"""The tensors of a file by name."""


def graph_parts(
    vectors: "npt.NDArray[np.float32] | GraphedVectors", places: Iterable[tuple[str, int]]
) -> Parts:
    """What the file of a large index has more than that of another. Two graphs of the same rows differ in bytes.

    Args:
        vectors: (rows, dimensions), all of one length. A graph that is there already is taken again.
        places: of each row the exchange's conversation and turn.
    """
    if isinstance(vectors, GraphedVectors):
        return {"graph": vectors.graph, "keys": vectors.keys}
    from usearch.index import Index  # noqa: PLC0415 - 0.2 s, and few tenants are so large

    graph = Index(ndim=vectors.shape[1], metric="ip", dtype="f16", expansion_add=EXPANSION_ADD)
    graph.add(np.arange(len(vectors)), vectors.astype(np.float16))
    return {
        "graph": np.frombuffer(graph.save(), dtype=np.uint8),
        "keys": np.array([_key(*each) for each in places], dtype=np.uint64),
    }


def map_parts(path: Path) -> Parts:
    """The tensors of a safetensors file, mapped: read where they are used.

    Raises:
        OSError: the file cannot be read.
        ValueError: it ends early, or a tensor has a type that an index has none of.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        header = json.loads(file.read(length))
        size = os.fstat(file.fileno()).st_size
    start = _LENGTH_BYTES + length
    found: Parts = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        dtype = _DTYPES.get(info["dtype"])
        if dtype is None or start + end > size:
            raise ValueError(f"tensor {name!r} is cut short, or of type {info['dtype']}")
        shape = tuple(info["shape"])
        found[name] = (
            np.memmap(path, dtype, "r", offset=start + begin, shape=shape)
            if end > begin
            else np.zeros(shape, dtype)
        )
    return found


class GraphedVectors:
    """Vectors that stay in their file in float16, and are searched by a graph.

    Args:
        vectors: (rows, dimensions), mapped; all of one length.
        graph: from `graph_parts`, mapped, as is the next.
        keys: of each row, for `RowsByKey`.

    Raises:
        ValueError: they do not belong together.
    """

    def __init__(
        self,
        vectors: npt.NDArray[np.float16],
        *,
        graph: npt.NDArray[np.uint8],
        keys: npt.NDArray[np.uint64],
    ) -> None:
        from usearch.index import Index  # noqa: PLC0415

        self.graph, self.keys = graph, keys
        self._vectors = vectors
        self._index = Index(ndim=vectors.shape[1], metric="ip", dtype="f16")
        try:
            self._index.view(graph)
        except RuntimeError as exc:
            raise ValueError(f"the graph cannot be read: {exc}") from exc
        if (
            not len(self._index) == len(vectors) == len(keys)
            or self._index.ndim != vectors.shape[1]
        ):
            raise ValueError("the graph is of other vectors")
        self._index.expansion_search = EXPANSION_SEARCH
        self._lock = threading.Lock()  # one search at a time uses the index's memory for searches

    dtype = np.dtype(np.float16)

    def __len__(self) -> int:
        return len(self._vectors)

    def __getitem__(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        return self._vectors[rows].astype(np.float32)

    def astype(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """All of them, as `numpy.ndarray.astype`."""
        return self._vectors.astype(dtype, copy=False)

    def nearest(self, query: npt.NDArray[Any]) -> Iterator[tuple[int, float]]:
        """Rows and the products of their vectors with ``query``, the nearest first, until nobody asks for more."""
        seen: set[int] = set()
        count = CANDIDATES
        while len(seen) < len(self):
            with self._lock:
                matches = self._index.search(query.astype(np.float16), min(count, len(self)))
            rows = np.setdiff1d(matches.keys.astype(np.int64), list(seen))
            if not len(rows):
                return
            scores = self._vectors[rows].astype(np.float32) @ query.astype(np.float32)
            for at in np.argsort(-scores, kind="stable"):
                yield int(rows[at]), float(scores[at])
            seen.update(rows.tolist())
            count *= GROWTH


class Slices(Sequence[T]):
    """Items that lie one after the other in an array, made when they are asked for.

    Args:
        data: all of them.
        ends: where each ends.
        make: an item of its part of ``data``.

    Raises:
        ValueError: ``ends`` do not cut ``data`` into items.
    """

    def __init__(
        self, data: npt.NDArray[Any], ends: npt.NDArray[np.int64], make: Callable[[Any], T]
    ) -> None:
        if len(ends) and (ends[-1] != len(data) or np.any(np.diff(ends) < 0)):
            raise ValueError("its items do not fill it")
        self._data, self._ends, self._make = data, ends, make

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        at = range(len(self))[at]
        start = self._ends[at - 1] if at else 0
        return self._make(self._data[start : self._ends[at]])


class RowsByKey:
    """Finds the row of an exchange by its conversation and turn.

    Args:
        keys: a number of each row's conversation and turn.
        place: the conversation and turn of a row: two may have one number.
    """

    def __init__(
        self, keys: npt.NDArray[np.uint64], place: Callable[[int], tuple[str, int]]
    ) -> None:
        self._keys, self._place = keys, place

    def __getitem__(self, place: tuple[str, int]) -> int:
        for row in np.flatnonzero(self._keys == _key(*place)).tolist():
            if self._place(row) == place:
                return int(row)
        raise KeyError(place)


def _key(conversation: str, turn: int) -> np.uint64:
    digest = hashlib.blake2b(f"{conversation}:{turn}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))
