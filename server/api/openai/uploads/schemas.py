"""OpenAI's upload objects, and how they are made from rows."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from server.api.openai.files.schemas import (
    ExpiresAfter,
    OpenAIFile,
    Purpose,
    openai_file,
    seconds_of,
)
from server.db.models import File, Upload, UploadPart, UploadState
from server.files import uploads
from server.files.names import clean_name

ShortText = Annotated[str, Meta(min_length=1, max_length=255)]
PartId = Annotated[str, Meta(max_length=64)]


class UploadBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/uploads``."""

    bytes: Annotated[int, Meta(ge=1)]
    filename: ShortText
    mime_type: ShortText
    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class CompleteBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/uploads/<id>/complete``."""

    part_ids: Annotated[list[PartId], Meta(min_length=1, max_length=uploads.MAX_PARTS)]
    md5: Annotated[str, Meta(pattern="^[0-9a-fA-F]{32}$")] | None = None


class PartForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of a part's form beside the part ``data``: none."""


class OpenAIUpload(msgspec.Struct, frozen=True, kw_only=True):
    """A file that arrives in parts; ``file`` is null until it is whole."""

    id: str
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: UploadState
    file: OpenAIFile | None
    object: Literal["upload"] = "upload"


class OpenAIPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an upload."""

    id: str
    created_at: int
    upload_id: str
    object: Literal["upload.part"] = "upload.part"


def openai_upload(upload: Upload, file: File | None = None) -> OpenAIUpload:
    """An upload as OpenAI's clients see it."""
    return OpenAIUpload(
        id=uploads.public_id(upload),
        bytes=upload.size_bytes,
        created_at=seconds_of(upload.created_at),
        expires_at=seconds_of(upload.expires_at),
        filename=clean_name(upload.filename),
        purpose=upload.purpose,
        status=uploads.state_of(upload),
        file=openai_file(file) if file else None,
    )


def openai_part(part: UploadPart, upload_id: str) -> OpenAIPart:
    """A part as OpenAI's clients see it."""
    return OpenAIPart(
        id=uploads.public_part_id(part),
        created_at=seconds_of(part.created_at),
        upload_id=upload_id,
    )
