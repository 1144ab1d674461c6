"""Imports adapters that were trained elsewhere: checked first, then evaluated by a job like ours."""

import asyncio
import shutil
from pathlib import Path

from server.db.models import Job, new_id
from server.db.session import Database
from server.engine.backends.vllm.launch import MAX_RANK
from server.errors import Conflict, Invalid
from server.jobs import service
from server.jobs.schemas import Imported, JobRequest
from server.settings import Settings
from server.tenants import service as tenants
from training.adapters.foreign import ImportedAdapter, convert_adapter, find_adapter
from training.adapters.foreign_zip import largest_adapter_bytes, unpack_adapter
from training.adapters.validation import linear_shapes
from training.errors import ArtifactError, BaseModelError

FOREIGN = "foreign"  # in the job's folder: the adapter in our form
_UNPACKED = "unpacked"
_LONGEST_NAME = 200


async def import_adapter(
    database: Database,
    slug: str,
    source: Path,
    *,
    settings: Settings,
    request: JobRequest,
    name: str,
    actor: str | None = None,
) -> Job:
    """Import a PEFT folder, or a zip of one, and queue the job that evaluates it.

    No file of it is ever run or unpickled.

    Args:
        database: read and written in transactions of its own.
        slug: the tenant's.
        source: the folder or the zip.
        settings: for the base, and the engine's largest rank.
        request: of the job; its recipe gets the adapter's shape.
        name: shown as the adapter's source.
        actor: who imports it.

    Raises:
        Invalid: the adapter cannot be served, with the reason.
        Conflict: the base is not made yet, or the tenant has too few conversations to evaluate on.
        NotFound: no such tenant.
        TooMany: too many of the tenant's jobs have not ended.
    """
    async with database.reading() as session:
        await service.expect_transcripts(session, await tenants.get(session, slug))
    job_id, name = new_id(), _printable(name)
    folder = settings.jobs / job_id
    try:
        taken = await asyncio.to_thread(_checked, source, folder, settings=settings, name=name)
        async with database.transaction() as session:
            return await service.create_job(
                session,
                await tenants.get(session, slug),
                request=request,
                settings=settings,
                imported=Imported(job_id=job_id, taken=taken),
                actor=actor,
            )
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        raise


def _printable(name: str) -> str:
    """A name without characters that move a cursor or change the direction of text."""
    return "".join(char for char in name if char.isprintable())[-_LONGEST_NAME:] or "adapter"


def _checked(source: Path, folder: Path, *, settings: Settings, name: str) -> ImportedAdapter:
    take = _take_zip if source.is_file() else _take_folder
    max_rank = int(settings.engine_options.get("max_lora_rank", MAX_RANK))
    try:
        return take(source, folder, settings.bases / settings.base, name=name, max_rank=max_rank)
    except ArtifactError as exc:
        reason = str(exc).replace(f"{folder / _UNPACKED}/", "").replace(f"{folder / FOREIGN}/", "")
        raise Invalid(f"{name}: {reason}", param="file", code="adapter_refused") from exc
    except BaseModelError as exc:
        raise Conflict(str(exc), code="base_not_found") from exc


def _take_folder(
    source: Path, folder: Path, base: Path, *, name: str, max_rank: int
) -> ImportedAdapter:
    found = find_adapter(source)
    return convert_adapter(found, folder / FOREIGN, base=base, source=name, max_rank=max_rank)


def _take_zip(
    source: Path, folder: Path, base: Path, *, name: str, max_rank: int
) -> ImportedAdapter:
    """What is unpacked is removed at the end."""
    bound = largest_adapter_bytes(linear_shapes(base / "serving"))
    unpacked = folder / _UNPACKED
    try:
        unpack_adapter(source, unpacked, max_bytes=bound)
        return convert_adapter(
            unpacked, folder / FOREIGN, base=base, source=name, max_rank=max_rank
        )
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
