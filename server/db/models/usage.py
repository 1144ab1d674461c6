"""What was used, by day and by minute."""

import datetime

from sqlalchemy import (
    BigInteger,
    Date,
    Float,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import (
    DateTimeUTC,
    Record,
    SafeString,
    SafeText,
    tenant_column,
)


class UsageDay(Record):
    """What a tenant used in a UTC day, by key and model. ``key_id`` is empty where no key was used.

    ``refused``: requests that a limit turned away; ``requests`` and ``errors`` do not count them.
    """

    __tablename__ = "usage_day"
    __table_args__ = (UniqueConstraint("tenant_id", "day", "key_id", "model"),)

    tenant_id: Mapped[str] = tenant_column()
    key_id: Mapped[str] = mapped_column(SafeString(32), default="")
    model: Mapped[str] = mapped_column(SafeText)
    day: Mapped[datetime.date] = mapped_column(Date)
    requests: Mapped[int] = mapped_column(BigInteger, default=0)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    cached_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    completion_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    errors: Mapped[int] = mapped_column(BigInteger, default=0)
    refused: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    gpu_seconds: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")


class UsageMinute(Record):
    """What a key used in a UTC minute, for limits that all copies of the server share."""

    __tablename__ = "usage_minute"
    __table_args__ = (UniqueConstraint("tenant_id", "minute", "key_id"),)

    tenant_id: Mapped[str] = tenant_column()
    key_id: Mapped[str] = mapped_column(SafeString(32), default="")
    minute: Mapped[datetime.datetime] = mapped_column(DateTimeUTC(timezone=True), index=True)
    requests: Mapped[int] = mapped_column(BigInteger, default=0)
    tokens: Mapped[int] = mapped_column(BigInteger, default=0)
