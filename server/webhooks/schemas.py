"""What the webhook endpoints take and give."""

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from server.db.models import DeliveryState
from server.schemas import Moment

EventType = Literal[
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
    "conversation.handoff.created",
]
EVENT_TYPES: tuple[EventType, ...] = (
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
    "conversation.handoff.created",
)
TEST_EVENT = "webhook.test"


class EventText(NamedTuple):
    """An event in words, and when it is sent."""

    word: str
    when: str


EVENT_TEXTS: dict[str, EventText] = {
    "fine_tuning.job.succeeded": EventText(
        "Run succeeded", "a job has ended well; its adapter need not be live"
    ),
    "fine_tuning.job.failed": EventText("Run failed", "a job has ended with an error"),
    "fine_tuning.job.cancelled": EventText("Run cancelled", "a job was stopped by request"),
    "conversation.handoff.created": EventText(
        "Person asked for",
        "a visitor of the widget asks for a person, nothing supports an answer and the tenant wants one then, or a rule hands a conversation over",
    ),
    TEST_EVENT: EventText(
        "Test", "asked for by a person, to try an endpoint: sent once, to that endpoint alone"
    ),
}
Url = Annotated[str, Meta(min_length=8, max_length=2048, description="https://...")]
Events = Annotated[tuple[EventType, ...], Meta(min_length=1, max_length=len(EVENT_TYPES))]


class WebhookRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new endpoint; without ``events`` it gets all of them."""

    url: Url
    events: Events = EVENT_TYPES
    enabled: bool = True


class WebhookPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to an endpoint; what is absent stays."""

    url: Url | msgspec.UnsetType = msgspec.UNSET
    events: Events | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET


class SecretRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to replace a secret: for how long the old one signs beside the new one."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=30 * 86_400)] = 86_400


class WebhookView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint without its secret; ``secret_hint`` is its end, to tell it from others."""

    id: str
    url: str
    events: list[str]
    enabled: bool
    secret_hint: str
    previous_secret_until: Moment | None
    created_at: Moment
    updated_at: Moment


class WebhookSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A new endpoint or a new secret; ``secret`` (``whsec_...``) is shown this once."""

    secret: str
    details: WebhookView


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """An event on its way to an endpoint.

    ``id`` is the header ``webhook-id`` of every attempt. ``due_at``: when the next attempt is made, null
    when there is none. ``error``: why the last attempt failed. ``response_status`` and
    ``response_text``: the HTTP status and the first characters of the last answer, null where there was
    none; no text is kept of receivers that may be at private addresses.
    """

    id: str
    state: DeliveryState
    attempts: int
    due_at: Moment | None
    delivered_at: Moment | None
    error: str | None
    response_status: int | None
    response_text: str | None
    event: dict[str, Any]
    created_at: Moment
