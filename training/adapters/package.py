"""An adapter folder: immutable, and either whole or absent.

It holds exactly ``adapter_model.safetensors``, ``adapter_config.json`` and ``manifest.json``, and
``retrieval.safetensors`` where it is served with what its index finds; the manifest says what the adapter was trained on and has the hash of each file. An engine loads a
damaged file without complaint if its shape is right (with a tail of zeros, for example), and one
non-finite weight spoils the answers of every tenant. So ``verify`` and ``check_weights`` run before
any engine sees a folder.
"""

import hashlib
import io
import os
import re
import secrets
import shutil
import stat
import time
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from training.adapters.validation import CONFIG_NAME, WEIGHTS_NAME, check_weights
from training.config import Method, Recipe, TrainingSpec
from training.errors import ArtifactError, UnsafeWeights
from training.filesystem import FileEntry, open_like_parent, sync_path, write_atomically
from training.results import Scores

__all__ = [
    "INDEX_NAME",
    "MANIFEST_NAME",
    "WEIGHTS_NAME",
    "AdapterManifest",
    "BaseRef",
    "Foreign",
    "KnowledgeRef",
    "LoraShape",
    "TrainingSummary",
    "check_weights",
    "engine_name",
    "publish",
    "read_manifest",
    "spec_of",
    "verify",
    "write_manifest",
]

MANIFEST_NAME = "manifest.json"
_MAX_MANIFEST_BYTES = 1024 * 1024
INDEX_NAME = "retrieval.safetensors"
_CONTENT = (WEIGHTS_NAME, CONFIG_NAME)
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
_SLUG = re.compile(r"[a-z0-9](-?[a-z0-9]){1,39}")
_PUBLISHED = re.compile(rf"(?P<label>{_SLUG.pattern})\.(?P<digest>[0-9a-f]{{12}})")
_STALE_SECONDS = 600


class BaseRef(msgspec.Struct, frozen=True, kw_only=True):
    """The base that the adapter was trained on; the hash is that of its serving weights."""

    name: str
    serving_sha256: str


class LoraShape(msgspec.Struct, frozen=True, kw_only=True):
    """The adapter's shape."""

    rank: int
    alpha: float
    targets: tuple[str, ...]


class KnowledgeRef(msgspec.Struct, frozen=True, kw_only=True):
    """The articles that the adapter was trained and evaluated with: the hash of the file, and its pieces."""

    sha256: str
    pieces: int


class TrainingSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the run did. Losses are nats per assistant token; ``stopped`` says why it ended.

    ``computed_in``: the type of the arithmetic; several where another machine continued the run.
    """

    steps: int
    epochs: float
    tokens: int
    seconds: float
    train_loss: float | None = None
    validation_loss: float | None = None
    stopped: str = ""
    computed_in: tuple[str, ...] = ()


class Foreign(msgspec.Struct, frozen=True, kw_only=True):
    """The origin of an adapter that was not trained here.

    ``sha256``: of its weights file as it was received. ``base``: the base that its configuration
    names. ``changes``: what was changed in its form, which leaves what it computes. ``notes``: what
    a person should know before promoting it.
    """

    source: str
    sha256: str
    base: str | None
    peft_version: str | None = None
    changes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class AdapterManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What ``manifest.json`` holds. ``files`` is filled in by ``write_manifest``.

    ``started_from``: the folder name of the adapter that training started from. ``foreign``: it was
    trained elsewhere; ``recipe``, ``method`` and ``seed`` then only say how it was evaluated.
    ``knowledge``: None where the tenant had no articles.
    """

    format: Literal["tenantune-adapter/1"] = "tenantune-adapter/1"
    label: str
    base: BaseRef
    dataset_sha256: str
    system_prompt: str
    recipe: Recipe
    seed: int
    lora: LoraShape
    packages: dict[str, str]
    created_at: str
    job_id: str | None = None
    training: TrainingSummary | None = None
    scores: dict[str, Scores] = {}
    files: dict[str, FileEntry] = {}
    method: Method = "supervised"
    started_from: str | None = None
    foreign: Foreign | None = None
    knowledge: KnowledgeRef | None = None


def spec_of(
    manifest: AdapterManifest,
    *,
    base: Path,
    dataset: Path,
    adapters: Path,
    live: Path | None = None,
    knowledge: Path | None = None,
) -> TrainingSpec:
    """The spec that a finished adapter was made by; ``adapters``: where the one is that it began with.

    ``knowledge``: the file of the articles that the manifest names, where it is kept.
    """
    start = manifest.started_from
    return TrainingSpec(
        label=manifest.label,
        base=str(base.resolve()),
        dataset=str(dataset.resolve()),
        recipe=manifest.recipe,
        seed=manifest.seed,
        live_adapter=str(live.resolve()) if live else None,
        method=manifest.method,
        start_adapter=str(adapters.resolve() / start) if start else None,
        knowledge=str(knowledge.resolve()) if knowledge else None,
    )


class ServingBase(Protocol):
    """The two facts about a base that an adapter is checked against."""

    @property
    def name(self) -> str:
        """The base's name."""

    @property
    def serving_sha256(self) -> str:
        """The hash of its serving weights."""


def write_manifest(folder: Path, manifest: AdapterManifest) -> AdapterManifest:
    """Hash the folder's files, write ``manifest.json`` beside them and return what was written.

    Raises:
        ArtifactError: a file is missing, or there is one that does not belong.
    """
    for left in folder.glob(f".{MANIFEST_NAME}.*"):  # of an earlier attempt that was killed
        left.unlink()
    _check_names(folder, expected={*_CONTENT}, optional={INDEX_NAME, MANIFEST_NAME})
    indexed = (folder / INDEX_NAME).is_file()
    files = {name: _file_entry(folder / name) for name in _content(indexed=indexed)}
    written = msgspec.structs.replace(manifest, files=files)
    data = msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n"
    for name in files:
        sync_path(folder / name)
    write_atomically(folder / MANIFEST_NAME, data)
    return written


def read_manifest(folder: Path) -> AdapterManifest:
    """Read ``manifest.json`` without checking the files it lists.

    Raises:
        ArtifactError: it is missing, or not of this format.
    """
    try:
        return msgspec.json.decode(_manifest_bytes(folder), type=AdapterManifest)
    except (ValueError, msgspec.DecodeError, RecursionError) as exc:
        raise ArtifactError(f"{folder / MANIFEST_NAME}: {exc}") from exc


def verify(folder: Path, *, base: ServingBase | None = None) -> AdapterManifest:
    """Check that the folder is exactly what its manifest says, and was made for this base.

    A folder with an engine name (``<label>.<12 hex>``) must also have the manifest of that hash.

    Raises:
        ArtifactError: a file is changed, cut short, missing, unexpected, a link or a pickle.
        UnsafeWeights: the adapter was trained on another base.
    """
    if not folder.is_dir() or folder.is_symlink():
        raise ArtifactError(f"{folder} is not an adapter folder")
    _check_names(folder, expected={*_CONTENT, MANIFEST_NAME}, optional={INDEX_NAME})
    manifest = read_manifest(folder)
    published = _PUBLISHED.fullmatch(folder.name)
    if published and folder.name != engine_name(manifest.label, folder):
        raise ArtifactError(
            f"{folder}: the manifest was changed after publishing; publish the adapter again"
        )
    content = _content(indexed=(folder / INDEX_NAME).is_file())
    if set(manifest.files) != set(content):
        raise ArtifactError(f"{folder / MANIFEST_NAME} must list exactly {', '.join(content)}")
    for name, entry in manifest.files.items():
        if _file_entry(folder / name, size_bytes=entry.size_bytes) != entry:
            raise ArtifactError(f"{folder / name} is not the file that was written: hashes differ")
    if base is not None and manifest.base.serving_sha256 != base.serving_sha256:
        raise UnsafeWeights(
            f"adapter {folder.name!r} was trained on base {manifest.base.name!r} "
            f"({manifest.base.serving_sha256[:12]}); this server runs {base.name!r} "
            f"({base.serving_sha256[:12]}): train it again on this base"
        )
    return manifest


def engine_name(label: str, folder: Path) -> str:
    """``<label>.<first 12 hex of the manifest's SHA-256>``: the adapter's name in engines.

    Raises:
        ArtifactError: the label is not a slug, or the folder has no manifest.
    """
    if not _SLUG.fullmatch(label):
        raise ArtifactError(
            f"label {label!r}: use 2 to 40 lower-case letters and digits, single hyphens between"
        )
    return f"{label}.{hashlib.sha256(_manifest_bytes(folder)).hexdigest()[:12]}"


def publish(src: Path, adapters_root: Path, label: str) -> Path:
    """Copy a verified folder to ``<adapters_root>/<engine name>``, whole or not at all.

    Publishing the same folder again, or from two processes at once, gives the same path.

        folder = publish(out / "adapter", settings.adapters, "acme")
        verify(folder, base=load_base(base_folder))

    Args:
        src: A finished adapter folder; it stays as it is.
        adapters_root: Where engines look for adapters; made where it is missing. The copy is
            read-only for its owner, and as readable for others as this folder.
        label: The tenant's slug, which the manifest must have too.

    Raises:
        ArtifactError: the folder does not verify, or bears another label.
    """
    manifest = verify(src)
    if manifest.label != label:
        raise ArtifactError(f"{src} is the adapter of {manifest.label!r}, not of {label!r}")
    target = adapters_root / engine_name(label, src)
    adapters_root.mkdir(parents=True, exist_ok=True)
    _remove_stale_partials(adapters_root)
    if target.exists():
        verify(target)
        return target
    incoming = adapters_root / f".incoming-{secrets.token_hex(8)}"
    incoming.mkdir()
    try:
        for name in (*manifest.files, MANIFEST_NAME):
            shutil.copyfile(src / name, incoming / name, follow_symlinks=False)
            (incoming / name).chmod(0o400)
            sync_path(incoming / name)
        open_like_parent(incoming)  # the engine may run as another user
        sync_path(incoming)
        try:
            incoming.rename(target)
        except OSError:  # another process was first: a folder that is not empty is in the way
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    sync_path(adapters_root)
    verify(target)
    return target


def _content(*, indexed: bool) -> tuple[str, ...]:
    """The files that a manifest lists."""
    return (*_CONTENT, INDEX_NAME) if indexed else _CONTENT


def _check_names(
    folder: Path, *, expected: set[str], optional: set[str] | frozenset[str] = frozenset()
) -> None:
    """Refuse missing and unexpected entries, and everything but regular files."""
    try:
        entries = list(os.scandir(folder))
    except OSError as exc:
        raise ArtifactError(f"cannot read {folder}: {exc.strerror}") from exc
    for entry in entries:
        if Path(entry.name).suffix.lower() in _PICKLES:
            raise ArtifactError(f"{folder / entry.name}: can run code when loaded; not accepted")
        if entry.name not in expected | optional:
            raise ArtifactError(f"{folder / entry.name} does not belong in an adapter folder")
        if not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            raise ArtifactError(f"{folder / entry.name} is not a regular file")
    missing = expected - {entry.name for entry in entries}
    if missing:
        raise ArtifactError(f"{folder} has no {', '.join(sorted(missing))}")


def _file_entry(path: Path, *, size_bytes: int | None = None) -> FileEntry:
    """Hash a file; with ``size_bytes``, only if that is its size."""
    try:
        with _open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size_bytes is not None and size != size_bytes:
                raise ArtifactError(f"{path} has {size:,} bytes; {size_bytes:,} were written")
            return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), size)
    except OSError as exc:
        raise ArtifactError(f"cannot read {path}: {exc.strerror}") from exc


def _manifest_bytes(folder: Path) -> bytes:
    path = folder / MANIFEST_NAME
    try:
        with _open_regular(path) as file:
            data = file.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as exc:
        raise ArtifactError(f"cannot read {path}: {exc.strerror}") from exc
    if len(data) > _MAX_MANIFEST_BYTES:
        raise ArtifactError(f"{path} is larger than {_MAX_MANIFEST_BYTES:,} bytes")
    return data


def _open_regular(path: Path) -> io.BufferedReader:
    """Open for reading, without following a link or waiting for a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArtifactError(f"{path} is not a regular file")
    return os.fdopen(descriptor, "rb")


def _remove_stale_partials(adapters_root: Path) -> None:
    """Remove the partial copies of publishers that were killed."""
    for left in adapters_root.glob(".incoming-*"):
        try:
            stale = time.time() - left.stat().st_mtime > _STALE_SECONDS
        except FileNotFoundError:
            continue
        if stale:
            shutil.rmtree(left, ignore_errors=True)
