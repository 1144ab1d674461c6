"""Exports of an adapter: zips that stream, of any size, and with the same bytes each time.

    peft      PEFT's folder: loads with peft on the serving base
    merged    the serving base with the adapter in its weights: loads with transformers alone
    base      the serving base

Nothing here needs torch, and no file is held in memory: matrices are merged a block of rows at a
time while they are sent.
"""

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, assert_never

import msgspec
import numpy as np
import numpy.typing as npt

from training.adapters.export_readme import readme
from training.adapters.package import (
    INDEX_NAME,
    MANIFEST_NAME,
    AdapterManifest,
    read_manifest,
)
from training.adapters.safetensors_io import (
    CHUNK_BYTES,
    MAX_ADAPTER_HEADER_BYTES,
    MAX_BASE_HEADER_BYTES,
    TensorFile,
    as_bytes,
)
from training.adapters.validation import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    AdapterConfig,
    read_adapter_config,
)
from training.base_models.manifest import BaseModel, load_base, public_name
from training.errors import BaseModelError
from training.filesystem import FileEntry, replacing, sync_path, sync_tree

Form = Literal["peft", "merged", "base"]
README_NAME = "README.md"
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # always the same, so that the same adapter gives the same bytes
_MODE = 0o100644 << 16
_BLOCK_VALUES = 1 << 20  # of a matrix that are merged at a time: 4 MiB as float32


class Entry(NamedTuple):
    """A file of a zip. ``size`` is exact; ``chunks`` makes its bytes."""

    name: str
    size: int
    chunks: Callable[[], Iterable[bytes]]


def entries(form: Form, adapter: Path, base: Path) -> list[Entry]:
    """The files of a zip of this form.

    Raises:
        ArtifactError: the adapter cannot be read.
        BaseModelError: the base is not here, or is another build than the adapter's; never for
            ``peft``.
    """
    manifest = read_manifest(adapter)
    if form == "peft":
        return _peft(adapter, manifest, _base_or_none(base, manifest))
    serving_base = load_base_of(manifest, base)
    files = sorted(path for path in (base / "serving").iterdir() if path.is_file())
    text = _text(README_NAME, readme(form, manifest, serving_base))
    match form:
        case "base":
            return [text, *(_file(path.name, path) for path in files)]
        case "merged":
            config = read_adapter_config(adapter / CONFIG_NAME)
            plain = [_file(p.name, p) for p in files if p.suffix != ".safetensors"]
            weights = [_merged(p, adapter, config) for p in files if p.suffix == ".safetensors"]
            kept = _file(f"tenantune-{MANIFEST_NAME}", adapter / MANIFEST_NAME)
            return [text, kept, *plain, *weights]
        case _:
            assert_never(form)


def load_base_of(manifest: AdapterManifest, folder: Path) -> BaseModel:
    """The adapter's base from its folder.

    Raises:
        BaseModelError: it is not there, or is another build than the adapter's.
    """
    base = load_base(folder)
    if base.serving_sha256 != manifest.base.serving_sha256:
        raise BaseModelError(
            f"the adapter belongs to another build of {base.name!r} "
            f"({manifest.base.serving_sha256[:12]}) than the one here ({base.serving_sha256[:12]})"
        )
    return base


def folder_entries(folder: Path) -> list[Entry]:
    """Every file of a folder, in order of name."""
    return [_file(path.name, path) for path in sorted(folder.iterdir()) if path.is_file()]


def open_entries(folder: Path) -> list[Entry]:
    """As `folder_entries`, already open and read once: the folder may be deleted meanwhile."""
    return [_opened(path) for path in sorted(folder.iterdir()) if path.is_file()]


def write_zip(files: Iterable[Entry], path: Path) -> None:
    """Write a zip, by rename."""
    with replacing(path) as beside, beside.open("xb") as file:
        for chunk in stream(files):
            file.write(chunk)


def write_folder(files: Iterable[Entry], path: Path) -> None:
    """Write a new folder, by rename.

    Raises:
        OSError: it exists already.
    """
    beside = path.with_name(f".{path.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        for file in files:
            with (beside / file.name).open("wb") as target:
                target.writelines(file.chunks())
        sync_tree(beside)
        beside.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    sync_path(path.parent)


def stream(files: Iterable[Entry]) -> Iterator[bytes]:
    """A zip of the files, piece by piece. Not compressed: weights hardly shrink."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        for file in files:
            info = zipfile.ZipInfo(file.name, _TIMESTAMP)
            info.create_system, info.external_attr = 3, _MODE
            # deflate at level 0: in a stream, some readers cannot find the end of a stored file
            info.compress_type, info._compresslevel = zipfile.ZIP_DEFLATED, 0  # type: ignore[attr-defined]  # noqa: SLF001
            large = file.size > zipfile.ZIP64_LIMIT // 2
            with archive.open(info, "w", force_zip64=large) as target:
                for chunk in file.chunks():
                    target.write(chunk)
                    yield from pipe.take()
            yield from pipe.take()
    yield from pipe.take()


class _Pipe(io.RawIOBase):
    """A buffer: `take` returns what was written since the last call."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[bytes] = []

    def writable(self) -> bool:
        """It can be written to, and cannot seek."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Keep the data until it is taken."""
        self._held.append(bytes(data))
        return len(data)

    def take(self) -> Iterator[bytes]:
        """What was written since."""
        held, self._held = self._held, []
        if held:
            yield b"".join(held)


def _base_or_none(folder: Path, manifest: AdapterManifest) -> BaseModel | None:
    """The adapter's base, if it is here; the form ``peft`` works without it."""
    try:
        return load_base_of(manifest, folder)
    except BaseModelError:
        return None


def _peft(adapter: Path, manifest: AdapterManifest, base: BaseModel | None) -> list[Entry]:
    """PEFT's folder, with the base's public name in its configuration."""
    fields = json.loads((adapter / CONFIG_NAME).read_bytes())
    fields["base_model_name_or_path"] = public_name(base) if base else manifest.base.name
    config = (json.dumps(fields, indent=2, sort_keys=True) + "\n").encode()
    files = {**manifest.files, CONFIG_NAME: _entry_of(config)}
    files.pop(INDEX_NAME, None)  # customers' words: they stay in the house
    exported = msgspec.structs.replace(manifest, files=files)
    return [
        _text(README_NAME, readme("peft", manifest, base)),
        _bytes(CONFIG_NAME, config),
        _bytes(MANIFEST_NAME, msgspec.json.format(msgspec.json.encode(exported), indent=2) + b"\n"),
        _file(WEIGHTS_NAME, adapter / WEIGHTS_NAME),
    ]


def _entry_of(data: bytes) -> FileEntry:
    return FileEntry(hashlib.sha256(data).hexdigest(), len(data))


def _text(name: str, text: str) -> Entry:
    return _bytes(name, text.encode())


def _bytes(name: str, data: bytes) -> Entry:
    return Entry(name, len(data), lambda: (data,))


def _file(name: str, path: Path) -> Entry:
    def chunks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    return Entry(name, path.stat().st_size, chunks)


def _opened(path: Path) -> Entry:
    opened = path.open("rb")

    def chunks() -> Iterator[bytes]:
        with opened as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    return Entry(path.name, path.stat().st_size, chunks)


def _merged(weights: Path, adapter: Path, config: AdapterConfig) -> Entry:
    """One file of the base's weights, with the same header, and B·A added to adapted layers."""

    def chunks() -> Iterator[bytes]:
        with (
            TensorFile(weights, max_header_bytes=MAX_BASE_HEADER_BYTES) as file,
            TensorFile(adapter / WEIGHTS_NAME, max_header_bytes=MAX_ADAPTER_HEADER_BYTES) as lora,
        ):
            yield file.header()
            order = sorted(file.tensors.items(), key=lambda each: each[1].data_offsets)
            for name, info in order:
                module = f"base_model.model.{name.removesuffix('.weight')}"
                if f"{module}.lora_A.weight" not in lora.tensors:
                    yield from file.raw(name)
                    continue
                a, b = (lora.read(f"{module}.lora_{part}.weight") for part in "AB")
                outputs, inputs = info.shape
                rows = max(1, _BLOCK_VALUES // inputs)
                for start in range(0, outputs, rows):
                    block = file.read(name, rows=rows, start=start)
                    block = block + _update(a, b[start : start + rows], config.scaling)
                    yield as_bytes(block, info.dtype)

    return Entry(weights.name, weights.stat().st_size, chunks)


def _update(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], scaling: float
) -> npt.NDArray[np.float32]:
    """a: (rank, inputs), b: (rows, rank) -> (rows, inputs)."""
    product: npt.NDArray[np.float32] = np.matmul(b * np.float32(scaling), a, dtype=np.float32)
    return product
