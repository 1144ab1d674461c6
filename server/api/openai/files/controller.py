"""``/v1/files``."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal
from urllib.parse import quote

from litestar import Controller, Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream
from sqlalchemy.ext.asyncio import AsyncSession

from server.api.guards import needs
from server.api.openai.files.form import read_form
from server.api.openai.files.schemas import (
    DeletedFile,
    FileForm,
    OpenAIFile,
    keep_seconds,
    openai_file,
)
from server.api.openai.idempotency import KEY_PARAMETER, digest_of, once
from server.api.openai.paging import Page, page_of
from server.api.upload import UploadedFile
from server.auth.keys import Principal
from server.db.models import now
from server.db.session import Database
from server.errors import Invalid
from server.files import service
from server.files.names import clean_name
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.references import stored, try_delete_unreferenced

MAX_LIMIT = 10_000


class FileController(Controller):
    """Files, for tenants' keys with the scope ``train``."""

    path = "/v1/files"
    tags = ("files",)
    guards = (needs("train"),)

    # the upload caps itself, while it streams; Litestar's own cap is for bodies in memory
    @post(
        status_code=200,
        request_max_body_size=None,
        opt={"form": FileForm, "file": "file", "parameters": [KEY_PARAMETER]},
    )
    async def create_file(
        self,
        request: Request[Any, Any, Any],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
        settings: NamedDependency[Settings],
    ) -> Response[OpenAIFile]:
        """Upload a file, as the part ``file`` of a form with the field ``purpose``."""
        began = now()
        tenant_id = principal.require_tenant()
        limit = settings.max_upload_bytes
        upload = UploadedFile(request, filename="file", max_bytes=limit, raw=False)
        async with stored(database, blobs, upload.chunks(), max_bytes=limit) as (sha256, size):
            form = read_form(upload.fields)
            if not size:
                raise Invalid("The file is empty.", param="file", code="empty_file")
            filename = upload.filename

            async def work(session: AsyncSession) -> OpenAIFile:
                file = await service.create(
                    session,
                    tenant_id,
                    blobs=blobs,
                    sha256=sha256,
                    size_bytes=size,
                    filename=filename,
                    purpose=form.purpose,
                    keep_seconds=keep_seconds(form.purpose, form.expires_after),
                )
                return openai_file(file)

            async def exists(session: AsyncSession, file_id: str) -> bool:
                return await service.find(session, tenant_id, file_id) is not None

            digest = digest_of(sha256, filename, repr(form))
            return await once(
                request, database, work, digest=digest, began=began, guess=True, exists=exists
            )

    @get()
    async def list_files(
        self,
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        purpose: FromQuery[str | None] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)] = MAX_LIMIT,
        order: FromQuery[Literal["asc", "desc"]] = "desc",
        after: FromQuery[str | None] = None,
    ) -> Page[OpenAIFile]:
        """The files of this key's tenant, by the time of their creation."""
        async with database.reading() as session:
            found = await service.list_for(
                session,
                principal.require_tenant(),
                limit=limit + 1,
                after=after,
                order=order,
                purpose=purpose,
            )
        files = [openai_file(file) for file in found]
        return page_of(files, [file.id for file in files], limit=limit)

    @get("/{file_id:str}")
    async def retrieve_file(
        self,
        file_id: FromPath[str],
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
    ) -> OpenAIFile:
        """One file."""
        async with database.reading() as session:
            return openai_file(await service.get(session, principal.require_tenant(), file_id))

    @get("/{file_id:str}/content", media_type="application/octet-stream")
    async def download_file(
        self,
        file_id: FromPath[str],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
    ) -> Stream:
        """A file's bytes, exactly as they came."""
        async with database.reading() as session:
            file = await service.get(session, principal.require_tenant(), file_id)
        chunks = blobs.iterate(file.sha256)
        first = await anext(chunks, b"")  # while an error can still be an HTTP status
        return Stream(
            _after(first, chunks),
            media_type="application/octet-stream",
            headers={
                "content-length": str(file.size_bytes),
                "content-disposition": _attachment(clean_name(file.filename)),
            },
        )

    @delete("/{file_id:str}", status_code=200)
    async def delete_file(
        self,
        file_id: FromPath[str],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
    ) -> DeletedFile:
        """Delete a file."""
        async with database.transaction() as session:
            sha256 = await service.delete(session, principal.require_tenant(), file_id)
        await try_delete_unreferenced(database, blobs, sha256)
        return DeletedFile(id=file_id)


async def _after(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


def _attachment(filename: str) -> str:
    """A header for any file name, with which no browser shows the file as a page."""
    return f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
