"""Parts of tables: ids, times, and column types that both databases store alike."""

import datetime
from typing import Annotated, Any, ClassVar

import msgspec
import uuid_utils
from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    ForeignKey,
    MetaData,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
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


class DateTimeUTC(TypeDecorator[datetime.datetime]):
    """A time, stored in UTC: SQLite keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self, value: datetime.datetime | None, dialect: Dialect
    ) -> datetime.datetime | None:
        """Refuse a time without a zone with ``TypeError``: whose it is cannot be known."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError(f"{value} has no time zone")
        return value.astimezone(datetime.UTC)

    def process_result_value(
        self, value: datetime.datetime | None, dialect: Dialect
    ) -> datetime.datetime | None:
        """With its zone again."""
        return value.replace(tzinfo=datetime.UTC) if value and value.tzinfo is None else value


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


class Record(DeclarativeBase):
    """Base of all tables: ``id``, ``created_at``, ``updated_at``."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {datetime.datetime: DateTimeUTC()}

    id: Mapped[str] = mapped_column(
        SafeString(32), primary_key=True, default=new_id, sort_order=-10
    )
    created_at: Mapped[datetime.datetime] = mapped_column(default=now, sort_order=10)
    updated_at: Mapped[datetime.datetime] = mapped_column(default=now, onupdate=now, sort_order=11)


def tenant_column() -> Mapped[str]:
    """The column that says whose a row is; the row is deleted with its tenant."""
    return mapped_column(
        SafeString(32), ForeignKey("tenant.id", ondelete="CASCADE"), index=True, sort_order=-9
    )
