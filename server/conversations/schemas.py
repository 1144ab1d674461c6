"""What widgets, their visitors and the console take and give."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from server.conversations.colours import Theme
from server.db.models import HandoffState, LiveState, MessageState, SpeakerRole, Vote
from server.retrieval.schemas import Source
from server.schemas import Moment, WidgetBudgets

Language = Literal["en", "de", "es", "fr", "ar", "ja"]
LANGUAGES: tuple[Language, ...] = ("en", "de", "es", "fr", "ar", "ja")
MAX_TEXT = 4000
DEFAULT_ACCENT = "#9a3d12"
_Line = Annotated[str, Meta(max_length=200)]
_Paragraph = Annotated[str, Meta(max_length=1000)]
_Suggestions = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=120)], ...], Meta(max_length=6)
]
_Accent = Annotated[str, Meta(pattern="^#[0-9a-fA-F]{6}$", description="as #9a3d12")]
KeepDays = Annotated[
    int, Meta(ge=1, le=3650, description="days that a conversation is kept after its last message")
]


class WidgetPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to a widget; what is absent stays. Origins are added and removed one by one.

    ``language``: empty is the page's own. ``offer_when_annoyed``: where a head takes a message for
    annoyed, offer people to take the conversation over.
    """

    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    display_name: _Line | msgspec.UnsetType = msgspec.UNSET
    greeting: _Paragraph | msgspec.UnsetType = msgspec.UNSET
    suggestions: _Suggestions | msgspec.UnsetType = msgspec.UNSET
    teaser: _Line | msgspec.UnsetType = msgspec.UNSET
    accent: _Accent | msgspec.UnsetType = msgspec.UNSET
    language: Language | Literal[""] | msgspec.UnsetType = msgspec.UNSET
    allow_localhost: bool | msgspec.UnsetType = msgspec.UNSET
    handoff_hours: _Line | msgspec.UnsetType = msgspec.UNSET
    handoff_expected: _Line | msgspec.UnsetType = msgspec.UNSET
    offer_when_annoyed: bool | msgspec.UnsetType = msgspec.UNSET
    keep_days: KeepDays | msgspec.UnsetType = msgspec.UNSET
    budgets: WidgetBudgets | msgspec.UnsetType | None = msgspec.UNSET


class WidgetView(msgspec.Struct, frozen=True, kw_only=True):
    """A widget as its tenant sees it, without secrets.

    ``theme`` has the colour that was asked for beside what is shown. ``identity_secret_hint`` is the
    end of the secret that signs who visitors are, null where there is none.
    """

    public_key: str
    enabled: bool
    name: str
    greeting: str
    suggestions: list[str]
    teaser: str
    theme: Theme
    language: str
    origins: list[str]
    allow_localhost: bool
    handoff_hours: str
    handoff_expected: str
    offer_when_annoyed: bool
    keep_days: int
    budgets: WidgetBudgets
    identity_secret_hint: str | None
    previous_identity_secret_until: Moment | None


class BudgetsUse(msgspec.Struct, frozen=True, kw_only=True):
    """What was used of a widget's budgets in this UTC day.

    Of a visitor or an address it is the most that one of them used; the tokens are the whole widget's.
    """

    visitor_messages_per_minute: int = 0
    visitor_messages_per_day: int = 0
    address_messages_per_minute: int = 0
    address_sessions_per_minute: int = 0
    address_handoffs_per_day: int = 0
    tokens_per_day: int = 0


class RefusedOriginView(msgspec.Struct, frozen=True, kw_only=True):
    """A site that asked for the widget in the last day and is not allowed to show it.

    ``count`` is at most one a minute from each server.
    """

    origin: str
    count: int
    last_at: Moment


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who a visitor says they are, unsigned: a note for people."""

    name: _Line | None = None
    email: Annotated[str, Meta(max_length=254)] | None = None


class Opinion(msgspec.Struct, frozen=True, kw_only=True):
    """What a visitor thinks of an answer."""

    vote: Vote | None
    reasons: list[str]


class MessageView(msgspec.Struct, frozen=True, kw_only=True):
    """A message as its visitor sees it; ``opinion`` is null where none was given.

    ``client_id`` is the sender's own id of a visitor's message. ``sources``: articles that an answer was
    given; absent where there are none, and where the tenant does not show them.
    """

    id: str
    role: SpeakerRole
    text: str
    created_at: Moment
    state: MessageState
    opinion: Opinion | None
    client_id: str | None
    sources: tuple[Source, ...] | msgspec.UnsetType = msgspec.UNSET


class HandoffView(msgspec.Struct, frozen=True, kw_only=True):
    """A hand-off as its visitor sees it: its number, and when somebody answers (in words)."""

    number: int
    created_at: Moment
    email: str
    expected: str
    state: HandoffState


class ConversationView(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as its visitor sees it, with its last messages."""

    id: str
    state: LiveState
    messages: list[MessageView]
    handoff: HandoffView | None


class SessionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A wish for a session: the panel document's nonce, and who comes.

    ``visitor`` is the token that an earlier session gave. ``identity`` is signed by the tenant's server.
    """

    nonce: Annotated[str, Meta(max_length=2000)]
    visitor: Annotated[str, Meta(max_length=200)] | None = None
    identity: Annotated[str, Meta(max_length=8192)] | None = None
    said: Said | None = None


class RenewRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A wish for a new session instead of the one that is sent along."""

    visitor: Annotated[str, Meta(max_length=200)] | None = None
    identity: Annotated[str, Meta(max_length=8192)] | None = None
    said: Said | None = None


class SessionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A session, good for ``expires_in`` seconds, and what was said before.

    ``visitor`` is the token to come back with, null for one who is identified (``verified``).
    ``started_anew``: the token that was given is not good any more.
    """

    session: str
    expires_in: int
    visitor: str | None
    verified: bool
    name: str | None
    started_anew: bool
    conversation: ConversationView | None


class CurrentConversation(msgspec.Struct, frozen=True, kw_only=True):
    """The last conversation of a visitor, null before the first message."""

    conversation: ConversationView | None


class HandoffPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What a person will be given: the first question, the last answer, how many messages."""

    topic: str
    tried: str
    messages: int
    expected: str
    hours: str


class OpinionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A visitor's opinion of an answer; a vote of null takes it back."""

    vote: Vote | None
    reasons: Annotated[
        tuple[Literal["wrong", "unclear", "incomplete", "other"], ...], Meta(max_length=4)
    ] = ()
    text: Annotated[str, Meta(max_length=1000)] | None = None


class MessageRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A message. ``client_id`` is made by the sender: what is sent twice is stored once."""

    text: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    client_id: Annotated[str, Meta(pattern="^[0-9a-zA-Z-]{8,36}$")]


class HandoffRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A wish to talk to a person. ``copy``: the visitor wants the conversation by e-mail too."""

    email: Annotated[str, Meta(max_length=254)]
    note: Annotated[str, Meta(max_length=2000)] = ""
    copy: bool = False
