"""Files by their SHA-256: a folder, S3, Google or Azure storage by URL, or memory in tests."""

import asyncio
import hashlib
import re
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
import structlog
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from server.errors import NotFound, TooLarge, Unavailable, of_system
from training.filesystem import sync_path

if TYPE_CHECKING:
    from obstore import AsyncWritableFile  # these are only in its stubs
    from obstore.store import RetryConfig

log = structlog.get_logger(__name__)

CHUNK_BYTES = 1 << 20
# A bucket that does not answer is an error within half a minute; obstore's own bounds are 10 tries and
# three minutes, for each of the requests that an upload makes.
_RETRIES: "RetryConfig" = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
# obstore has the number in its message alone: its errno is None
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class BlobError(Unavailable):
    """The store refused or could not be reached."""

    default_code = "storage_unavailable"


class BlobStore:
    """Content-addressed files. Writing the same bytes twice keeps them once.

    Example:
        blobs = BlobStore.open(settings.blobs)
        sha256, size = await blobs.put_stream(chunks, max_bytes=1 << 30)
    """

    def __init__(self, store: ObjectStore, *, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    @classmethod
    def open(cls, url: str) -> "BlobStore":
        """A store for a folder's path, ``file://``, ``memory://``, ``s3://``, ``gs://``, ``az://``.

        Credentials come from where each provider's tools look for them.

        Raises:
            BlobError: the URL has an unknown scheme, or its provider refuses it.
        """
        scheme = urlsplit(url).scheme if "://" in url else "file"
        if scheme == "memory":
            return cls(MemoryStore())
        if scheme == "file":
            path = unquote(urlsplit(url).path) if "://" in url else url
            folder = Path(path).expanduser().absolute()
            return cls(LocalStore(folder, mkdir=True), folder=folder)
        try:
            # no client_options: they would take the place of those in the environment
            return cls(from_url(url, retry_config=_RETRIES))
        except (BaseError, ValueError) as exc:
            raise BlobError(f"cannot keep uploads at {url!r}: {exc}") from exc

    async def put_stream(self, chunks: AsyncIterable[bytes], *, max_bytes: int) -> tuple[str, int]:
        """Store a stream and return (sha256, size). It becomes visible once it is whole and durable.

        Raises:
            TooLarge: more than ``max_bytes`` came; nothing is kept.
            StorageFull: there is no room; nothing is kept.
            BlobError: the store failed; nothing is kept.
        """
        digest = hashlib.sha256()
        size = 0
        beside = f"incoming/{uuid.uuid4().hex}"
        writer = obstore.open_writer_async(self._store, beside)
        try:
            async for chunk in chunks:  # its own errors are not the store's
                size += len(chunk)
                _check_size(size, max_bytes)
                digest.update(chunk)
                with _translated("store an upload", missing=True):
                    await writer.write(chunk)
            with _translated("store an upload", missing=True):
                await writer.close()
                sha256 = digest.hexdigest()
                if await self.exists(sha256):
                    await obstore.delete_async(self._store, beside)
                else:
                    await self._sync(beside)
                    await obstore.rename_async(self._store, beside, _address(sha256))
                    await self._sync(_address(sha256), parent=True)
        except BaseException as exc:
            # a bucket that does not answer is not asked again: ``clear_incoming`` removes the rest later
            if self._folder is not None or not isinstance(exc, BlobError):
                await asyncio.shield(self._give_up(writer, beside))
            raise
        return sha256, size

    async def exists(self, sha256: str) -> bool:
        """Whether these bytes are here."""
        try:
            with _translated("look for a file"):
                await obstore.head_async(self._store, _address(sha256))
        except (NotFoundError, FileNotFoundError):
            return False
        return True

    async def iterate(self, sha256: str) -> AsyncGenerator[bytes]:
        """The bytes, in chunks.

        Raises:
            NotFound: they are not here.
            BlobError: the store failed.
        """
        with _translated("read a file"):
            try:
                found = await obstore.get_async(self._store, _address(sha256))
            except (NotFoundError, FileNotFoundError) as exc:
                raise NotFound(f"There is no upload {sha256}.", code="blob_not_found") from exc
            chunks = found.stream(min_chunk_size=CHUNK_BYTES)
        while True:
            with _translated("read a file"):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            yield bytes(chunk)

    @property
    def folder(self) -> Path | None:
        """Where they are kept on this machine; None where they are not."""
        return self._folder

    @asynccontextmanager
    async def local(self, sha256: str, *, within: Path) -> AsyncGenerator[Path]:
        """A file to read them from: the blob itself in a folder store, else a temporary copy.

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
        """Delete these bytes, if they are here."""
        with suppress(NotFoundError, FileNotFoundError), _translated("delete a file"):
            await obstore.delete_async(self._store, _address(sha256))

    async def list_old(self, age: timedelta) -> AsyncGenerator[str]:
        """Hashes of what was stored longer ago than ``age``."""
        async for key in self._keys("sha256/", age):
            yield key.rpartition("/")[2]

    async def clear_incoming(self, age: timedelta) -> None:
        """Remove what is left of uploads that broke off longer ago than ``age``."""
        async for key in self._keys("incoming/", age):
            with suppress(NotFoundError, FileNotFoundError), _translated("delete a file"):
                await obstore.delete_async(self._store, key)
        if self._folder is not None:  # half files of a folder are not listed by the store
            await asyncio.to_thread(_unlink_old, self._folder / "incoming", age)

    async def _give_up(self, writer: "AsyncWritableFile", key: str) -> None:
        with suppress(BaseError, OSError):
            await writer.close()  # its temporary file stays until then
        with suppress(BaseError, OSError):
            await obstore.delete_async(self._store, key)

    async def _keys(self, prefix: str, age: timedelta) -> AsyncGenerator[str]:
        before = datetime.now(UTC) - age
        batches = obstore.list(self._store, prefix, chunk_size=1000)
        while True:
            with _translated("list files"):
                batch = await anext(batches, None)
            if batch is None:
                return
            for meta in batch:
                if meta["last_modified"] < before:
                    yield meta["path"]

    async def _sync(self, key: str, *, parent: bool = False) -> None:
        """Make a local file, or the folder's entry of it, survive a power cut."""
        if self._folder is None:
            return
        path = self._folder / key
        await asyncio.to_thread(sync_path, path.parent if parent else path)


@contextmanager
def _translated(doing: str, *, missing: bool = False) -> Iterator[None]:
    """Translate the store's exceptions into the server's, and log them in full.

    That a file is missing passes through. With ``missing`` it is translated as well: the bucket is not
    there.
    """
    try:
        yield
    except (BaseError, OSError) as exc:
        if isinstance(exc, NotFoundError | FileNotFoundError) and not missing:
            raise
        log.warning("the file store failed", doing=doing, error=str(exc))
        match = _OS_ERROR.search(str(exc))
        number = int(match[1]) if match else getattr(exc, "errno", None)
        known = of_system(exc, number=number) if isinstance(exc, OSError) else None
        raise known or BlobError("The file store does not answer. Try again in a moment.") from exc


def _address(sha256: str) -> str:
    return f"sha256/{sha256[:2]}/{sha256}"


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise TooLarge(f"The upload is larger than {max_bytes:,} bytes.", limit_bytes=max_bytes)


def _unlink_old(folder: Path, age: timedelta) -> None:
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):  # its upload ended just now
            if path.stat().st_mtime < time.time() - age.total_seconds():
                path.unlink()
