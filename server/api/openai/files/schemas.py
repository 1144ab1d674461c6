"""OpenAI's file objects, and how they are made from rows."""

import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from server.db.models import File
from server.files import service
from server.files.names import clean_name

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
BATCH_SECONDS = 30 * 24 * 3600  # OpenAI keeps files of this purpose for so long


class ExpiresAfter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a file expires."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=3600, le=2_592_000)]


class FileForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of a file's form, beside the part ``file``.

    Nested fields come as ``expires_after[anchor]`` and ``expires_after[seconds]``.
    """

    purpose: Purpose
    expires_after: ExpiresAfter | None = None


class OpenAIFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file. ``status`` is deprecated, and always the same: a file is ready when it is there."""

    id: str
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    object: Literal["file"] = "file"
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: str | None = None


class DeletedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


def openai_file(file: File) -> OpenAIFile:
    """A file as OpenAI's clients see it."""
    return OpenAIFile(
        id=service.public_id(file),
        bytes=file.size_bytes,
        created_at=seconds_of(file.created_at),
        expires_at=None if file.expires_at is None else seconds_of(file.expires_at),
        filename=clean_name(file.filename),
        purpose=file.purpose,
    )


def keep_seconds(purpose: Purpose, expires_after: ExpiresAfter | None) -> int | None:
    """For how long a file is kept; None: until it is deleted."""
    if expires_after is not None:
        return expires_after.seconds
    return BATCH_SECONDS if purpose == "batch" else None


def seconds_of(moment: datetime.datetime) -> int:
    """A Unix timestamp."""
    return int(moment.timestamp())
