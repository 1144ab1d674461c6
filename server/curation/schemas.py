"""What the curation of a tenant's conversations takes and gives."""

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from server.db.models.curation import DoubtDecision
from server.schemas import Moment
from training.data.curation.flags import Flag

Rule = Literal["keep", "leave_out", "ask"]
RULES: tuple[Rule, ...] = get_args(Rule)
MAX_DOUBT_CHARACTERS = 300


class Place(msgspec.Struct, frozen=True):
    """Where something stands: ``before`` and ``after`` are the words around it."""

    conversation_id: str
    turn: int
    before: str
    after: str


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """A text that may be personal data: ``rule`` says why it was found, ``count`` how often."""

    rule: str
    entity_type: str
    text: str
    count: int
    places: list[Place]


class Flagged(msgspec.Struct, frozen=True):
    """A conversation's flag; ``turn`` is the message that shows it, where one does."""

    conversation_id: str
    turn: int | None
    why: str


class StatementView(msgspec.Struct, frozen=True):
    """What ``count`` replies say; ``reply`` is the newest of them."""

    facts: list[str]
    count: int
    conversation_id: str
    reply: str
    sent_at: str


class ContradictionView(msgspec.Struct, frozen=True):
    """Replies to one question that differ in facts of one ``kind``; what was said last comes first."""

    question: str
    kind: str
    statements: list[StatementView]


class ConversationLabels(msgspec.Struct, frozen=True, kw_only=True):
    """What a scan says of one conversation.

    ``language``: of what the customer writes; ``languages``: of each message. ISO 639-1, or ``und``
    where too little is written. ``topic``: its number among the scan's topics, from 1; None without one.
    """

    language: str
    languages: list[str]
    topic: int | None = None


class ScanTopic(msgspec.Struct, frozen=True, kw_only=True):
    """What customers ask first in so many ``conversations``: words that mark it, and a typical question."""

    words: list[str]
    example: str
    conversations: int


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found in a tenant's conversations.

    ``languages``: conversations by ISO 639-1 code. ``groups``: ids of conversations in which customers
    ask nearly the same; the largest groups. ``questions``: different ones whose replies state facts, which
    contradictions are looked for in; ``questions_by_meaning`` of them, the newest, were compared by
    meaning too, the others by wording alone. ``topics`` of the newest conversations, the largest first;
    none where they are few, or the encoder did not answer.
    """

    conversations: int
    doubts: list[Doubt]
    flags: dict[Flag, list[Flagged]]
    languages: dict[str, int]
    groups: list[list[str]]
    contradictions: list[ContradictionView]
    questions: int = 0
    questions_by_meaning: int = 0
    topics: list[ScanTopic] = []


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes of conversations with each flag in the next dataset version.

    ``ask``: left out until a person keeps the conversation.
    """

    no_reply: Rule = "keep"
    one_sided: Rule = "keep"
    cut_off: Rule = "keep"
    bot_only: Rule = "keep"
    auto_reply: Rule = "keep"
    secret: Rule = "leave_out"  # noqa: S105 - a rule
    toxic: Rule = "ask"


class DecisionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person decides about a doubtful text; it holds for all the tenant's conversations.

    ``approve``: it is replaced. ``reject``: it stays. ``edit``: only ``masked``, a part of it, is
    replaced. An earlier decision about the same text is replaced.
    """

    rule: Annotated[str, Meta(min_length=1, max_length=40)]
    text: Annotated[str, Meta(min_length=1, max_length=MAX_DOUBT_CHARACTERS)]
    decision: DoubtDecision
    masked: Annotated[str, Meta(max_length=MAX_DOUBT_CHARACTERS)] = ""
    entity_type: Annotated[str, Meta(pattern="^[A-Z][A-Z0-9_]{1,19}$")] = "NAME"


class DecisionView(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that is remembered."""

    rule: str
    text: str
    entity_type: str
    decision: DoubtDecision
    masked: str
    actor: str
    updated_at: Moment


class ChoiceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether one conversation is learnt from, whatever the rules say."""

    keep: bool


class CurationView(msgspec.Struct, frozen=True, kw_only=True):
    """Where curation stands: the rules, what is still doubtful, and what was found.

    ``scan`` is null where nobody has looked through the conversations yet; ``conversations`` is how
    many there are now. ``doubts`` of the scan are those that nobody has decided.
    """

    rules: Rules
    conversations: int
    scanned_at: Moment | None
    scan: Scan | None
