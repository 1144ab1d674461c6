"""Messages in the forms in which visitors, the model and a text file have them."""

from collections.abc import Iterable
from typing import Literal

import msgspec

from server.chat.schemas import ChatMessage
from server.conversations.schemas import MessageView, Opinion
from server.db.models import LiveMessage
from server.retrieval.schemas import Source

_JOINED = "\n\n"


def of_message(row: LiveMessage, *, sources: tuple[Source, ...] = ()) -> MessageView:
    """A message as its visitor sees it, with the articles to show below it."""
    opinion = Opinion(vote=row.vote, reasons=row.vote_reasons) if row.vote else None
    return MessageView(
        id=row.id,
        role=row.role,
        text=row.text,
        created_at=row.created_at,
        state=row.state,
        opinion=opinion,
        client_id=row.client_id,
        sources=sources or msgspec.UNSET,
    )


def as_turns(rows: Iterable[LiveMessage]) -> tuple[ChatMessage, ...]:
    """Messages for the model: it begins with the visitor, and speakers take turns.

    Some chat templates refuse anything else. A person's words count as the assistant's. Answers that
    failed are left out, those that were stopped are not.
    """
    turns: list[ChatMessage] = []
    for row in rows:
        if not row.text or row.state == "failed":
            continue
        role: Literal["user", "assistant"] = "user" if row.role == "visitor" else "assistant"
        if turns and turns[-1].role == role:
            turns[-1] = ChatMessage(role=role, content=turns[-1].content + _JOINED + row.text)
        elif turns or role == "user":
            turns.append(ChatMessage(role=role, content=row.text))
    return tuple(turns)


def as_text(rows: Iterable[LiveMessage], *, name: str) -> str:
    """A conversation to keep: who spoke when, in UTC, and what."""
    speakers = {"visitor": "You", "assistant": f"{name} (assistant)", "person": name}
    parts = []
    for row in rows:
        marks = {"stopped": " (stopped)", "failed": " (failed)", "writing": " (being written)"}
        when = f"{row.created_at:%Y-%m-%d %H:%M} UTC"
        parts.append(f"{speakers[row.role]}, {when}{marks.get(row.state, '')}:\n{row.text}\n")
    return "\n".join(parts)
