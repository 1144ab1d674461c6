"""Versions to take away: zips that are made while they are sent."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Literal

from server.child_processes import run_child, with_parent_watch
from server.db.models import Adapter
from server.errors import Invalid, NotFound
from server.scratch import scratch
from server.settings import Settings
from training.adapters import export
from training.errors import ArtifactError, BaseModelError

Form = Literal["peft", "merged", "gguf", "base"]


async def chunks_of(adapter: Adapter, form: Form, *, settings: Settings) -> AsyncGenerator[bytes]:
    """The zip of a version, after its parts were looked at.

    Weights are read and merged a few megabytes at a time. Only ``gguf``, which is as small as the
    adapter, is first made as a file, by another process: the package for it belongs to the training
    stack, which this one does not load.

    Raises:
        NotFound: the base that it belongs to is not here any more, or its own files.
        Invalid: no such form can be made of it.
    """
    folder = settings.adapters / adapter.engine_name
    base = settings.bases / adapter.base_name
    try:
        if form == "gguf":
            files = await _gguf(folder, base, settings=settings)
        else:
            files = await asyncio.to_thread(export.entries, form, folder, base)
    except BaseModelError as exc:
        raise NotFound(str(exc), param="format", code="base_not_found") from exc
    except ArtifactError as exc:
        raise NotFound(str(exc), code="adapter_not_found") from exc
    return _sent(export.stream(files))


async def _sent(chunks: Iterator[bytes]) -> AsyncGenerator[bytes]:
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk


async def _gguf(adapter: Path, base: Path, *, settings: Settings) -> list[export.Entry]:
    """The files of a GGUF export; they have no names any more, and go when they were sent.

    Raises:
        Invalid: it cannot be made, with the reason.
    """
    with scratch(settings, "gguf") as work:
        out, errors = work / "out", work / "errors"
        with errors.open("wb") as said:
            command = with_parent_watch("training.adapters.gguf", str(adapter), str(base), str(out))
            status = await run_child(command, stdout=said, stderr=said)
        if status:
            reason = errors.read_text(errors="replace").strip().rpartition("\n")[2]
            raise Invalid(
                reason.removeprefix("error: ") or "no GGUF adapter could be made",
                param="format",
                code="unsupported_format",
            )
        return await asyncio.to_thread(export.open_entries, out)
