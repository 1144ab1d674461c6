"""The vocabulary that all packages share: a conversation is an ordered list of turns."""

from enum import StrEnum
from typing import Literal, assert_never

import msgspec

Split = Literal["train", "validation", "test"]


class Role(StrEnum):
    """Who wrote a turn.

    ``note`` is an agent's internal note: kept on import, never trained on, never shown.
    """

    CUSTOMER = "customer"
    AGENT = "agent"
    BOT = "bot"
    NOTE = "note"
    SYSTEM = "system"


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message. ``weight`` 0 keeps an assistant turn out of the loss (OpenAI's field)."""

    role: Role
    text: str
    author: str | None = None
    sent_at: str | None = None
    weight: Literal[0, 1] = 1


class Conversation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One support exchange, oldest turn first.

    ``id`` is the source's own identifier, unique within a source file. ``split`` is set only where
    the operator pinned the file to one split; otherwise it is assigned when a dataset version is
    created. ``names`` are people whom the source names besides the turns' authors, each with the
    role of their side (``note`` where that is unknown). ``places`` are values of the source's address
    fields. Both are for redaction: an import passes them on and stores none.
    """

    id: str
    turns: tuple[Turn, ...]
    channel: str | None = None
    language: str | None = None
    labels: dict[str, str] = {}
    split: Split | None = None
    names: dict[str, Role] = {}
    places: tuple[str, ...] = ()


class ChatMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A turn as chat models know it: ``role`` is ``system``, ``user`` or ``assistant``."""

    role: Literal["system", "user", "assistant"]
    content: str
    weight: Literal[0, 1] = 1


def chat_messages(conversation: Conversation) -> list[ChatMessage]:
    """Map turns to alternating chat messages.

    Customers become ``user``, agents and bots ``assistant``. Notes and system turns are dropped:
    the chat template adds the tenant's own system prompt. Neighbouring turns of one role are
    joined by a newline; a joined message has weight 0 if one of its parts has. Turns before the
    first customer turn and after the last assistant turn are dropped. The result is empty when no
    customer turn is answered::

        turns = (Turn(Role.CUSTOMER, "Where is it?"), Turn(Role.AGENT, "On its way."))
        chat_messages(Conversation("c1", turns))
        # [ChatMessage("user", "Where is it?"), ChatMessage("assistant", "On its way.")]
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
                assert_never(turn.role)
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
