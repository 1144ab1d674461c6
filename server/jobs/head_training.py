"""Trains queued heads, one at a time, in a child process. Call it a small job.

The row is the truth: a worker takes the oldest queued one, or the one that it had before it was
killed, and its trainer goes on where the last one stopped.
"""

import asyncio
import contextlib
import shutil
from pathlib import Path

import msgspec
import structlog
from sqlalchemy import and_, or_
from sqlalchemy.exc import SQLAlchemyError

from server.db.models import Head, Tenant
from server.db.scope import across_tenants, of_tenant
from server.heads import service as heads
from server.jobs.steps.context import StepContext
from server.jobs.trainer_process import (
    Interruption,
    TrainingCancelled,
    TrainingFailed,
    run_trainer,
)
from training.errors import BadInput
from training.events import Event, ResultEvent, StepEvent
from training.filesystem import write_atomically
from training.heads.config import IMAGE, EncoderName, HeadSpec
from training.heads.dataset import create_version

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
_EVERYONE = across_tenants("a worker trains the heads of all tenants")


async def train_queued_forever(context: StepContext, *, executor: str) -> None:
    """Train what is queued until the worker stops."""
    while not context.stopping.is_set():
        trained = False
        try:
            trained = await train_next(context, executor=executor)
        except SQLAlchemyError:
            log.exception("looking for heads failed; trying again")
        if not trained:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(context.stopping.wait(), POLL_SECONDS)


async def train_next(context: StepContext, *, executor: str) -> bool:
    """Train one head to its end; False where none is queued.

    What a person can mend (too few texts of a label) ends it as failed, with the reason.
    """
    head = await _take(context, executor)
    if head is None:
        return False
    try:
        manifest, sha256 = await _train(context, head)
    except TrainingCancelled:
        log.info("head has gone while it was trained", head=head.id)
        await _remove_unused(context, head.tenant_id)
    except BadInput as exc:
        await _end(context, head, error={"code": "bad_input", "message": str(exc)})
    except TrainingFailed as exc:
        await _end(context, head, error={"code": exc.code, "message": exc.message})
    except Exception as exc:
        log.exception("training a head failed", head=head.id)
        await _end(context, head, error={"code": "internal", "message": f"{exc!r}"})
    else:
        await _end(context, head, manifest=manifest, sha256=sha256)
    return True


async def remove_abandoned(context: StepContext) -> None:
    """Remove the heads' folders of tenants that are gone."""
    root = context.settings.heads
    if not root.is_dir():
        return
    async with context.database.reading() as session:
        known = {heads.SHARED_FOLDER, *await session.scalars(_EVERYONE.select(Tenant.id))}
    for path in root.iterdir():
        if path.name not in known:
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)


async def _remove_unused(context: StepContext, tenant_id: str | None) -> None:
    async with context.database.transaction() as session:
        owner = None
        if tenant_id is not None:
            owner = await of_tenant(tenant_id).get(session, Tenant, tenant_id)
            if owner is None:  # all of it goes with the tenant
                return
        await heads.remove_unused(session, owner, settings=context.settings)


async def _take(context: StepContext, executor: str) -> Head | None:
    async with context.database.transaction() as session:
        mine = and_(Head.state == "running", Head.executor == executor)
        query = _EVERYONE.select(Head).where(or_(Head.state == "queued", mine))
        query = query.order_by((Head.state == "queued"), Head.created_at, Head.id).limit(1)
        head = await session.scalar(query.with_for_update(skip_locked=True))
        if head is not None:
            head.state, head.executor = "running", executor
        return head


async def _train(context: StepContext, head: Head) -> tuple[dict[str, object], str]:
    settings = context.settings
    folder = heads.folder(settings, head)
    examples = await asyncio.to_thread(heads.read_queued, settings, head)
    dataset = await asyncio.to_thread(
        create_version,
        examples,
        heads.datasets_folder(settings, head.tenant_id),
        task=head.task,
    )
    spec_path = folder / "spec.json"
    if not spec_path.is_file():  # one that goes on is held against what was live when it began
        async with context.database.reading() as session:
            live = await heads.find_live(session, head.tenant_id, head.task)
        spec = HeadSpec(
            dataset=str(dataset.folder),
            encoder=_encoder(head, fake=settings.engine == "fake"),
            live=str(heads.weights_folder(settings, live)) if live else None,
        )
        write_atomically(spec_path, msgspec.json.encode(spec))
    result = ""

    async def on_event(event: Event) -> None:
        nonlocal result
        match event:
            case StepEvent():
                await _progress(context, head, event.step / event.steps)
            case ResultEvent():
                result = event.adapter
            case _:
                pass

    async def requested() -> Interruption | None:
        async with context.database.reading() as session:
            there = await heads.scope_of(head.tenant_id).get(session, Head, head.id)
        return None if there else "cancel"

    context.trainers.started(head.id)
    try:
        await run_trainer(
            spec_path,
            folder,
            command=("training.heads", "train"),
            on_event=on_event,
            requested=requested,
            stopping=context.stopping,
            on_saved=lambda: context.trainers.ended(head.id),
        )
    finally:
        context.trainers.ended(head.id)
    manifest = msgspec.json.decode((Path(result) / "manifest.json").read_bytes())
    return manifest, Path(result).name


def _encoder(head: Head, *, fake: bool) -> EncoderName:
    if head.task == IMAGE:
        return "colour-grid" if fake else "efficientnet-lite0"
    return "hashed-words" if fake else "all-minilm-l6-v2"


async def _progress(context: StepContext, head: Head, share: float) -> None:
    scope = heads.scope_of(head.tenant_id)
    async with context.database.transaction() as session:
        await session.execute(
            scope.update(Head).where(Head.id == head.id).values(progress=round(share, 3))
        )


async def _end(
    context: StepContext,
    head: Head,
    *,
    manifest: dict[str, object] | None = None,
    sha256: str | None = None,
    error: dict[str, str] | None = None,
) -> None:
    async with context.database.transaction() as session:
        row = await heads.scope_of(head.tenant_id).get(session, Head, head.id, lock=True)
        if row is None:  # deleted meanwhile
            return
        row.state = "ready" if error is None else "failed"
        row.manifest, row.sha256, row.error = manifest, sha256, error
        row.progress = 1.0 if error is None else row.progress
    log.info("head ended", head=head.id, state="failed" if error else "ready")
