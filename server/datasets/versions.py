"""Dataset versions as pages list and compare them."""

import asyncio
import datetime
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.conversation import ChatMessage, Split
from server import spreadsheets
from server.datasets.service import get_dataset
from server.db.models import Adapter, DatasetVersion, Tenant
from server.db.scope import of_tenant
from server.settings import Settings
from server.transcripts import uploads
from training.data.splitting import SPLITS

PAGE = 25
CSV_COLUMNS = ("version", "train", "validation", "test", "dropped", "made_at", "models")
COMPARED_BYTES = 64 << 20
"""The largest version whose conversations are compared while somebody waits: a second or two."""
EXAMPLES = 10  # conversations that a comparison shows of each side
_CELL = 200  # characters of one

DROPPED: dict[str, str] = {
    "unanswered": "No question that an agent answered",
    "nothing_to_train": "No reply to learn from",
    "control_token": "Holds a control token of the model",
    "exact_duplicate": "The same as another",
    "near_duplicate": "Almost the same as another",
    "near_duplicate_of_other_split": "Too much like one of another split",
    "no_preference": "Both replies say the same",
}
"""Reasons for which a version leaves a conversation out, in words."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset version in a list. ``models``: the versions of the model that learnt from it."""

    id: str
    sha256: str
    counts: dict[str, int]
    dropped: dict[str, int]
    created_at: datetime.datetime
    models: Sequence[str]

    @property
    def name(self) -> str:
        """What people call it: the first letters of its hash."""
        return self.sha256[:8]

    @property
    def kept(self) -> int:
        """Conversations in all splits."""
        return sum(self.counts.values())


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """Conversations of two versions: in both, only in one, and in both but in another split.

    ``added`` and ``removed`` are the first messages of some.
    """

    both: int
    added_count: int
    removed_count: int
    moved: int
    added: Sequence[str]
    removed: Sequence[str]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two versions.

    ``imports_added`` and ``imports_removed``: names of files; None where an older server did not note
    them. ``find_moved`` compares the conversations themselves.
    """

    older: Version
    newer: Version
    prompts: tuple[str, str]
    imports_added: Sequence[str] | None
    imports_removed: Sequence[str] | None


async def list_versions(
    session: AsyncSession, tenant: Tenant, *, limit: int = PAGE, after: str | None = None
) -> list[Version]:
    """The tenant's dataset versions, newest first, from behind the row ``after`` on."""
    query = (
        of_tenant(tenant.id)
        .select(
            DatasetVersion.id,
            DatasetVersion.sha256,
            DatasetVersion.counts,
            DatasetVersion.manifest["dropped"].label("dropped"),
            DatasetVersion.created_at,
        )
        .order_by(DatasetVersion.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(DatasetVersion.id < after)
    rows = list(await session.execute(query))
    models = await _models(session, tenant, [row.id for row in rows])
    return [
        Version(
            id=row.id,
            sha256=row.sha256,
            counts=row.counts,
            dropped=_some(row.dropped),
            created_at=row.created_at,
            models=models.get(row.id, ()),
        )
        for row in rows
    ]


async def compare(session: AsyncSession, tenant: Tenant, hashes: tuple[str, str]) -> Difference:
    """What differs between two versions, by their hashes, in whatever order.

    Raises:
        NotFound: the tenant has no such version.
    """
    rows = [await get_dataset(session, tenant, sha256) for sha256 in hashes]
    old, new = sorted(rows, key=lambda row: row.id)
    models = await _models(session, tenant, [old.id, new.id])
    added = removed = None
    if old.import_ids is not None and new.import_ids is not None:
        added = await _names(session, tenant, set(new.import_ids).difference(old.import_ids))
        removed = await _names(session, tenant, set(old.import_ids).difference(new.import_ids))
    return Difference(
        older=_version(old, models),
        newer=_version(new, models),
        prompts=(old.manifest.get("system_prompt", ""), new.manifest.get("system_prompt", "")),
        imports_added=added,
        imports_removed=removed,
    )


async def find_moved(difference: Difference, *, settings: Settings) -> Moved | None:
    """Which conversations two versions share; reads both folders, so hold no session meanwhile.

    None where the files are gone, with the import that they were made of, or larger than
    ``COMPARED_BYTES``.
    """
    names = (difference.older.sha256, difference.newer.sha256)
    return await asyncio.to_thread(_moved, *(settings.datasets / name for name in names))


def to_csv(versions: Sequence[Version]) -> bytes:
    """Versions, a line each."""
    return spreadsheets.to_csv(
        CSV_COLUMNS,
        (
            (
                each.sha256,
                *(each.counts.get(split, 0) for split in SPLITS),
                sum(each.dropped.values()),
                each.created_at.isoformat(timespec="seconds"),
                " ".join(each.models),
            )
            for each in versions
        ),
    )


class _Line(msgspec.Struct):
    """The part of an example that is shown."""

    messages: list[ChatMessage]


def _moved(old: Path, new: Path) -> Moved | None:
    try:
        if max(_size(old), _size(new)) > COMPARED_BYTES:
            return None
        before = dict(_digests(old))
        after = dict(_digests(new))
        added, removed = after.keys() - before.keys(), before.keys() - after.keys()
        both = before.keys() & after.keys()
        return Moved(
            both=len(both),
            added_count=len(added),
            removed_count=len(removed),
            moved=sum(before[each] != after[each] for each in both),
            added=_first_messages(new, added),
            removed=_first_messages(old, removed),
        )
    except OSError:
        return None


def _size(folder: Path) -> int:
    return sum((folder / f"{split}.jsonl").stat().st_size for split in SPLITS)


def _lines(folder: Path) -> Iterator[tuple[bytes, Split, bytes]]:
    for split in SPLITS:
        with (folder / f"{split}.jsonl").open("rb") as lines:
            for line in lines:
                yield hashlib.sha256(line).digest(), split, line


def _digests(folder: Path) -> Iterator[tuple[bytes, Split]]:
    for digest, split, _ in _lines(folder):
        yield digest, split


def _first_messages(folder: Path, wanted: set[bytes]) -> list[str]:
    found: list[str] = []
    if not wanted:
        return found
    for digest, _, line in _lines(folder):
        if digest in wanted:
            messages = msgspec.json.decode(line, type=_Line).messages
            text = messages[0].content if messages else ""
            found.append(text if len(text) <= _CELL else text[:_CELL] + "…")
            if len(found) == EXAMPLES:
                break
    return found


async def _models(
    session: AsyncSession, tenant: Tenant, dataset_ids: Sequence[str]
) -> dict[str, list[str]]:
    query = of_tenant(tenant.id).select(Adapter.dataset_id, Adapter.version)
    query = query.where(Adapter.dataset_id.in_(dataset_ids), Adapter.state != "deleted")
    found: dict[str, list[str]] = {}
    for dataset_id, version in await session.execute(query.order_by(Adapter.version)):
        found.setdefault(dataset_id or "", []).append(f"{tenant.slug}@{version}")
    return found


async def _names(session: AsyncSession, tenant: Tenant, import_ids: set[str]) -> list[str]:
    known = await uploads.names_of(session, tenant, sorted(import_ids))
    return [known.get(each, "a deleted upload") for each in sorted(import_ids)]


def _version(row: DatasetVersion, models: dict[str, list[str]]) -> Version:
    return Version(
        id=row.id,
        sha256=row.sha256,
        counts=row.counts,
        dropped=_some(row.manifest.get("dropped")),
        created_at=row.created_at,
        models=models.get(row.id, ()),
    )


def _some(dropped: dict[str, int] | None) -> dict[str, int]:
    """Reasons for which something was dropped."""
    return {reason: count for reason, count in (dropped or {}).items() if count}
