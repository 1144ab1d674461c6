"""Parts of tables: ids, times, and column types that both databases store alike."""

import datetime
from typing import Annotated, Any

import msgspec
import uuid_utils
from advanced_alchemy.base import AdvancedDeclarativeBase, CommonTableAttributes, convention
from advanced_alchemy.mixins import AuditColumns
from advanced_alchemy.types import DateTimeUTC
from sqlalchemy import (
    JSON,
    Dialect,
    ForeignKey,
    MetaData,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, registry
from sqlalchemy.types import TypeEngine

MAX_NUMBER = (1 << 31) - 1  # of an Integer column


def new_id() -> str:
    """A version 7 UUID (RFC 9562) as 32 hexadecimal characters."""
    return uuid_utils.uuid7().hex


def now() -> datetime.datetime:
    """The current time, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def storable(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """The same JSON without NUL characters, which PostgreSQL cannot store."""
    match value:
        case str():
            return value.replace("\x00", "\ufffd") if "\x00" in value else value
        case dict():
            return {storable(key): storable(item) for key, item in value.items()}
        case list() | tuple():
            return [storable(item) for item in value]
        case _:
            return value


class SafeString(TypeDecorator[str]):
    """Text of a bounded length, stored and compared without NUL characters.

    Names come from requests, and PostgreSQL's driver raises for one with a NUL.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace NULs on both databases, so that both find the same rows."""
        return value.replace("\x00", "\ufffd") if value and "\x00" in value else value


class SafeText(SafeString):
    """``SafeString`` without a bound."""

    impl = Text
    cache_ok = True


class Json(TypeDecorator[Any]):
    """JSON: ``jsonb`` on PostgreSQL, text on SQLite. Assign a new value: a change inside is not seen."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Use the native type where there is one."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(JSONB(none_as_null=True))
        return dialect.type_descriptor(JSON(none_as_null=True))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: ANN401
        """Replace NULs on both databases, so that both hold the same."""
        return storable(value)


class StructJson(Json):
    """A msgspec struct, kept as JSON, for ``Mapped[Limits | None]``.

    Fields that the struct does not have are ignored: a newer version may have written them.

    Args:
        struct: the type.
        where: ``table.column``, for the message about a value that does not fit the struct:
            ``ValueError`` when its row is read.
    """

    cache_ok = True

    def __init__(self, struct: type[msgspec.Struct], *, where: str) -> None:
        super().__init__()
        self.struct = struct
        self.where = where

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: ANN401
        """As JSON; None stays SQL's null."""
        return None if value is None else storable(msgspec.to_builtins(value))

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ANN401
        """As a struct again."""
        if value is None:
            return None
        names = self.struct.__struct_encode_fields__
        known = {n: value[n] for n in names if n in value} if isinstance(value, dict) else value
        try:
            return msgspec.convert(known, self.struct)
        except msgspec.ValidationError as exc:
            raise ValueError(
                f"the database's {self.where} holds {value!r}, which cannot be read ({exc}); "
                "correct that row"
            ) from exc


JsonObject = Annotated[dict[str, Any], mapped_column(Json)]


class Record(AuditColumns, CommonTableAttributes, AdvancedDeclarativeBase):
    """Base of all tables: ``id``, ``created_at``, ``updated_at``."""

    __abstract__ = True
    registry = registry(
        metadata=MetaData(naming_convention=convention),
        type_annotation_map={datetime.datetime: DateTimeUTC(timezone=True)},
    )

    id: Mapped[str] = mapped_column(
        SafeString(32), primary_key=True, default=new_id, sort_order=-10
    )


def tenant_column() -> Mapped[str]:
    """The column that says whose a row is; the row is deleted with its tenant."""
    return mapped_column(
        SafeString(32), ForeignKey("tenant.id", ondelete="CASCADE"), index=True, sort_order=-9
    )
