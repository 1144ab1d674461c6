"""Files by their SHA-256: a folder, S3, Google or Azure storage by URL, or memory in tests."""

import asyncio
import hashlib
import os
import tempfile
import uuid
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import asynccontextmanager, suppress
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
    async def local(self, sha256: str) -> AsyncGenerator[Path]:
        """A file to read them from: the blob itself in a folder store, else a copy for the while.

        Raises:
            NotFound: they are not here.
        """
        if self._folder is not None:
            path = self._folder / _address(sha256)
            if not await asyncio.to_thread(path.is_file):
                raise NotFound(f"There is no upload {sha256}.", code="blob_not_found")
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="tenantune-") as folder:
            path = Path(folder) / sha256
            with path.open("wb") as file:
                async for chunk in self.iterate(sha256):
                    await asyncio.to_thread(file.write, chunk)
            yield path

    async def delete(self, sha256: str) -> None:
        """Remove them; nothing happens where they are not."""
        with suppress(NotFoundError, FileNotFoundError):
            await obstore.delete_async(self._store, _address(sha256))

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
