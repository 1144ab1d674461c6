"""What the routes of the admin API that take a file share."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from litestar import Request, post

from server.api.upload import UploadedFile
from server.db.session import Database
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.references import stored


class ReceivedFile(msgspec.Struct, frozen=True):
    """A file that is stored, its cleaned name, and the other fields of its form."""

    sha256: str
    size_bytes: int
    filename: str
    fields: Mapping[str, Sequence[str]]

    def field(self, name: str) -> str | None:
        """The first value of a field; None where the form has no such field."""
        return next(iter(self.fields.get(name, ())), None)


def post_file(path: str, *, form: type[msgspec.Struct]) -> post:
    """A POST route whose body is a file, or a form with the fields ``form`` and the part ``file``."""
    return post(
        path,
        status_code=202,
        request_max_body_size=None,  # ``received`` caps it as it streams; this is for whole bodies
        opt={"form": form, "file": "file", "raw": True},
    )


@asynccontextmanager
async def received(
    request: Request[Any, Any, Any],
    filename: str,
    *,
    database: Database,
    blobs: BlobStore,
    settings: Settings,
    max_bytes: int | None = None,
) -> AsyncGenerator[ReceivedFile]:
    """Store the file of a request as it streams in.

    Refer to its bytes within the block, or they are deleted. ``filename`` is for a file without a
    form. ``max_bytes``: instead of ``settings.max_upload_bytes``.

    Raises:
        TooLarge: it is larger than that.
        Invalid: there is no file, or the form cannot be read.
    """
    limit = settings.max_upload_bytes if max_bytes is None else max_bytes
    upload = UploadedFile(request, filename=filename, max_bytes=limit)
    async with stored(database, blobs, upload.chunks(), max_bytes=limit) as (sha256, size):
        yield ReceivedFile(sha256, size, upload.filename, upload.fields)
