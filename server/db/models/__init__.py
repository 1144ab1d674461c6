"""Every table. A tenant's rows carry its ``tenant_id``; ``server/db/scope.py`` queries them.

Ids are 32 hexadecimal characters that sort by creation time. Times are UTC. Work to do is a row
in a state (``Import.state``, ``Job.state``); the worker polls for them.
"""

from server.db.models.accounts import (
    Membership,
    Person,
    Role,
    SignInLink,
    SignInSession,
    SignInTry,
)
from server.db.models.adapters import (
    Adapter,
    AdapterState,
    Canary,
    CanaryCount,
    Promotion,
    PromotionKind,
)
from server.db.models.audit import ActorKind, AuditEntry
from server.db.models.base import (
    MAX_NUMBER,
    DateTimeUTC,
    Json,
    JsonObject,
    Record,
    SafeString,
    SafeText,
    new_id,
    now,
    storable,
)
from server.db.models.conversations import (
    CONTEXT_MESSAGES,
    Handoff,
    HandoffState,
    LiveConversation,
    LiveMessage,
    LiveState,
    MessageState,
    RefusedOrigin,
    SpeakerRole,
    UsedNonce,
    Visitor,
    Vote,
    Widget,
    WidgetUse,
)
from server.db.models.curation import (
    CurationChoice,
    CurationScan,
    DoubtDecision,
    RedactionDecision,
)
from server.db.models.datasets import DatasetVersion
from server.db.models.files import File, Upload, UploadPart, UploadState
from server.db.models.heads import HandoffRule, Head, HeadState, MessageLabel
from server.db.models.idempotency import IdempotentRequest
from server.db.models.jobs import FINISHED_JOB_STATES, Decision, Job, JobEvent, JobState
from server.db.models.knowledge import (
    Article,
    ArticleChunk,
    ArticleState,
    ArticleVersion,
    KnowledgeUpload,
    KnowledgeUploadState,
)
from server.db.models.receipts import Receipt
from server.db.models.stored import StoredCompletion, StoredResponse
from server.db.models.tenants import ApiKey, Tenant, WhenUnsupported
from server.db.models.transcripts import (
    ConversationRow,
    Import,
    ImportedAgain,
    ImportState,
    SourceFile,
)
from server.db.models.usage import UsageDay, UsageMinute
from server.db.models.votes import BlindVote, VoteChoice, VotedAgainst
from server.db.models.webhooks import DeliveryState, WebhookDelivery, WebhookEndpoint
from server.db.models.workers import WorkerProcess

# tables whose rows are no tenant's; see ``of_installation`` in ``server/db/scope.py``
INSTALLATION_WIDE: tuple[type[Record], ...] = (
    Person,
    SignInSession,
    SignInLink,
    SignInTry,
    WorkerProcess,
)

__all__ = [
    "CONTEXT_MESSAGES",
    "FINISHED_JOB_STATES",
    "INSTALLATION_WIDE",
    "MAX_NUMBER",
    "ActorKind",
    "Adapter",
    "AdapterState",
    "ApiKey",
    "Article",
    "ArticleChunk",
    "ArticleState",
    "ArticleVersion",
    "AuditEntry",
    "BlindVote",
    "Canary",
    "CanaryCount",
    "ConversationRow",
    "CurationChoice",
    "CurationScan",
    "DatasetVersion",
    "DateTimeUTC",
    "Decision",
    "DeliveryState",
    "DoubtDecision",
    "File",
    "Handoff",
    "HandoffRule",
    "HandoffState",
    "Head",
    "HeadState",
    "IdempotentRequest",
    "Import",
    "ImportState",
    "ImportedAgain",
    "Job",
    "JobEvent",
    "JobState",
    "Json",
    "JsonObject",
    "KnowledgeUpload",
    "KnowledgeUploadState",
    "LiveConversation",
    "LiveMessage",
    "LiveState",
    "Membership",
    "MessageLabel",
    "MessageState",
    "Person",
    "Promotion",
    "PromotionKind",
    "Receipt",
    "Record",
    "RedactionDecision",
    "RefusedOrigin",
    "Role",
    "SafeString",
    "SafeText",
    "SignInLink",
    "SignInSession",
    "SignInTry",
    "SourceFile",
    "SpeakerRole",
    "StoredCompletion",
    "StoredResponse",
    "Tenant",
    "Upload",
    "UploadPart",
    "UploadState",
    "UsageDay",
    "UsageMinute",
    "UsedNonce",
    "Visitor",
    "Vote",
    "VoteChoice",
    "VotedAgainst",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WhenUnsupported",
    "Widget",
    "WidgetUse",
    "WorkerProcess",
    "new_id",
    "now",
    "storable",
]
