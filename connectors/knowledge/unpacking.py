"""Zip archives, read with bounds: what an archive says of its sizes is not believed."""

import io
import zipfile
import zlib
from typing import BinaryIO

from connectors.importers.base import MIB
from connectors.knowledge.article import Reason, Unreadable

MAX_ENTRIES = 10_000
MAX_RATIO = 200
"""Of unpacked to packed bytes of one entry, from ``RATIO_FROM`` on. Word's XML, the most compressible that
people send, has some 10 to 30; what zlib can do at most is 1,032."""
RATIO_FROM = 1 * MIB
_STEP = 256 * 1024


class Archive:
    """The files of a zip archive.

    Args:
        data: the archive; a file must stay open as long as it is read.
        max_bytes: that all entries together may unpack to.

    Raises:
        Unreadable: it is no zip archive, has too many entries, or is encrypted.
    """

    def __init__(self, data: bytes | BinaryIO, *, max_bytes: int) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data) if isinstance(data, bytes) else data)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as exc:
            raise Unreadable(Reason.DAMAGED, f"it is no whole zip archive: {exc}") from exc
        entries = self._zip.infolist()
        if len(entries) > MAX_ENTRIES:
            raise Unreadable(
                Reason.TOO_MANY_ENTRIES,
                f"{len(entries):,} entries are more than the {MAX_ENTRIES:,} of one archive",
            )
        self._left = max_bytes
        self._max = max_bytes
        # the last of several entries of a name is the one that programs unpack
        self._entries = {each.filename: each for each in entries if not each.is_dir()}
        if any(each.flag_bits & 1 for each in self._entries.values()):
            raise Unreadable(Reason.ENCRYPTED, "it is protected by a password; save it without one")

    @property
    def names(self) -> list[str]:
        """The entries' names, in the archive's order; never to be used as paths."""
        return list(self._entries)

    def read(self, name: str, *, max_bytes: int | None = None) -> bytes:
        """The bytes of an entry.

        Raises:
            Unreadable: it is damaged, larger than ``max_bytes``, or unpacks to too much.
        """
        entry = self._entries[name]
        limit = min(self._left, self._max if max_bytes is None else max_bytes)
        out = bytearray()
        try:
            with self._zip.open(entry) as stream:
                while piece := stream.read(_STEP):
                    out += piece
                    if len(out) > RATIO_FROM and len(out) > MAX_RATIO * max(1, entry.compress_size):
                        raise Unreadable(
                            Reason.BAD_COMPRESSION,
                            f"an entry unpacks to more than {MAX_RATIO} times its size",
                        )
                    if len(out) > limit:
                        raise Unreadable(
                            Reason.TOO_LARGE, f"it unpacks to more than {limit / MIB:,.0f} MiB"
                        )
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            OSError,
            RuntimeError,
            ValueError,
        ) as exc:
            raise Unreadable(Reason.DAMAGED, f"an entry cannot be unpacked: {exc}") from exc
        self._left -= len(out)
        return bytes(out)
