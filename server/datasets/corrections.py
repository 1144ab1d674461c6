"""Better answers that people have written to visitors' questions, as conversations to be learnt from.

They are read whenever a dataset version is made, and redacted like an import. A conversation that is
removed (``server/conversations/retention.py``) takes its better answers along; the versions that were
made before keep them.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from connectors.conversation import Conversation, Role, Turn
from server.db.models import CONTEXT_MESSAGES, LiveConversation, LiveMessage, Visitor
from server.db.scope import of_tenant

MAX_CORRECTED = 5_000
"""Conversations of a dataset version that have a better answer: the newest."""


async def count(session: AsyncSession, tenant_id: str) -> int:
    """How many answers of a tenant have a better one."""
    query = of_tenant(tenant_id).select(func.count(LiveMessage.id))
    return await session.scalar(query.where(LiveMessage.correction.is_not(None))) or 0


async def read(session: AsyncSession, tenant_id: str) -> list[Conversation]:
    """The better answers of a tenant, each with what was said before it. Not redacted.

    A conversation ends with the better answer, and belongs to the training split: it was written to be
    learnt. The assistant's and people's answers before it have weight 0: nobody has said that they
    were good. The visitor's name is their turns' author, so that the redactor knows it.
    """
    scope = of_tenant(tenant_id)
    corrected = (
        scope.select(LiveMessage.conversation_id)
        .where(LiveMessage.correction.is_not(None))
        .group_by(LiveMessage.conversation_id)
        .order_by(LiveMessage.conversation_id.desc())
        .limit(MAX_CORRECTED)
    )
    query = (
        scope.select(
            LiveMessage,
            LiveConversation.visitor_id,
            func.coalesce(Visitor.name, Visitor.said_name),
        )
        .join(LiveConversation, LiveConversation.id == LiveMessage.conversation_id)
        .join(Visitor, Visitor.id == LiveConversation.visitor_id)
        .where(LiveMessage.conversation_id.in_(corrected))
        .order_by(LiveMessage.conversation_id, LiveMessage.seq)
    )
    found: list[Conversation] = []
    rows = (await session.execute(query)).all()
    for _, together in groupby(rows, key=lambda row: row[0].conversation_id):
        of_one = list(together)
        found += _conversations([row[0] for row in of_one], author=of_one[0][2])
    return found


def _conversations(rows: Sequence[LiveMessage], *, author: str | None) -> Iterator[Conversation]:
    """A conversation for each better answer among the messages of one."""
    places = {row.id: at for at, row in enumerate(rows)}
    for row in rows:
        question = places.get(row.reply_to or "")
        if row.correction is not None and question is not None:
            before = rows[max(0, question + 1 - CONTEXT_MESSAGES) : question + 1]
            turns = (*_turns(before, author=author), Turn(Role.AGENT, row.correction))
            yield Conversation(id=f"widget-{row.id}", turns=turns, split="train")


def _turns(rows: Sequence[LiveMessage], *, author: str | None) -> Iterator[Turn]:
    for row in rows:
        if row.text and row.state != "failed":
            if row.role == "visitor":
                yield Turn(Role.CUSTOMER, row.text, author=author)
            else:
                yield Turn(Role.AGENT, row.text, weight=0)
