"""Dataset versions."""

from sqlalchemy import (
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Json, JsonObject, Record, SafeString, tenant_column


class DatasetVersion(Record):
    """An immutable dataset; its files are in ``datasets/<sha256>``.

    ``import_ids``: the imports that its conversations came from; null where it is older than the
    column.
    """

    __tablename__ = "dataset_version"
    __table_args__ = (UniqueConstraint("tenant_id", "sha256"),)

    tenant_id: Mapped[str] = tenant_column()
    sha256: Mapped[str] = mapped_column(SafeString(64))
    counts: Mapped[JsonObject] = mapped_column(default=dict)
    manifest: Mapped[JsonObject] = mapped_column(default=dict)
    import_ids: Mapped[list[str] | None] = mapped_column(Json)
