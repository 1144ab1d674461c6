"""Every table. Rows of a tenant carry its ``tenant_id``; nothing is reached without it.

Ids are 32 hexadecimal characters that sort by creation time. Times are UTC. Work to be done is a
row in a state (``Import.state``, ``Job.state``); the worker polls for them.
"""

import datetime
import secrets
import time
from typing import Annotated, Any, Literal

from advanced_alchemy.base import AdvancedDeclarativeBase, CommonTableAttributes, convention
from advanced_alchemy.mixins import AuditColumns
from advanced_alchemy.types import DateTimeUTC
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Date,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, registry
from sqlalchemy.types import TypeEngine

ImportState = Literal["queued", "running", "done", "failed"]
JobState = Literal[
    "queued",
    "validating",
    "running",
    "evaluating",
    "awaiting_approval",
    "succeeded",
    "failed",
    "cancelled",
    "paused",
]
FINISHED_JOB_STATES: tuple[JobState, ...] = ("succeeded", "failed", "cancelled")
UploadState = Literal["pending", "completed", "cancelled", "expired"]
DeliveryState = Literal["pending", "delivered", "failed"]
AdapterState = Literal["candidate", "ready", "failed_gates", "unsafe", "deleted"]
PromotionKind = Literal["promote", "rollback"]
Decision = Literal["approved", "rejected"]

MAX_NUMBER = (1 << 31) - 1  # the largest that an Integer column holds


def new_id() -> str:
    """A version 7 UUID (RFC 9562) as 32 hexadecimal characters."""
    random = secrets.randbits(74)
    value = time.time_ns() // 1_000_000 << 80 | 0x7 << 76 | (random >> 62) << 64
    return f"{value | 0b10 << 62 | random & (1 << 62) - 1:032x}"


def now() -> datetime.datetime:
    """This moment, UTC."""
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


class Chars(TypeDecorator[str]):
    """Text of at most so many characters, stored and compared without NULs.

    Names come from requests: without this a NUL in one is an error of the driver, on PostgreSQL.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Leave out what PostgreSQL refuses, on both, so that both find the same."""
        return value.replace("\x00", "\ufffd") if value and "\x00" in value else value


class Prose(Chars):
    """The same, of any length."""

    impl = Text
    cache_ok = True


class Json(TypeDecorator[Any]):
    """JSON: ``jsonb`` on PostgreSQL, text on SQLite. Assign a new value; changes inside go unseen."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Use the native type where there is one."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(JSONB(none_as_null=True))
        return dialect.type_descriptor(JSON(none_as_null=True))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:  # noqa: ANN401
        """Leave out what PostgreSQL refuses, on both, so that both hold the same."""
        return storable(value)


JsonObject = Annotated[dict[str, Any], mapped_column(Json)]


class Record(AuditColumns, CommonTableAttributes, AdvancedDeclarativeBase):
    """Base of all tables: ``id``, ``created_at``, ``updated_at``."""

    __abstract__ = True
    registry = registry(
        metadata=MetaData(naming_convention=convention),
        type_annotation_map={datetime.datetime: DateTimeUTC(timezone=True)},
    )

    id: Mapped[str] = mapped_column(Chars(32), primary_key=True, default=new_id, sort_order=-10)


def _tenant() -> Mapped[str]:
    return mapped_column(
        Chars(32), ForeignKey("tenant.id", ondelete="CASCADE"), index=True, sort_order=-9
    )


class Tenant(Record):
    """A customer organisation.

    ``next_version`` is the next adapter's version; ``live_revision`` counts changes of
    ``live_adapter_id``, for compare-and-set. ``keep`` are words that redaction leaves alone: the
    company's own telephone number. ``keep_upload_days``: how long a transcript's file is kept after it
    was read; 0: not at all. ``limits`` is a ``server.settings.Limits``, null where the
    installation's apply.
    """

    __tablename__ = "tenant"

    slug: Mapped[str] = mapped_column(Chars(40), unique=True)
    name: Mapped[str] = mapped_column(Prose)
    system_prompt: Mapped[str] = mapped_column(Prose, default="")
    number_patterns: Mapped[dict[str, str]] = mapped_column(Json, default=dict)
    keep: Mapped[list[str]] = mapped_column(Json, default=list, server_default="[]")
    keep_upload_days: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    limits: Mapped[JsonObject | None]
    next_version: Mapped[int] = mapped_column(default=1)
    live_adapter_id: Mapped[str | None] = mapped_column(
        Chars(32), ForeignKey("adapter.id", ondelete="SET NULL", use_alter=True)
    )
    live_revision: Mapped[int] = mapped_column(default=0)


class ApiKey(Record):
    """A key, by its hash. Without a tenant it is the operator's.

    ``replaces_id`` is the key that this one was rotated from; ``limits`` come on top of the tenant's.
    """

    __tablename__ = "api_key"

    tenant_id: Mapped[str | None] = mapped_column(
        Chars(32), ForeignKey("tenant.id", ondelete="CASCADE"), index=True
    )
    label: Mapped[str] = mapped_column(Prose, default="")
    prefix: Mapped[str] = mapped_column(Chars(24))
    sha256: Mapped[str] = mapped_column(Chars(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(Json, default=list)
    replaces_id: Mapped[str | None] = mapped_column(Chars(32))
    limits: Mapped[JsonObject | None]
    expires_at: Mapped[datetime.datetime | None]
    revoked_at: Mapped[datetime.datetime | None]
    last_used_at: Mapped[datetime.datetime | None]


class SourceFile(Record):
    """An upload of transcripts, exactly as it arrived.

    Its bytes are in the blob store under ``sha256`` until ``removed_at``: they hold personal data, and
    go when they have been read, or ``Tenant.keep_upload_days`` later.
    """

    __tablename__ = "source_file"
    __table_args__ = (UniqueConstraint("tenant_id", "sha256"),)

    tenant_id: Mapped[str] = _tenant()
    filename: Mapped[str] = mapped_column(Prose)
    sha256: Mapped[str] = mapped_column(Chars(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    removed_at: Mapped[datetime.datetime | None]


class Import(Record):
    """Reading of a source file into conversations, and what came of it.

    ``started_at``: when a worker last took it up; whose turn it is depends on that.
    """

    __tablename__ = "import"

    tenant_id: Mapped[str] = _tenant()
    source_file_id: Mapped[str] = mapped_column(
        Chars(32), ForeignKey("source_file.id", ondelete="CASCADE"), index=True
    )
    importer: Mapped[str | None] = mapped_column(Chars(40))
    options: Mapped[JsonObject] = mapped_column(default=dict)
    state: Mapped[ImportState] = mapped_column(Chars(20), default="queued", index=True)
    report: Mapped[JsonObject | None]
    error: Mapped[JsonObject | None]
    started_at: Mapped[datetime.datetime | None]
    finished_at: Mapped[datetime.datetime | None]


class ConversationRow(Record):
    """A redacted conversation. ``digest`` is of what was said, so that the same is kept once.

    ``import_id`` is the import that brought it first; it belongs to that and to each import that has
    an ``ImportedAgain`` of it.
    """

    __tablename__ = "conversation"
    __table_args__ = (UniqueConstraint("tenant_id", "digest"),)

    tenant_id: Mapped[str] = _tenant()
    import_id: Mapped[str] = mapped_column(
        Chars(32), ForeignKey("import.id", ondelete="CASCADE"), index=True
    )
    external_id: Mapped[str] = mapped_column(Prose)
    digest: Mapped[str] = mapped_column(Chars(64))
    split: Mapped[str | None] = mapped_column(Chars(12))
    body: Mapped[JsonObject]


class ImportedAgain(Record):
    """A conversation that an import holds too, and that its tenant had before."""

    __tablename__ = "imported_again"
    __table_args__ = (UniqueConstraint("import_id", "conversation_id"),)

    tenant_id: Mapped[str] = _tenant()
    import_id: Mapped[str] = mapped_column(Chars(32), ForeignKey("import.id", ondelete="CASCADE"))
    conversation_id: Mapped[str] = mapped_column(
        Chars(32), ForeignKey("conversation.id", ondelete="CASCADE"), index=True
    )


class DatasetVersion(Record):
    """An immutable dataset; its files are in ``datasets/<sha256>``.

    ``import_ids``: whose conversations it was made of; null where it was made before that was noted.
    """

    __tablename__ = "dataset_version"
    __table_args__ = (UniqueConstraint("tenant_id", "sha256"),)

    tenant_id: Mapped[str] = _tenant()
    sha256: Mapped[str] = mapped_column(Chars(64))
    counts: Mapped[JsonObject] = mapped_column(default=dict)
    manifest: Mapped[JsonObject] = mapped_column(default=dict)
    import_ids: Mapped[list[str] | None] = mapped_column(Json)


class Job(Record):
    """One fine-tuning run.

    It learns from all that its tenant has imported, or, with ``training_file_id``, from that file
    alone. Files are named, not referenced: a job keeps the names of files that were deleted since.
    It begins with the weights of ``start_adapter_id``, where there is one. ``method`` and
    ``client_metadata`` are kept as the client gave them. ``attempts`` counts how often it was put
    back into the queue. ``gpu_seconds``: time that the trainer had its device. ``outcome``: a
    ``server.jobs.schemas.Outcome``, of a job that succeeded; null of one from before there were any,
    whose adapter was promoted.
    """

    __tablename__ = "job"
    __table_args__ = (Index(None, "tenant_id", "created_at"), Index(None, "state", "created_at"))

    tenant_id: Mapped[str] = mapped_column(
        Chars(32), ForeignKey("tenant.id", ondelete="CASCADE"), sort_order=-9
    )
    state: Mapped[JobState] = mapped_column(Chars(20), default="queued")
    stage: Mapped[str] = mapped_column(Chars(40), default="")
    base: Mapped[str] = mapped_column(Prose)
    recipe_name: Mapped[str] = mapped_column(Prose)
    recipe: Mapped[JsonObject] = mapped_column(default=dict)
    seed: Mapped[int] = mapped_column(BigInteger, default=17)
    objectives: Mapped[JsonObject] = mapped_column(default=dict)
    suffix: Mapped[str | None] = mapped_column(Chars(64))
    require_approval: Mapped[bool] = mapped_column(Boolean, default=False)
    decision: Mapped[Decision | None] = mapped_column(Chars(12))
    cancel_requested: Mapped[bool] = mapped_column(Boolean, default=False)
    pause_requested: Mapped[bool] = mapped_column(Boolean, default=False, server_default="0")
    training_file_id: Mapped[str | None] = mapped_column(Chars(32))
    validation_file_id: Mapped[str | None] = mapped_column(Chars(32))
    result_file_id: Mapped[str | None] = mapped_column(Chars(32))
    start_adapter_id: Mapped[str | None] = mapped_column(Chars(32))
    method: Mapped[JsonObject | None]
    client_metadata: Mapped[JsonObject | None]
    gpu_seconds: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")
    dataset_id: Mapped[str | None] = mapped_column(
        Chars(32), ForeignKey("dataset_version.id", ondelete="SET NULL"), index=True
    )
    adapter_id: Mapped[str | None] = mapped_column(
        Chars(32), ForeignKey("adapter.id", ondelete="SET NULL", use_alter=True)
    )
    progress: Mapped[JsonObject] = mapped_column(default=dict)
    estimate: Mapped[JsonObject | None]
    error: Mapped[JsonObject | None]
    outcome: Mapped[JsonObject | None]
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    started_at: Mapped[datetime.datetime | None]
    finished_at: Mapped[datetime.datetime | None]


class JobEvent(Record):
    """One thing that happened in a job; ``seq`` counts from 1 within the job."""

    __tablename__ = "job_event"
    __table_args__ = (UniqueConstraint("job_id", "seq"),)

    tenant_id: Mapped[str] = _tenant()
    job_id: Mapped[str] = mapped_column(Chars(32), ForeignKey("job.id", ondelete="CASCADE"))
    seq: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(Chars(40))
    body: Mapped[JsonObject] = mapped_column(default=dict)


class Adapter(Record):
    """An adapter version; its files are in ``adapters/<engine_name>``, which never changes.

    ``ready`` passed its gates; of a ``candidate`` they cannot tell, and a person may promote it;
    ``failed_gates`` is worse than was asked for, and only the operator promotes it. All of them answer
    to their names. ``unsafe`` is not what was trained (trainer and engine differ): it can only be
    looked at, by version. A deleted one keeps its row, so that its version is not given again.
    ``system_prompt`` is what it was trained with, and is served with, whatever the tenant's is by now.
    """

    __tablename__ = "adapter"
    __table_args__ = (UniqueConstraint("tenant_id", "version"),)

    tenant_id: Mapped[str] = _tenant()
    version: Mapped[int] = mapped_column(Integer)
    engine_name: Mapped[str] = mapped_column(Chars(60), unique=True)
    base_name: Mapped[str] = mapped_column(Prose)
    base_sha256: Mapped[str] = mapped_column(Chars(64))
    system_prompt: Mapped[str] = mapped_column(Prose, default="")
    job_id: Mapped[str | None] = mapped_column(
        Chars(32), ForeignKey("job.id", ondelete="SET NULL"), unique=True
    )
    dataset_id: Mapped[str | None] = mapped_column(
        Chars(32), ForeignKey("dataset_version.id", ondelete="SET NULL"), index=True
    )
    state: Mapped[AdapterState] = mapped_column(Chars(20), default="candidate")
    scores: Mapped[JsonObject] = mapped_column(default=dict)
    report: Mapped[JsonObject | None]
    suffix: Mapped[str] = mapped_column(Chars(64), default="")


class Promotion(Record):
    """One change of a tenant's live adapter, in the order of ``revision``; None is the base."""

    __tablename__ = "promotion"
    __table_args__ = (UniqueConstraint("tenant_id", "revision"),)

    tenant_id: Mapped[str] = _tenant()
    revision: Mapped[int] = mapped_column(Integer)
    from_adapter_id: Mapped[str | None] = mapped_column(
        Chars(32), ForeignKey("adapter.id", ondelete="SET NULL")
    )
    to_adapter_id: Mapped[str | None] = mapped_column(
        Chars(32), ForeignKey("adapter.id", ondelete="SET NULL")
    )
    kind: Mapped[PromotionKind] = mapped_column(Chars(12))
    actor: Mapped[str] = mapped_column(Prose)


class UsageDay(Record):
    """What a tenant used in a UTC day, by key and model. ``key_id`` is empty where no key was used."""

    __tablename__ = "usage_day"
    __table_args__ = (UniqueConstraint("tenant_id", "day", "key_id", "model"),)

    tenant_id: Mapped[str] = _tenant()
    key_id: Mapped[str] = mapped_column(Chars(32), default="")
    model: Mapped[str] = mapped_column(Prose)
    day: Mapped[datetime.date] = mapped_column(Date)
    requests: Mapped[int] = mapped_column(BigInteger, default=0)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    cached_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    completion_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    errors: Mapped[int] = mapped_column(BigInteger, default=0)
    gpu_seconds: Mapped[float] = mapped_column(Float, default=0.0, server_default="0")


class UsageMinute(Record):
    """What a key used in a UTC minute, for limits that all copies of the server share."""

    __tablename__ = "usage_minute"
    __table_args__ = (UniqueConstraint("tenant_id", "minute", "key_id"),)

    tenant_id: Mapped[str] = _tenant()
    key_id: Mapped[str] = mapped_column(Chars(32), default="")
    minute: Mapped[datetime.datetime] = mapped_column(DateTimeUTC(timezone=True), index=True)
    requests: Mapped[int] = mapped_column(BigInteger, default=0)
    tokens: Mapped[int] = mapped_column(BigInteger, default=0)


class File(Record):
    """A file of ``/v1/files``; its bytes are in the blob store under ``sha256``."""

    __tablename__ = "file"

    tenant_id: Mapped[str] = _tenant()
    sha256: Mapped[str] = mapped_column(Chars(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    filename: Mapped[str] = mapped_column(Prose)
    purpose: Mapped[str] = mapped_column(Chars(40))
    expires_at: Mapped[datetime.datetime | None]


class Upload(Record):
    """A file that arrives in parts (``/v1/uploads``). ``size_bytes`` is what was announced.

    ``parts_sha256``, of a completed one: a hash of the ids of its parts, in their order.
    """

    __tablename__ = "upload"

    tenant_id: Mapped[str] = _tenant()
    filename: Mapped[str] = mapped_column(Prose)
    purpose: Mapped[str] = mapped_column(Chars(40))
    mime_type: Mapped[str] = mapped_column(Prose)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[UploadState] = mapped_column(Chars(12), default="pending")
    file_seconds: Mapped[int | None]  # how long the finished file is kept; None: for good
    file_id: Mapped[str | None] = mapped_column(Chars(32))
    parts_sha256: Mapped[str | None] = mapped_column(Chars(64))
    expires_at: Mapped[datetime.datetime]


class UploadPart(Record):
    """One part of an upload; its bytes are in the blob store."""

    __tablename__ = "upload_part"

    tenant_id: Mapped[str] = _tenant()
    upload_id: Mapped[str] = mapped_column(
        Chars(32), ForeignKey("upload.id", ondelete="CASCADE"), index=True
    )
    sha256: Mapped[str] = mapped_column(Chars(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class IdempotentRequest(Record):
    """A request that must have its effect once, and its answer once it is known.

    ``name``: the client's idempotency key, or ours for one that sends none.
    """

    __tablename__ = "idempotent_request"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    tenant_id: Mapped[str] = _tenant()
    name: Mapped[str] = mapped_column(Chars(300))
    request_sha256: Mapped[str] = mapped_column(Chars(64))
    status: Mapped[int | None]
    answer: Mapped[JsonObject | None]
    expires_at: Mapped[datetime.datetime] = mapped_column(DateTimeUTC(timezone=True), index=True)


class StoredCompletion(Record):
    """A chat completion that its client asked to keep: what was said, and the answer."""

    __tablename__ = "stored_completion"

    tenant_id: Mapped[str] = _tenant()
    model: Mapped[str] = mapped_column(Prose)
    messages: Mapped[list[Any]] = mapped_column(Json)
    answer: Mapped[JsonObject]
    client_metadata: Mapped[JsonObject | None]


class StoredResponse(Record):
    """A response (``/v1/responses``) that can be gone on from."""

    __tablename__ = "stored_response"

    tenant_id: Mapped[str] = _tenant()
    previous_id: Mapped[str | None] = mapped_column(Chars(32))
    items: Mapped[list[Any]] = mapped_column(Json)
    answer: Mapped[JsonObject]
    expires_at: Mapped[datetime.datetime] = mapped_column(DateTimeUTC(timezone=True), index=True)


class WebhookEndpoint(Record):
    """Where a tenant wants to hear of events. The secret signs, so it cannot be kept as a hash.

    Secrets are encrypted (``server/webhooks/vault.py``); ``secret_hint`` is the end of the present one.

    ``previous_secret`` signs too, until ``previous_secret_until``: a receiver changes in its time.
    """

    __tablename__ = "webhook_endpoint"

    tenant_id: Mapped[str] = _tenant()
    url: Mapped[str] = mapped_column(Prose)
    secret: Mapped[str] = mapped_column(Prose)
    secret_hint: Mapped[str | None] = mapped_column(Chars(4))
    previous_secret: Mapped[str | None] = mapped_column(Prose)
    previous_secret_until: Mapped[datetime.datetime | None]
    events: Mapped[list[str]] = mapped_column(Json, default=list)
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)


class WebhookDelivery(Record):
    """One event for one endpoint, written with what it tells of; the server sends what is due."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (Index(None, "state", "due_at"),)

    tenant_id: Mapped[str] = _tenant()
    endpoint_id: Mapped[str] = mapped_column(
        Chars(32), ForeignKey("webhook_endpoint.id", ondelete="CASCADE"), index=True
    )
    event: Mapped[JsonObject]
    state: Mapped[DeliveryState] = mapped_column(Chars(12), default="pending")
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    due_at: Mapped[datetime.datetime]
    delivered_at: Mapped[datetime.datetime | None]
    error: Mapped[str | None] = mapped_column(Prose)
