"""Heads: labelled texts or images in, versions, which of them is live.

They are a tenant's, or shared: the operator's, for all tenants that have none of their own live. Where a
function takes an ``owner``, None is the operator.
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
from sqlalchemy import func, text
from sqlalchemy.ext.asyncio import AsyncSession

from server.audit import service as audit
from server.audit.actions import Action
from server.audit.schemas import Subject
from server.db.models import Head, Tenant, new_id, now
from server.db.scope import TenantScope, of_operator, of_tenant
from server.errors import Conflict, Invalid, NotFound
from server.heads import reading
from server.heads.reading import ReadingRequest
from server.heads.schemas import HeadView, LeftOutView, SharedHeadView
from server.settings import Settings
from training.errors import BadInput
from training.filesystem import sync_path, write_atomically
from training.heads.config import IMAGE, Task
from training.heads.examples import Example, LabelledImage, LeftOut, pictures_of, read_examples

MAX_TEXTS = 20_000
MAX_WAITING = 3  # of one tenant
EXAMPLES_FILE = "examples.jsonl"
SHOWN_LEFT_OUT = 50
SHARED_FOLDER = "shared"  # no tenant's id
_SHARED_LOCK = 0x6865616473  # of PostgreSQL


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """What of an upload can be trained on. ``pictures``: the folder where those of its images lie."""

    examples: Sequence[Example]
    left_out: Sequence[LeftOut] = ()
    pictures: Path | None = None


def owner_folder(settings: Settings, tenant_id: str | None) -> Path:
    """Where all that belongs to a tenant's heads lies, or to the shared ones."""
    return settings.heads / (SHARED_FOLDER if tenant_id is None else tenant_id)


def datasets_folder(settings: Settings, tenant_id: str | None) -> Path:
    """Where the datasets of all heads of an owner lie, and the pictures of its images."""
    return owner_folder(settings, tenant_id) / "datasets"


def folder(settings: Settings, head: Head) -> Path:
    """Where a head's labelled examples, its run and its weights lie."""
    return owner_folder(settings, head.tenant_id) / head.id


def weights_folder(settings: Settings, head: Head) -> Path:
    """Where a ready head itself lies.

    Raises:
        Conflict: it is not ready.
    """
    if head.state != "ready" or head.sha256 is None:
        raise Conflict(
            f"Version {head.version} of {head.task} is not ready ({head.state}).",
            code="head_not_ready",
        )
    return folder(settings, head) / "heads" / head.sha256


async def check_examples(path: Path, *, filename: str, task: Task, scratch: Path) -> Upload:
    """Read an upload: labelled texts, or for the task ``image`` a zip archive (or folder) of images.

    Args:
        path: The file.
        filename: What it is called.
        task: What the labels tell.
        scratch: An empty folder for pictures, until they are queued.

    Raises:
        Invalid: a line of texts cannot be used, and the message names it; no image can be used; or
            there are too many.
    """
    if task == IMAGE:
        request = ReadingRequest(source=str(path), filename=filename, pictures=str(scratch))
        outcome = await reading.read(request)
        return Upload(examples=outcome.images, left_out=outcome.left_out, pictures=scratch)
    try:
        found = await asyncio.to_thread(read_examples, path, name=filename)
    except BadInput as exc:
        raise Invalid(str(exc), param="file", code="invalid_labels") from exc
    if len(found) > MAX_TEXTS:
        raise Invalid(f"{filename}: {len(found):,} texts; at most {MAX_TEXTS:,}.", param="file")
    return Upload(examples=found)


async def queue(
    session: AsyncSession,
    owner: Tenant | None,
    upload: Upload,
    *,
    task: Task,
    filename: str,
    settings: Settings,
) -> Head:
    """Add a version that a worker will train. What it is trained on is on disk before its row is.

    Raises:
        Conflict: too many of the owner's wait already.
    """
    await _lock_heads(session, owner)  # numbers are given one by one
    waiting = await count_unfinished(session, _id_of(owner))
    if waiting >= MAX_WAITING:
        raise Conflict(
            f"{waiting} heads wait to be trained; upload more when one of them is done.",
            code="too_many_waiting",
        )
    last = await session.scalar(
        scope_of(_id_of(owner)).select(func.max(Head.version)).where(Head.task == task)
    )
    row = Head(
        id=new_id(),
        tenant_id=_id_of(owner),
        task=task,
        version=(last or 0) + 1,
        filename=filename,
        texts=len(upload.examples),
        left_out=msgspec.to_builtins(_left_out(upload.left_out)) if upload.left_out else None,
    )
    await asyncio.to_thread(
        _write, upload, folder(settings, row), datasets_folder(settings, _id_of(owner))
    )
    session.add(row)
    await session.flush()
    _record(session, "head.uploaded", row, texts=len(upload.examples))
    return row


def _write(upload: Upload, own: Path, datasets: Path) -> None:
    """Put pictures where datasets look for them, and then the examples."""
    if upload.pictures is not None:
        pictures = pictures_of(datasets)
        pictures.mkdir(parents=True, exist_ok=True)
        for path in upload.pictures.iterdir():
            path.replace(pictures / path.name)
        sync_path(pictures)
    data = b"".join(msgspec.json.encode(each) + b"\n" for each in upload.examples)
    write_atomically(own / EXAMPLES_FILE, data)


def read_queued(settings: Settings, head: Head) -> list[Example]:
    """What a queued version is to be trained on.

    Raises:
        BadInput: it is not there, or was changed.
    """
    path = folder(settings, head) / EXAMPLES_FILE
    if head.task != IMAGE:
        return [*read_examples(path)]
    try:
        return [*msgspec.json.Decoder(LabelledImage).decode_lines(path.read_bytes())]
    except (OSError, msgspec.DecodeError) as exc:
        raise BadInput(f"cannot read {path}: {exc}; upload the images again") from exc


def _left_out(found: Sequence[LeftOut]) -> LeftOutView:
    counts = Counter(each.reason.value for each in found)
    return LeftOutView(counts=dict(sorted(counts.items())), files=list(found[:SHOWN_LEFT_OUT]))


async def list_for(
    session: AsyncSession, owner: Tenant | None, *, task: Task | None = None
) -> list[Head]:
    """All versions, or those of one task, by task, newest first."""
    query = scope_of(_id_of(owner)).select(Head)
    if task is not None:
        query = query.where(Head.task == task)
    return list(await session.scalars(query.order_by(Head.task, Head.version.desc())))


async def count_unfinished(session: AsyncSession, tenant_id: str | None) -> int:
    """How many versions wait to be trained, or are."""
    query = scope_of(tenant_id).select(func.count(Head.id))
    return await session.scalar(query.where(Head.state.in_(("queued", "running")))) or 0


async def get(
    session: AsyncSession, owner: Tenant | None, task: Task, version: int, *, lock: bool = False
) -> Head:
    """One version.

    Raises:
        NotFound: there is none.
    """
    query = scope_of(_id_of(owner)).select(Head).where(Head.task == task, Head.version == version)
    row = await session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"There is no version {version} of {task}.", code="head_not_found")
    return row


async def find_live(session: AsyncSession, tenant_id: str | None, task: Task) -> Head | None:
    """The version of a task that its owner has made live."""
    query = scope_of(tenant_id).select(Head).where(Head.task == task, Head.live)
    return await session.scalar(query)


async def find_used(session: AsyncSession, tenant_id: str, task: Task) -> Head | None:
    """The version that labels a tenant's messages: its own, else the shared one unless it wants none."""
    own = await find_live(session, tenant_id, task)
    if own is not None:
        return own
    tenant = await of_tenant(tenant_id).get_one(session, Tenant, tenant_id)
    return None if task in tenant.shared_heads_off else await find_live(session, None, task)


async def live(session: AsyncSession, tenant: Tenant, task: Task) -> Head:
    """The version of a task that labels a tenant's messages, as ``find_used``.

    Raises:
        NotFound: there is none.
    """
    row = await find_used(session, tenant.id, task)
    if row is None:
        raise NotFound(f"No version of {task} is live; promote one.", code="no_live_head")
    return row


async def promote(
    session: AsyncSession,
    owner: Tenant | None,
    task: Task,
    version: int,
    *,
    force: bool = False,
    expected_live: int | None = None,
) -> Head:
    """Let a version label messages from now on. Of the live one nothing changes.

    ``expected_live``: the version that was live when the decision was made, 0 for none; None where that
    is not compared.

    Raises:
        NotFound: there is no such version.
        Conflict: it is not ready, or its gates do not say better and ``force`` is not given; or
            another version is live than was expected (``live_changed``).
    """
    await _lock(session, owner, task, expected_live)
    row = await get(session, owner, task, version, lock=True)
    if row.state != "ready" or row.manifest is None:
        raise Conflict(
            f"Version {version} of {task} is not ready ({row.state}).", code="head_not_ready"
        )
    verdict = row.manifest["verdict"]
    if not verdict["passed"] and not force and not row.live:
        whys = "; ".join(gate["why"] for gate in verdict["gates"] if not gate["passed"])
        raise Conflict(
            f"The gates of version {version} do not say better: {whys}. Promote it with force if you "
            "want it all the same.",
            code="gates_not_passed",
        )
    await _make_live(session, row, "head.promoted")
    return row


async def before_live(session: AsyncSession, owner: Tenant | None, task: Task) -> Head | None:
    """The version that was live before, to which ``roll_back`` goes; None where there is none."""
    query = scope_of(_id_of(owner)).select(Head)
    query = query.where(Head.task == task, Head.live.is_(False), Head.replaced_at.is_not(None))
    return await session.scalar(query.order_by(Head.replaced_at.desc()).limit(1))


async def roll_back(
    session: AsyncSession, owner: Tenant | None, task: Task, *, expected_live: int | None = None
) -> Head:
    """Go back to the version that was live before; again returns to the later one.

    Raises:
        Conflict: no other version was ever live, or another version is live than was expected
            (``live_changed``).
    """
    await _lock(session, owner, task, expected_live)
    row = await before_live(session, owner, task)
    if row is None:
        raise Conflict(f"No other version of {task} was live before.", code="nothing_to_roll_back")
    await _make_live(session, row, "head.rolled_back")
    return row


async def retire(
    session: AsyncSession, owner: Tenant | None, task: Task, *, expected_live: int | None = None
) -> None:
    """Let no version of a task label messages any more. Again changes nothing.

    Raises:
        Conflict: another version is live than was expected (``live_changed``).
    """
    await _lock(session, owner, task, expected_live)
    row = await find_live(session, _id_of(owner), task)
    if row is not None:
        row.live, row.replaced_at = False, now()
        _record(session, "head.retired", row)


async def delete(session: AsyncSession, owner: Tenant | None, task: Task, version: int) -> None:
    """Forget a version; one that is being trained stops. What it said of messages stays.

    Call ``remove_unused`` after the commit: it removes what the version was trained on.

    Raises:
        NotFound: there is no such version.
        Conflict: it is live.
    """
    await _lock(session, owner, task, None)
    row = await get(session, owner, task, version, lock=True)
    if row.live:
        raise Conflict(
            f"Version {version} of {task} is live: promote another one, or take it out of use first.",
            code="head_is_live",
        )
    _record(session, "head.deleted", row)
    await session.delete(row)
    await session.flush()


async def remove_unused(session: AsyncSession, owner: Tenant | None, *, settings: Settings) -> None:
    """Remove files of a tenant's heads that are gone: weights, labelled texts and images.

    While a version waits or is trained, datasets and pictures stay: it may be about to use them.
    """
    root = owner_folder(settings, _id_of(owner))
    if not root.is_dir():
        return
    await _lock_heads(session, owner)
    rows = await list_for(session, owner)
    kept = {row.id for row in rows} | {datasets_folder(settings, _id_of(owner)).name}
    unused = [path for path in root.iterdir() if path.name not in kept]
    if all(row.state in {"ready", "failed"} for row in rows):
        used = {row.manifest["dataset_sha256"] for row in rows if row.manifest}
        datasets = datasets_folder(settings, _id_of(owner))
        unused += await asyncio.to_thread(_unused_data, datasets, used)
    for path in unused:
        await asyncio.to_thread(_remove, path)


def _unused_data(datasets: Path, used: set[str]) -> list[Path]:
    """Datasets that no head was trained on, and pictures that are in no other one."""
    pictures = pictures_of(datasets)
    folders = [path for path in datasets.glob("*") if path != pictures]
    files = [file for path in folders if path.name in used for file in path.glob("*.jsonl")]
    lines = (line for file in files for line in file.read_bytes().splitlines())
    shown = {msgspec.json.decode(line).get("image") for line in lines}
    return [
        *(path for path in folders if path.name not in used),
        *(path for path in pictures.glob("*") if path.stem not in shown),
    ]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


async def _lock(
    session: AsyncSession, owner: Tenant | None, task: Task, expected_live: int | None
) -> None:
    """Keep others from changing the tenant's heads until the transaction ends.

    Raises:
        Conflict: another version is live than was expected.
    """
    await _lock_heads(session, owner)
    if expected_live is None:
        return
    row = await find_live(session, _id_of(owner), task)
    if (row.version if row else 0) != expected_live:
        now_live = f"version {row.version}" if row else "no version"
        raise Conflict(
            f"Somebody was faster: {now_live} of {task} is live now.", code="live_changed"
        )


async def _lock_heads(session: AsyncSession, owner: Tenant | None) -> None:
    """Keep others from changing an owner's heads until the transaction ends; on SQLite it writes alone."""
    if owner is not None:
        await of_tenant(owner.id).get_one(session, Tenant, owner.id, lock=True)
    elif session.get_bind().dialect.name == "postgresql":
        await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SHARED_LOCK})


def scope_of(tenant_id: str | None) -> TenantScope:
    """Queries of a tenant's heads, or of the shared ones."""
    return of_operator() if tenant_id is None else of_tenant(tenant_id)


def _id_of(owner: Tenant | None) -> str | None:
    return None if owner is None else owner.id


async def use_shared(session: AsyncSession, tenant: Tenant, task: Task, *, use: bool) -> None:
    """Say whether a tenant without a live head of its own uses the shared one. Again changes nothing."""
    row = await of_tenant(tenant.id).get_one(session, Tenant, tenant.id, lock=True)
    off = set(row.shared_heads_off)
    wanted = off - {task} if use else off | {task}
    if wanted == off:
        return
    row.shared_heads_off = sorted(wanted)
    await session.flush()
    audit.record(
        session,
        "head.sharing_changed",
        tenant_id=tenant.id,
        subject=Subject("head", task, task),
        details={"use": use},
    )


async def list_shared(session: AsyncSession, tenant: Tenant) -> list[SharedHeadView]:
    """The shared heads that are live, and which of them the tenant uses."""
    query = of_operator().select(Head).where(Head.live).order_by(Head.task)
    own = of_tenant(tenant.id).select(Head.task).where(Head.live)
    overridden = set(await session.scalars(own))
    return [
        SharedHeadView(
            task=row.task,
            version=row.version,
            use="off"
            if row.task in tenant.shared_heads_off
            else "own"
            if row.task in overridden
            else "shared",
            report=row.manifest or {},
        )
        for row in await session.scalars(query)
    ]


async def _make_live(session: AsyncSession, row: Head, action: Action) -> None:
    before = await find_live(session, row.tenant_id, row.task)
    if before is row:
        return
    moment = now()
    if before is not None:
        before.live, before.replaced_at = False, moment
    row.live, row.live_since = True, moment
    await session.flush()
    _record(session, action, row, before=before.version if before else None)


def view(row: Head) -> HeadView:
    """A version as the API shows it."""
    return HeadView(
        task=row.task,
        version=row.version,
        state=row.state,
        live=row.live,
        shared=row.tenant_id is None,
        filename=row.filename,
        texts=row.texts,
        progress=row.progress,
        sha256=row.sha256,
        error=row.error,
        report=row.manifest,
        left_out=msgspec.convert(row.left_out, LeftOutView) if row.left_out else None,
        created_at=row.created_at,
        live_since=row.live_since,
    )


def _record(session: AsyncSession, action: Action, row: Head, **details: int | None) -> None:
    audit.record(
        session,
        action,
        tenant_id=row.tenant_id,
        subject=Subject("head", row.id, f"{row.task}, version {row.version}"),
        details={name: value for name, value in details.items() if value is not None},
    )
