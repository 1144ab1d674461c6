"""Takes an adapter's files out of an untrusted zip.

Only three entries are read, by their exact names, and written under names of our own: no path of
the archive reaches the disk. The largest possible adapter of the base bounds what an entry may
expand to, whatever its header claims.
"""

import errno
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from training.adapters.foreign import no_weights
from training.adapters.package import MANIFEST_NAME
from training.adapters.safetensors_io import MAX_ADAPTER_HEADER_BYTES
from training.adapters.validation import CONFIG_NAME, MAX_RANK, WEIGHTS_NAME
from training.errors import ArtifactError

MAX_DIRECTORY_BYTES = 4 << 20  # some 40,000 entries
_SMALL_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_END = b"PK\x05\x06"
_END_BYTES = 22
_END64_LOCATOR = b"PK\x06\x07"
_LOCATOR_BYTES = 20
_MAX_COMMENT_BYTES = 0xFFFF
_ENCRYPTED = 0x1
_F32_BYTES = 4


def largest_adapter_bytes(shapes: Mapping[str, tuple[int, int]]) -> int:
    """Bytes of the largest possible weights file, given (outputs, inputs) of a base's layers."""
    sides = sum(outputs + inputs for outputs, inputs in shapes.values())
    return MAX_ADAPTER_HEADER_BYTES + sides * MAX_RANK * _F32_BYTES


def unpack_adapter(archive: Path, out: Path, *, max_bytes: int) -> None:
    """Unpack an adapter's files into the new folder ``out``: weights, configuration, our manifest.

    Where several folders of the archive hold an adapter, the outermost counts (a run's result, not
    its checkpoints). ``max_bytes`` bounds the weights.

    Raises:
        ArtifactError: it is not a zip, holds no adapter, or is damaged or unusual.
    """
    _check_directory(archive)
    try:
        with zipfile.ZipFile(archive) as opened:
            # some programs on Windows write backslashes
            entries = {info.filename.replace("\\", "/"): info for info in opened.infolist()}
            if len(entries) != len(opened.infolist()):
                raise ArtifactError("the zip holds the same name twice")
            folder = _folder_of(entries)
            if folder + WEIGHTS_NAME not in entries:
                raise no_weights([n.removeprefix(folder) for n in entries if n.startswith(folder)])
            out.mkdir(parents=True)
            for name in (CONFIG_NAME, WEIGHTS_NAME, MANIFEST_NAME):
                if (info := entries.get(folder + name)) is not None:
                    bound = max_bytes if name == WEIGHTS_NAME else _SMALL_BYTES
                    _unpack(opened, info, out / name, max_bytes=bound)
    except (
        *(zipfile.BadZipFile, zlib.error, struct.error, EOFError),
        *(NotImplementedError, RuntimeError, ValueError),
    ) as exc:  # all that zipfile raises for damaged files
        raise ArtifactError(f"the zip cannot be read: {exc}") from exc
    except OSError as exc:
        if exc.errno != errno.EINVAL:  # an offset before the file's start
            raise
        raise ArtifactError("the zip cannot be read: it is damaged") from exc


def _check_directory(archive: Path) -> None:
    """Bound the list of entries, which zipfile reads at once.

    Raises:
        ArtifactError: it has none, or one that is too long.
    """
    size = archive.stat().st_size
    with archive.open("rb") as file:
        file.seek(max(0, size - _END_BYTES - _MAX_COMMENT_BYTES - _LOCATOR_BYTES))
        tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) - end < _END_BYTES:
        raise ArtifactError("this is not a zip file: send the adapter's folder as one")
    if _END64_LOCATOR in tail[max(0, end - _LOCATOR_BYTES) : end]:
        raise ArtifactError("the zip is of the 64-bit kind, which no adapter needs")
    length = int.from_bytes(tail[end + 12 : end + 16], "little")
    if length > MAX_DIRECTORY_BYTES:
        raise ArtifactError("the zip holds too many entries: send the adapter's folder alone")


def _folder_of(entries: Mapping[str, zipfile.ZipInfo]) -> str:
    """Where the adapter is: ``""``, or ``folder/``."""
    found = [name for name in entries if name == CONFIG_NAME or name.endswith(f"/{CONFIG_NAME}")]
    if not found:
        raise ArtifactError(
            f"the zip has no {CONFIG_NAME}: zip the folder that PEFT's save_pretrained wrote"
        )
    nearest = min(name.count("/") for name in found)
    outermost = [name for name in found if name.count("/") == nearest]
    if len(outermost) > 1:
        raise ArtifactError(f"the zip holds several adapters: {', '.join(sorted(outermost)[:8])}")
    return outermost[0].removesuffix(CONFIG_NAME)


def _unpack(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, *, max_bytes: int) -> None:
    if stat.S_ISLNK(info.external_attr >> 16) or info.is_dir():
        raise ArtifactError(f"{info.filename} is not a file: put the file itself into the zip")
    if info.flag_bits & _ENCRYPTED:
        raise ArtifactError(f"{info.filename} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArtifactError(f"{info.filename} is not compressed in the usual way (deflate)")
    if info.file_size > max_bytes:
        raise ArtifactError(
            f"{info.filename} has {info.file_size:,} bytes: an adapter of this base has at most "
            f"{max_bytes:,}"
        )
    left = max_bytes
    with opened.open(info) as source, path.open("xb") as target:
        while chunk := source.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise ArtifactError(f"{info.filename} expands to more than it says")
            target.write(chunk)
