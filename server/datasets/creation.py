"""Makes dataset versions: of all that a tenant has, or of the files of one job.

The slow part runs in a thread and outside any transaction. The same content is the same version.
"""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.conversation import Conversation, Split
from connectors.preference import Preference, UnpairedPreference
from connectors.redaction.redactor import Redactor
from connectors.training_files import Method, TrainingExample
from server.audit import service as audit
from server.curation import service as curation
from server.curation.applying import Curator
from server.curation.scanning import StoredConversation
from server.datasets import corrections
from server.datasets.service import subject
from server.datasets.validation import SharedSystemMessage, read_redacted
from server.db.models import ConversationRow, DatasetVersion, ImportedAgain
from server.db.scope import of_tenant
from server.db.session import Database
from server.scratch import scratch
from server.settings import Settings
from server.storage.blobs import BlobStore
from server.tenants import service as tenants
from server.transcripts.redaction import redactor_of
from training.data.dataset import Dataset
from training.data.dataset import create_version as create_dataset_version

ROWS_AT_ONCE = 500
_KINDS: dict[Method, type[TrainingExample]] = {
    "supervised": Conversation,
    "dpo": Preference,
    "kto": UnpairedPreference,
}


class CreatedDataset(msgspec.Struct, frozen=True):
    """A dataset version, and warnings for its owner."""

    dataset: DatasetVersion
    warnings: tuple[str, ...] = ()


async def create_version(
    database: Database, tenant_id: str, *, settings: Settings
) -> DatasetVersion:
    """Make the dataset version of all that a tenant has now: imports, and better answers to visitors.

    For example::

        dataset = await create_version(database, tenant.id, settings=settings)
        folder = settings.datasets / dataset.sha256

    Raises:
        NotFound: the tenant is gone.
        training.errors.BadInput: there is too little to train on.
    """
    with scratch(settings, "dataset") as folder:
        spool = folder / "conversations.jsonl"
        async with database.reading() as session:
            tenant = await tenants.get_by_id(session, tenant_id)
            curator = Curator(
                redactor_of(tenant, settings), await curation.load_decisions(session, tenant)
            )
            await _spool_conversations(session, tenant_id, folder / "stored.jsonl")
            import_ids = await _imports_of(session, tenant_id)
            better = await corrections.read(session, tenant_id)
        await asyncio.to_thread(_curate, folder / "stored.jsonl", spool, curator)
        redactor = redactor_of(tenant, settings)
        await asyncio.to_thread(_append_redacted, better, spool, redactor=redactor)
        made = await asyncio.to_thread(
            _create,
            spool,
            Conversation,
            settings.datasets,
            system_prompt=tenant.system_prompt,
            left_out=curator.left_out,
        )
    return await _register(database, tenant_id, made, import_ids)


async def create_from_files(
    database: Database,
    tenant_id: str,
    *,
    settings: Settings,
    blobs: BlobStore,
    method: Method,
    training: str,
    validation: str | None,
) -> CreatedDataset:
    """Make the dataset version of one job's files alone.

    The validation file, where there is one, is the validation split; otherwise a part of the
    training file is. Another part is the test split, which no training reads: the evaluation needs
    it. Where the examples are too much alike, nothing is held out, and a warning says so.

    A system message that all examples share becomes a part of the prompt that the model is trained
    and served with. Where they differ, they are not used.

    Args:
        database: where the row is added, in a transaction of its own.
        tenant_id: the owner of the files.
        settings: for the folder of datasets, and the redactor's region.
        blobs: where the files' bytes are.
        method: what an example is.
        training: the SHA-256 of the training file.
        validation: the SHA-256 of the validation file.

    Raises:
        NotFound: the tenant or a file's bytes are gone.
        training.errors.BadInput: there is too little to train on.
    """
    async with database.reading() as session:
        tenant = await tenants.get_by_id(session, tenant_id)
    redactor = redactor_of(tenant, settings)
    shared = SharedSystemMessage()
    with scratch(settings, "dataset") as folder:
        spool = folder / "examples.jsonl"
        sources: list[tuple[str, Split | None]] = [(training, None)]
        if validation is not None:
            sources.append((validation, "validation"))
        for sha256, split in sources:
            async with blobs.local(sha256, within=folder) as path:
                await asyncio.to_thread(
                    _spool_examples,
                    path,
                    spool,
                    method,
                    redactor=redactor,
                    split=split,
                    shared=shared,
                )
        made = await asyncio.to_thread(
            _create,
            spool,
            _KINDS[method],
            settings.datasets,
            system_prompt=shared.appended_to(tenant.system_prompt),
            as_given=True,
        )
    warnings = _duplicate_warnings(made)
    if shared.differ:
        warnings.append(
            "The examples begin with different system messages: these are not used, and the "
            "model is trained and served with the tenant's own prompt."
        )
    dropped = {reason: count for reason, count in made.manifest.dropped.items() if count}
    if dropped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        warnings.append(f"Examples dropped: {reasons}.")
    return CreatedDataset(await _register(database, tenant_id, made, set()), tuple(warnings))


def _duplicate_warnings(made: Dataset) -> list[str]:
    """Warnings about examples that repeat one another."""
    counts, repeated = made.manifest.counts, made.manifest.repeated or 0
    warnings = []
    if repeated:
        warnings.append(
            f"{repeated} of {sum(counts.values())} examples say the same as others, digits and "
            "punctuation apart: they are trained on as often as they are there."
        )
    if not counts["test"]:
        warnings.append(
            "The examples are too much alike to hold any out: nothing can tell whether the new model "
            "is better than the base, and it goes live only if a person promotes it."
        )
    if not counts["validation"]:
        warnings.append(
            "No example is left for validation: training takes every step, and keeps the last weights."
        )
    return warnings


async def _imports_of(session: AsyncSession, tenant_id: str) -> set[str]:
    """The imports that a tenant's conversations belong to."""
    found: set[str] = set()
    for kind in (ConversationRow, ImportedAgain):
        ids = of_tenant(tenant_id).select(kind.import_id).distinct()
        found.update(await session.scalars(ids))
    return found


async def _register(
    database: Database, tenant_id: str, made: Dataset, import_ids: set[str]
) -> DatasetVersion:
    async with database.transaction() as session:
        query = of_tenant(tenant_id).select(DatasetVersion)
        known = await session.scalar(query.where(DatasetVersion.sha256 == made.sha256))
        if known is not None:
            if known.import_ids is not None:
                known.import_ids = sorted(import_ids.union(known.import_ids))
            return known
        manifest: dict[str, Any] = msgspec.to_builtins(made.manifest)
        row = DatasetVersion(
            tenant_id=tenant_id,
            sha256=made.sha256,
            counts=manifest.get("counts", {}),
            manifest=manifest,
            import_ids=sorted(import_ids),
        )
        session.add(row)
        await session.flush()
        audit.record(
            session,
            "dataset.created",
            tenant_id=tenant_id,
            subject=subject(row),
            details={"conversations": row.counts},
        )
        return row


async def _spool_conversations(session: AsyncSession, tenant_id: str, spool: Path) -> None:
    """Write every conversation of a tenant to a file with its id, a line each, oldest first."""
    query = (
        of_tenant(tenant_id)
        .select(ConversationRow.id, ConversationRow.body)
        .order_by(ConversationRow.id)
        .execution_options(yield_per=ROWS_AT_ONCE)
    )
    with spool.open("wb") as file:
        async for rows in (await session.stream(query)).partitions():
            file.writelines(
                msgspec.json.encode({"id": name, "conversation": body}) + b"\n"
                for name, body in rows
            )


def _curate(stored: Path, spool: Path, curator: Curator) -> None:
    """Write what is learnt from, a line each."""
    decoder = msgspec.json.Decoder(StoredConversation)
    with stored.open("rb") as lines:
        for line in lines:
            curator.observe(decoder.decode(line).conversation)
    with stored.open("rb") as lines, spool.open("wb") as file:
        for line in lines:
            each = decoder.decode(line)
            if kept := curator.curate(each.id, each.conversation):
                file.write(msgspec.json.encode(kept) + b"\n")


def _append_redacted(
    conversations: Iterable[Conversation], spool: Path, *, redactor: Redactor
) -> None:
    """Append conversations without personal data, a line each."""
    with spool.open("ab") as file:
        for conversation in conversations:
            file.write(msgspec.json.encode(redactor.redact(conversation)[0]) + b"\n")


def _spool_examples(
    path: Path,
    spool: Path,
    method: Method,
    *,
    redactor: Redactor,
    split: Split | None,
    shared: SharedSystemMessage,
) -> None:
    """Append the redacted examples of a file, pinned to a split, a line each."""
    with spool.open("ab") as file:
        for record in read_redacted(path, method, redactor):
            shared.observe(record)
            pinned = msgspec.structs.replace(record, split=split)
            file.write(msgspec.json.encode(pinned) + b"\n")


def _create(
    spool: Path,
    kind: type[TrainingExample],
    root: Path,
    *,
    system_prompt: str,
    as_given: bool = False,
    left_out: Mapping[str, int] | None = None,
) -> Dataset:
    decoder = msgspec.json.Decoder(kind)
    root.mkdir(parents=True, exist_ok=True)
    with spool.open("rb") as lines:
        return create_dataset_version(
            map(decoder.decode, lines),
            root,
            system_prompt=system_prompt,
            as_given=as_given,
            left_out=left_out or {},
        )
