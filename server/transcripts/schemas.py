"""What the transcript endpoints take and give."""

from typing import Any

import msgspec

from connectors.renamed import IMPORT_NOTES, IMPORT_OPTIONS, IMPORT_REPORT, TURN, with_old_names
from server.db.models import Import, ImportState, SourceFile
from server.files.names import clean_name
from server.schemas import Moment


class UploadForm(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an upload's form: how to read its part ``file``. What is unset is found out."""

    importer: str | msgspec.UnsetType = msgspec.UNSET
    map: list[str] = []
    encoding: str | msgspec.UnsetType = msgspec.UNSET
    delimiter: str | msgspec.UnsetType = msgspec.UNSET
    dates: str | msgspec.UnsetType = msgspec.UNSET
    order: str | msgspec.UnsetType = msgspec.UNSET
    split: str | msgspec.UnsetType = msgspec.UNSET


class ImportView(msgspec.Struct, frozen=True, kw_only=True):
    """An upload and what was read from it. ``report`` is there once all of it was read.

    ``options`` and ``report`` have some fields twice, under a deprecated name too: ``speakers`` is the
    old name of ``roles``, ``trimmed`` that of ``partially_rejected``. ``file_removed_at``: when the file itself was removed; null while it is kept.
    """

    id: str
    state: ImportState
    filename: str
    sha256: str
    size_bytes: int
    importer: str | None
    options: dict[str, Any]
    report: dict[str, Any] | None
    error: dict[str, Any] | None
    created_at: Moment
    finished_at: Moment | None
    file_removed_at: Moment | None


class ImportDeletion(msgspec.Struct, frozen=True, kw_only=True):
    """What the deletion of an import removed, and what stays that was made from it.

    ``conversations_kept`` belong to another import too. ``datasets``: the versions that hold its
    conversations. ``adapters``: those trained on these versions, and those that began with the weights
    of one that was.
    """

    id: str
    conversations_deleted: int
    conversations_kept: int
    datasets: list[str]
    datasets_deleted: bool
    adapters: list[str]


def import_view(row: Import, source: SourceFile) -> ImportView:
    """An import as its tenant sees it."""
    return ImportView(
        id=row.id,
        state=row.state,
        filename=clean_name(source.filename),
        sha256=source.sha256,
        size_bytes=source.size_bytes,
        importer=row.importer,
        options=_options(row.options),
        report=None if row.report is None else _report(row.report),
        error=row.error,
        created_at=row.created_at,
        finished_at=row.finished_at,
        file_removed_at=source.removed_at,
    )


def _options(stored: dict[str, Any]) -> dict[str, Any]:
    options = with_old_names(stored, IMPORT_OPTIONS)
    if "mapping" in options:
        options["mapping"] = with_old_names(options["mapping"], TURN)
    return options


def _report(stored: dict[str, Any]) -> dict[str, Any]:
    report = with_old_names(stored, IMPORT_REPORT)
    if "notes" in report:
        report["notes"] = with_old_names(report["notes"], IMPORT_NOTES)
    return report
