"""Safetensors files without torch: the header checked strictly, tensors as float32 arrays.

The format (https://github.com/huggingface/safetensors#format): eight bytes with the header's
length (little-endian), the header as a JSON object, then the tensors' bytes without gaps.

The safetensors library (0.8) does not replace this. It accepts a name given twice, unknown fields and
headers of 100 MB; its numpy reader knows no bfloat16, which adapters and bases are stored in; and
``deserialize`` needs the whole file in memory.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import numpy as np
import numpy.typing as npt

from training.errors import ArtifactError

# safetensors' own reader stops at 100 MB; an adapter for 126 layers needs about 0.3 MB.
MAX_BASE_HEADER_BYTES = 100_000_000
MAX_ADAPTER_HEADER_BYTES = 8 * 1024 * 1024

CHUNK_BYTES = 1 << 20
_LENGTH_BYTES = 8
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1}
_ITEM_BYTES |= {"U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}


class TensorInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor of the header. ``data_offsets`` count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor's data in the file."""
        return self.data_offsets[1] - self.data_offsets[0]


class TensorFile:
    """An open safetensors file, to be used in a ``with`` block.

    Raises:
        ArtifactError: the file cannot be opened, or its header is not exactly what the format
            asks for: bounded, no name twice, no gap, no overlap, no byte left over.
    """

    def __init__(self, path: Path, *, max_header_bytes: int) -> None:
        self.path = path
        self._file: BinaryIO
        try:
            self._file = path.open("rb")
        except OSError as exc:
            raise ArtifactError(f"cannot read {path}: {exc.strerror}") from exc
        try:
            self.tensors = self._read_header(max_header_bytes)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def _read_header(self, max_header_bytes: int) -> dict[str, TensorInfo]:
        file_bytes = os.fstat(self._file.fileno()).st_size
        length = int.from_bytes(self._file.read(_LENGTH_BYTES), "little")
        if not 0 < length <= min(max_header_bytes, file_bytes - _LENGTH_BYTES):
            raise ArtifactError(f"{self.path}: not a safetensors file (header of {length} bytes)")
        self._data_start = _LENGTH_BYTES + length
        raw = self._file.read(length)
        if not raw.startswith(b"{"):
            raise ArtifactError(f"{self.path}: not a safetensors file (no header)")
        try:
            entries = cast("dict[str, Any]", json.loads(raw, object_pairs_hook=_unique))
            entries.pop("__metadata__", None)
            tensors = msgspec.convert(entries, dict[str, TensorInfo])
        except (ValueError, RecursionError, msgspec.ValidationError) as exc:
            raise ArtifactError(f"{self.path}: bad safetensors header: {exc}") from exc
        _check_layout(self.path, tensors, data_bytes=file_bytes - self._data_start)
        return tensors

    def read(
        self, name: str, *, rows: int | None = None, start: int = 0
    ) -> npt.NDArray[np.float32]:
        """Return a tensor of dtype F32, F16 or BF16 as float32; of a matrix ``rows`` from ``start``.

        Raises:
            ArtifactError: another dtype, or the file ends early.
        """
        info = self.tensors[name]
        shape, skipped = info.shape, 0
        if rows is not None:
            shape = (min(rows, info.shape[0] - start), *info.shape[1:])
            skipped = start * math.prod(info.shape[1:]) * _ITEM_BYTES[info.dtype]
        count = math.prod(shape)
        self._file.seek(self._data_start + info.data_offsets[0] + skipped)
        data = self._file.read(count * _ITEM_BYTES[info.dtype])
        if len(data) != count * _ITEM_BYTES[info.dtype]:
            raise ArtifactError(f"{self.path}: tensor {name!r} ends early")
        match info.dtype:
            case "F32":
                values = np.frombuffer(data, dtype="<f4").astype(np.float32, copy=False)
            case "F16":
                values = np.frombuffer(data, dtype="<f2").astype(np.float32)
            case "BF16":
                # bfloat16 is the upper half of a float32, which numpy cannot name.
                widened = np.frombuffer(data, dtype="<u2").astype(np.uint32) << np.uint32(16)
                values = widened.view(np.float32)
            case _:
                raise ArtifactError(f"{self.path}: tensor {name!r} has dtype {info.dtype}")
        return values.reshape(shape)

    def header(self) -> bytes:
        """The file's bytes before its tensors."""
        self._file.seek(0)
        return self._file.read(self._data_start)

    def raw(self, name: str) -> Iterator[bytes]:
        """A tensor's bytes as they are, in chunks.

        Raises:
            ArtifactError: the file ends early.
        """
        info = self.tensors[name]
        left = info.size_bytes
        while left:
            self._file.seek(self._data_start + info.data_offsets[1] - left)
            chunk = self._file.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise ArtifactError(f"{self.path}: tensor {name!r} ends early")
            left -= len(chunk)
            yield chunk


def as_bytes(values: npt.NDArray[np.float32], dtype: str) -> bytes:
    """The values as a safetensors file holds them: ``F32``, or ``BF16`` rounded to nearest even."""
    if dtype == "F32":
        return values.astype("<f4", copy=False).tobytes()
    if dtype != "BF16":
        raise ValueError(f"cannot write {dtype}")
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype("<u2").tobytes()


def write_tensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtype: str,
    values: Callable[[str], npt.NDArray[np.float32]],
) -> None:
    """Write a safetensors file with one tensor in memory at a time, and flush it to the disk."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        end = position + math.prod(shape) * _ITEM_BYTES[dtype]
        header[name] = TensorInfo(dtype, shape, (position, end))
        position = end
    encoded = msgspec.json.encode(header)
    encoded += b" " * (-len(encoded) % _LENGTH_BYTES)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded)
        for name in shapes:
            file.write(as_bytes(values(name), dtype))
        file.flush()
        os.fsync(file.fileno())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name given twice: readers differ in which of the two they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _check_layout(path: Path, tensors: Mapping[str, TensorInfo], *, data_bytes: int) -> None:
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        item_bytes = _ITEM_BYTES.get(info.dtype)
        if item_bytes is None:
            raise ArtifactError(f"{path}: tensor {name!r} has unknown dtype {info.dtype!r}")
        if min(info.shape, default=0) < 0 or math.prod(info.shape) * item_bytes != info.size_bytes:
            raise ArtifactError(f"{path}: tensor {name!r}: shape and size disagree")
        if info.data_offsets[0] != position:
            raise ArtifactError(f"{path}: tensor {name!r}: gap or overlap in the data")
        position = info.data_offsets[1]
    if position != data_bytes:
        raise ArtifactError(f"{path}: {data_bytes} bytes of data, the header tells of {position}")


def parameter_count(path: Path) -> int:
    """How many numbers an adapter's file holds.

    Raises:
        ArtifactError: it is not a safetensors file.
    """
    with TensorFile(path, max_header_bytes=MAX_ADAPTER_HEADER_BYTES) as file:
        return sum(math.prod(info.shape) for info in file.tensors.values())
