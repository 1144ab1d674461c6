"""A head's folder: immutable, and either whole or absent.

It holds ``head.safetensors``, where its encoder was tuned ``encoder_lora.safetensors``, and
``manifest.json``, which has the hash of each file, of the encoder and of the dataset. A published
folder bears the name of its manifest's hash.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from training.errors import ArtifactError
from training.evaluation.gates import Verdict
from training.evaluation.metrics import Embed, Vectors
from training.filesystem import FileEntry, write_folder
from training.heads import softmax
from training.heads.config import HeadRecipe, Method, Task
from training.heads.encoders import (
    Encode,
    EncoderRef,
    encoder_ref,
    limit_threads,
    load_encoder,
    package_folder,
)
from training.heads.images import Pixels
from training.heads.lora import LORA_FILE, merge
from training.heads.scores import Comparison, HeadScores
from training.heads.softmax import Probabilities, Softmax, probabilities

FORMAT = "tenantune-head/1"
MANIFEST_NAME = "manifest.json"
WEIGHTS_NAME = "head.safetensors"
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_FILE_BYTES = 64 << 20


class HeadManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What ``manifest.json`` holds.

    ``labels`` are in the order of the weights. ``temperature`` divides the logits. ``validation``:
    the contrastive method against the frozen one, on the validation part, where both were tried;
    ``choice`` says in words which was kept and why. ``note``: why there is no comparison with the
    live head, or on how few texts.
    """

    format: str = FORMAT
    task: Task
    labels: tuple[str, ...]
    method: Method
    encoder: EncoderRef
    dataset_sha256: str
    recipe: HeadRecipe
    seed: int
    temperature: float
    scores: HeadScores
    verdict: Verdict
    choice: str
    validation: Comparison | None = None
    live_sha256: str | None = None
    note: str = ""
    seconds: float
    packages: dict[str, str]
    created_at: str
    files: dict[str, FileEntry] = {}


class Classified(NamedTuple):
    """What a head says of a text or picture: its label, and the probability of each."""

    label: str
    probability: float
    probabilities: dict[str, float]


class Head:
    """A head that is ready to classify.

    Args:
        folder: The head's folder; every file of it is checked against its hash.
        encode: The encoder that turns texts or pictures into vectors; by default the one that the
            manifest names, loaded here.

    Raises:
        ArtifactError: the folder is not what its manifest says, or was trained on an encoder that
            is not the one installed here.
    """

    def __init__(self, folder: Path, *, encode: Encode | None = None) -> None:
        self.manifest = verify(folder)
        self._softmax = _load_softmax(folder, self.manifest)
        self._encode = encode or _load_encode(folder, self.manifest)

    def logits(self, items: Sequence[str] | Sequence[Pixels]) -> Vectors:
        """(texts or pictures, labels), before the temperature."""
        return self._softmax.logits(self._encode(items))

    def classify(self, items: Sequence[str] | Sequence[Pixels]) -> list[Classified]:
        """What each text or picture is: of which the head was trained on, its task says."""
        if not items:
            return []
        return say(self.manifest, probabilities(self.logits(items), self.manifest.temperature))


def say(manifest: HeadManifest, found: Probabilities) -> list[Classified]:
    """Rows of probabilities with the names of their labels."""
    rows = []
    for row in found.tolist():
        named = dict(zip(manifest.labels, row, strict=True))
        label = max(named, key=named.__getitem__)
        rows.append(Classified(label, named[label], named))
    return rows


def write(
    root: Path, manifest: HeadManifest, weights: Softmax, lora: Path | None, *, scratch: Path
) -> Path:
    """Write a head to ``<root>/<sha256 of its manifest>``, and return that folder.

    Args:
        root: Where heads lie; made where it is missing.
        manifest: Without ``files``.
        weights: Of the softmax layer.
        lora: Of the encoder, where it was tuned.
        scratch: A folder for a file on the way.
    """
    beside = scratch / WEIGHTS_NAME
    softmax.save(beside, weights)
    files = {WEIGHTS_NAME: beside.read_bytes()}
    if lora is not None:
        files[LORA_FILE] = lora.read_bytes()
    entries = {
        name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()
    }
    written = msgspec.structs.replace(manifest, files=entries)
    data = msgspec.json.format(msgspec.json.encode(written), indent=1) + b"\n"
    folder = root / hashlib.sha256(data).hexdigest()
    if not folder.exists():
        write_folder(folder, {**files, MANIFEST_NAME: data})
    verify(folder)
    return folder


def read_manifest(folder: Path) -> HeadManifest:
    """Read ``manifest.json`` without checking the files that it lists.

    Raises:
        ArtifactError: it is missing, or not of this format.
    """
    path = folder / MANIFEST_NAME
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ArtifactError(f"{path} is larger than {_MAX_MANIFEST_BYTES:,} bytes")
        manifest = msgspec.json.decode(path.read_bytes(), type=HeadManifest)
    except OSError as exc:
        raise ArtifactError(f"cannot read {path}: {exc.strerror}") from exc
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ArtifactError(f"{path}: {exc}") from exc
    if manifest.format != FORMAT:
        raise ArtifactError(f"{path}: format {manifest.format!r}, this version reads {FORMAT!r}")
    return manifest


def verify(folder: Path) -> HeadManifest:
    """Check that a folder is exactly what its manifest says.

    Raises:
        ArtifactError: a file is changed, missing or unexpected, or the folder's name is the hash of
            another manifest.
    """
    manifest = read_manifest(folder)
    expected = {WEIGHTS_NAME} | ({LORA_FILE} if manifest.method == "contrastive" else set())
    there = {path.name for path in folder.iterdir()}
    if set(manifest.files) != expected or there != {*expected, MANIFEST_NAME}:
        raise ArtifactError(
            f"{folder} must hold {', '.join(sorted(expected))} and {MANIFEST_NAME}, not "
            f"{', '.join(sorted(there))}"
        )
    for name, entry in manifest.files.items():
        path = folder / name
        size = path.stat().st_size
        if path.is_symlink() or size != entry.size_bytes or size > _MAX_FILE_BYTES:
            raise ArtifactError(f"{path} is not the file that was written")
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
            raise ArtifactError(f"{path} is not the file that was written: hashes differ")
    digest = hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).hexdigest()
    if folder.name != digest:
        raise ArtifactError(f"{folder}: its name is not the hash of its manifest; train it again")
    return manifest


def check_encoder(manifest: HeadManifest) -> None:
    """See that a head's encoder is the one installed here.

    Raises:
        ArtifactError: it is another.
    """
    here = encoder_ref(manifest.encoder.name)
    if here != manifest.encoder:
        raise ArtifactError(
            f"this head was trained on {manifest.encoder.name} ({manifest.encoder.sha256[:12]}); "
            f"installed is {here.sha256[:12]}: train it again"
        )


def tuned_encoder(lora: Path) -> Embed:
    """all-MiniLM-L6-v2 with a LoRA merged into it, in float32. Loads torch."""
    import torch
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    limit_threads()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SentenceTransformer(str(package_folder()), device=device)
    merge(model, lora)

    def embed(texts: Sequence[str]) -> Vectors:
        found = model.encode(
            list(texts), batch_size=64, show_progress_bar=False, normalize_embeddings=True
        )
        return np.asarray(found, dtype=np.float32).reshape(len(texts), -1)

    return embed


def _load_softmax(folder: Path, manifest: HeadManifest) -> Softmax:
    return softmax.load(
        folder / WEIGHTS_NAME,
        labels=len(manifest.labels),
        dimensions=manifest.encoder.dimensions,
    )


def _load_encode(folder: Path, manifest: HeadManifest) -> Encode:
    check_encoder(manifest)
    if manifest.method == "contrastive":
        return tuned_encoder(folder / LORA_FILE)
    return load_encoder(manifest.encoder.name)
