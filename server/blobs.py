"""Files by their SHA-256: a folder, S3, Google or Azure storage by URL, or memory in tests."""

import asyncio
import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from server.errors import NotFound, ServerError, TooLarge

CHUNK_BYTES = 1 << 20


class BlobError(ServerError):
    """The store refused or could not be reached."""


class BlobStore:
    """Content-addressed files. Writing the same bytes twice keeps them once."""

    def __init__(self, store: ObjectStore, *, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    @classmethod
    def open(cls, url: str) -> "BlobStore":
        """A store for a folder's path, ``file://``, ``memory://``, ``s3://``, ``gs://``, ``az://``.

        Credentials come from where each provider's tools look for them.

        Raises:
            BlobError: the URL is of no kind that is known.
        """
        scheme = urlsplit(url).scheme if "://" in url else "file"
        if scheme == "memory":
            return cls(MemoryStore())
        if scheme == "file":
            path = unquote(urlsplit(url).path) if "://" in url else url
            folder = Path(path).expanduser().absolute()
            return cls(LocalStore(folder, mkdir=True), folder=folder)
        try:
            return cls(from_url(url))
        except (BaseError, ValueError) as exc:
            raise BlobError(f"cannot keep uploads at {url!r}: {exc}") from exc

    async def put_stream(self, chunks: AsyncIterable[bytes], *, max_bytes: int) -> tuple[str, int]:
        """Store a stream and return (sha256, size). It is durable, whole, and visible only then.

        Raises:
            TooLarge: more than ``max_bytes`` came; nothing is kept.
            BlobError: the store failed; nothing is kept.
        """
        digest = hashlib.sha256()
        size = 0
        beside = f"incoming/{uuid.uuid4().hex}"
        try:
            async with obstore.open_writer_async(self._store, beside) as writer:
                async for chunk in chunks:
                    size += len(chunk)
                    _check_size(size, max_bytes)
                    digest.update(chunk)
                    await writer.write(chunk)
            sha256 = digest.hexdigest()
            if await self.exists(sha256):
                await obstore.delete_async(self._store, beside)
            else:
                await self._sync(beside)
                await obstore.rename_async(self._store, beside, _address(sha256))
                await self._sync(_address(sha256), parent=True)
        except BaseException as exc:
            with suppress(BaseError, OSError):
                await asyncio.shield(obstore.delete_async(self._store, beside))
            if isinstance(exc, BaseError):
                raise BlobError(f"the upload could not be stored: {exc}") from exc
            raise
        return sha256, size

    async def exists(self, sha256: str) -> bool:
        """Whether these bytes are here."""
        try:
            await obstore.head_async(self._store, _address(sha256))
        except (NotFoundError, FileNotFoundError):
            return False
        except BaseError as exc:
            raise BlobError(f"the store cannot be asked: {exc}") from exc
        return True

    async def iterate(self, sha256: str) -> AsyncGenerator[bytes]:
        """The bytes, in chunks.

        Raises:
            NotFound: they are not here.
        """
        try:
            found = await obstore.get_async(self._store, _address(sha256))
        except (NotFoundError, FileNotFoundError) as exc:
            raise NotFound(f"There is no upload {sha256}.", code="blob_not_found") from exc
        async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
            yield bytes(chunk)

    @asynccontextmanager
    async def local(self, sha256: str, *, within: Path) -> AsyncGenerator[Path]:
        """A file to read them from: the blob itself in a folder store, else a copy for the while.

        ``within``: the folder for the copy.

        Raises:
            NotFound: they are not here.
        """
        if self._folder is not None:
            path = self._folder / _address(sha256)
            if not await asyncio.to_thread(path.is_file):
                raise NotFound(f"There is no upload {sha256}.", code="blob_not_found")
            yield path
            return
        with tempfile.TemporaryDirectory(dir=within) as folder:
            path = Path(folder) / sha256
            with path.open("wb") as file:
                async for chunk in self.iterate(sha256):
                    await asyncio.to_thread(file.write, chunk)
            yield path

    async def delete(self, sha256: str) -> None:
        """Remove them; nothing happens where they are not."""
        try:
            await obstore.delete_async(self._store, _address(sha256))
        except (NotFoundError, FileNotFoundError):
            pass
        except BaseError as exc:
            raise BlobError(f"the file could not be deleted: {exc}") from exc

    async def list_old(self, age: timedelta) -> AsyncGenerator[str]:
        """Hashes of what was stored longer ago than ``age``."""
        async for key in self._keys("sha256/", age):
            yield key.rpartition("/")[2]

    async def clear_incoming(self, age: timedelta) -> None:
        """Remove what uploads left that were killed longer ago than ``age``, in their middle."""
        async for key in self._keys("incoming/", age):
            await obstore.delete_async(self._store, key)
        if self._folder is not None:  # half files of a folder are not listed by the store
            await asyncio.to_thread(_unlink_old, self._folder / "incoming", age)

    async def _keys(self, prefix: str, age: timedelta) -> AsyncGenerator[str]:
        before = datetime.now(UTC) - age
        try:
            async for batch in obstore.list(self._store, prefix, chunk_size=1000):
                for meta in batch:
                    if meta["last_modified"] < before:
                        yield meta["path"]
        except BaseError as exc:
            raise BlobError(f"the store could not be listed: {exc}") from exc

    async def _sync(self, key: str, *, parent: bool = False) -> None:
        """Make a local file, or the folder's entry of it, survive a power cut."""
        if self._folder is None:
            return
        path = self._folder / key
        await asyncio.to_thread(_fsync, path.parent if parent else path)


def _address(sha256: str) -> str:
    return f"sha256/{sha256[:2]}/{sha256}"


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise TooLarge(f"The upload is larger than {max_bytes:,} bytes.", limit_bytes=max_bytes)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink_old(folder: Path, age: timedelta) -> None:
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):  # its upload ended just now
            if path.stat().st_mtime < time.time() - age.total_seconds():
                path.unlink()
