"""``/v1/uploads``: files too large for one request."""

from typing import Any

from litestar import Controller, Request, Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from sqlalchemy.ext.asyncio import AsyncSession

from server.api.body import BodyReader
from server.api.guards import needs
from server.api.openai.files.schemas import keep_seconds
from server.api.openai.idempotency import KEY_PARAMETER, digest_of, once
from server.api.openai.uploads.schemas import (
    CompleteBody,
    OpenAIPart,
    OpenAIUpload,
    PartForm,
    UploadBody,
    openai_part,
    openai_upload,
)
from server.api.upload import UploadedFile
from server.auth.keys import Principal
from server.db.session import Database
from server.errors import Invalid
from server.files import assembly, uploads
from server.files.names import clean_name
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.storage.references import stored, try_delete_unreferenced

_uploads = BodyReader(UploadBody)
_completions = BodyReader(CompleteBody)


class UploadController(Controller):
    """Uploads in parts, for tenants' keys with the scope ``train``.

    Repetitions are recognised by their ``Idempotency-Key`` only, not guessed: equal parts follow
    one another in honest files, and what is begun twice is swept after an hour.
    """

    path = "/v1/uploads"
    tags = ("uploads",)
    guards = (needs("train"),)

    @post(status_code=200, opt={"body": UploadBody, "parameters": [KEY_PARAMETER]})
    async def create_upload(
        self,
        request: Request[Any, Any, Any],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        settings: NamedDependency[Settings],
    ) -> Response[OpenAIUpload]:
        """Begin an upload; it stays open for an hour."""
        tenant_id = principal.require_tenant()
        data = await request.body()
        body = _uploads.read(data)
        if body.bytes > settings.max_upload_bytes:
            raise Invalid(
                f"Invalid value for 'bytes': at most {settings.max_upload_bytes:,} are accepted.",
                param="bytes",
            )

        async def work(session: AsyncSession) -> OpenAIUpload:
            upload = await uploads.create(
                session,
                tenant_id,
                filename=clean_name(body.filename),
                purpose=body.purpose,
                mime_type=body.mime_type,
                size_bytes=body.bytes,
                keep_seconds=keep_seconds(body.purpose, body.expires_after),
            )
            return openai_upload(upload)

        return await once(request, database, work, digest=digest_of(data))

    # the upload caps itself, while it streams; Litestar's own cap is for bodies in memory
    @post(
        "/{upload_id:str}/parts",
        status_code=200,
        request_max_body_size=None,
        opt={"form": PartForm, "file": "data", "parameters": [KEY_PARAMETER]},
    )
    async def add_upload_part(
        self,
        upload_id: FromPath[str],
        request: Request[Any, Any, Any],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
    ) -> Response[OpenAIPart]:
        """Add bytes, as the part ``data`` of a form; several may be sent at the same time."""
        tenant_id = principal.require_tenant()
        async with database.reading() as session:
            uploads.require_pending(await uploads.get(session, tenant_id, upload_id))
        limit = uploads.MAX_PART_BYTES
        upload = UploadedFile(request, filename="data", max_bytes=limit, part="data", raw=False)
        async with stored(database, blobs, upload.chunks(), max_bytes=limit) as (sha256, size):
            for name in upload.fields:
                raise Invalid(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
            if not size:
                raise Invalid("The part is empty.", param="data")

            async def work(session: AsyncSession) -> OpenAIPart:
                part = await uploads.add_part(
                    session, tenant_id, upload_id, blobs=blobs, sha256=sha256, size_bytes=size
                )
                return openai_part(part, upload_id)

            return await once(request, database, work, digest=sha256)

    @post(
        "/{upload_id:str}/complete",
        status_code=200,
        opt={"body": CompleteBody, "parameters": [KEY_PARAMETER]},
    )
    async def complete_upload(
        self,
        upload_id: FromPath[str],
        request: Request[Any, Any, Any],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
    ) -> Response[OpenAIUpload]:
        """Make the file of the parts, in the order given; twice the same is the same file."""
        tenant_id = principal.require_tenant()
        data = await request.body()
        body = _completions.read(data)
        async with assembly.assembled(
            database, blobs, tenant_id, upload_id, part_ids=body.part_ids, md5=body.md5
        ) as sha256:

            async def work(session: AsyncSession) -> OpenAIUpload:
                upload, file = await assembly.complete(
                    session,
                    tenant_id,
                    upload_id,
                    part_ids=body.part_ids,
                    blobs=blobs,
                    sha256=sha256,
                )
                return openai_upload(upload, file)

            return await once(request, database, work, digest=digest_of(data))

    @post("/{upload_id:str}/cancel", status_code=200)
    async def cancel_upload(
        self,
        upload_id: FromPath[str],
        *,
        principal: NamedDependency[Principal],
        database: NamedDependency[Database],
        blobs: NamedDependency[BlobStore],
    ) -> OpenAIUpload:
        """Close the upload and throw its parts away; twice is the same."""
        async with database.transaction() as session:
            upload, hashes = await uploads.cancel(session, principal.require_tenant(), upload_id)
        await try_delete_unreferenced(database, blobs, *hashes)
        return openai_upload(upload)
