"""The vocabulary that every part shares: a conversation is an ordered list of turns."""

from enum import StrEnum
from typing import Literal, assert_never

import msgspec

Split = Literal["train", "validation", "test"]


class Role(StrEnum):
    """Who wrote a turn.

    ``note`` is an agent's internal remark: kept on import, never trained on, never shown.
    """

    CUSTOMER = "customer"
    AGENT = "agent"
    BOT = "bot"
    NOTE = "note"
    SYSTEM = "system"


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message. ``weight`` 0 keeps an assistant turn out of the loss (OpenAI's field)."""

    role: Role = msgspec.field(name="speaker")
    text: str
    author: str | None = None
    sent_at: str | None = None
    weight: Literal[0, 1] = 1


class Conversation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One support exchange, oldest turn first.

    ``id`` is the source's own identifier, unique within a source file. ``split`` is set only
    where the operator pinned the file to one split; otherwise freezing a dataset decides.
    ``names`` are people whom the source names beside the authors of the turns, and whose side they
    are on (customer, agent, or a note where that is unknown); for redaction alone: an import hands
    them on and keeps none.
    """

    id: str
    turns: tuple[Turn, ...]
    channel: str | None = None
    language: str | None = None
    labels: dict[str, str] = {}
    split: Split | None = None
    names: dict[str, Role] = {}


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A turn as chat models know it: ``role`` is ``system``, ``user`` or ``assistant``."""

    role: Literal["system", "user", "assistant"]
    content: str
    weight: Literal[0, 1] = 1


def chat_messages(conversation: Conversation) -> list[ChatMessage]:
    """Map turns to alternating chat messages.

    Customers become ``user``, agents and bots ``assistant``; notes and system turns are left
    out (the tenant's system prompt is added by whoever renders). Neighbouring turns of one
    role are joined by a newline; a joined message has weight 0 if any of its parts has. Turns
    before the first customer turn and after the last assistant turn are dropped. The result is
    empty when no customer turn is answered.
    """
    messages: list[ChatMessage] = []
    for turn in conversation.turns:
        match turn.role:
            case Role.CUSTOMER:
                role: Literal["user", "assistant"] = "user"
            case Role.AGENT | Role.BOT:
                role = "assistant"
            case Role.NOTE | Role.SYSTEM:
                continue
            case _:
                assert_never(turn.speaker)
        if messages and messages[-1].role == role:
            last = messages[-1]
            weight = min(last.weight, turn.weight)
            joined = f"{last.content}\n{turn.text}"
            messages[-1] = ChatMessage(role=role, content=joined, weight=weight)
        elif messages or role == "user":
            messages.append(ChatMessage(role=role, content=turn.text, weight=turn.weight))
    while messages and messages[-1].role != "assistant":
        messages.pop()
    return messages
