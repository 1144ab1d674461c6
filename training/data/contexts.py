"""Where a reply is due: a true history that ends in a customer's turn."""

import msgspec

from connectors.conversation import ChatMessage
from training.data.dataset import Example


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """A true history that ends in a customer's turn, and the agent's reply to it."""

    conversation: str
    turn: int
    history: tuple[ChatMessage, ...]
    reference: str

    @property
    def question(self) -> str:
        """What the customer said last."""
        return self.history[-1].content

    @property
    def before(self) -> str:
        """The assistant's turn before that; empty at the start."""
        return self.history[-2].content if len(self.history) > 1 else ""

    @property
    def said(self) -> tuple[str, ...]:
        """All texts of the history."""
        return tuple(message.content for message in self.history)


def contexts_of(conversation: Example) -> list[Context]:
    """Every reply of a conversation that counts (weight 1), with the history before it."""
    messages = tuple(conversation.messages)
    return [
        Context(
            conversation=conversation.id, turn=turn, history=messages[:turn], reference=m.content
        )
        for turn, m in enumerate(messages)
        if turn and m.role == "assistant" and m.weight
    ]
