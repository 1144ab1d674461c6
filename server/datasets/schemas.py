"""What the dataset endpoints give."""

from typing import Any

import msgspec

from server.db.models import DatasetVersion
from server.schemas import Moment


class DatasetView(msgspec.Struct, frozen=True, kw_only=True):
    """An immutable dataset version."""

    sha256: str
    counts: dict[str, Any]
    manifest: dict[str, Any]
    created_at: Moment


def dataset_view(row: DatasetVersion) -> DatasetView:
    """A dataset version as its tenant sees it."""
    return DatasetView(
        sha256=row.sha256, counts=row.counts, manifest=row.manifest, created_at=row.created_at
    )
