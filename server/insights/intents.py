"""What conversations are about, by the labels of the tenant's intent head, and how many a person had to take."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import distinct, func
from sqlalchemy.ext.asyncio import AsyncSession

from server import spreadsheets
from server.db.models import Handoff, MessageLabel
from server.db.scope import of_tenant
from training.heads.config import Task

INTENT: Task = "intent"


class IntentCount(NamedTuple):
    """A label: in how many conversations a message got it, and how many of them were handed off."""

    label: str
    conversations: int
    handed_off: int

    @property
    def share(self) -> float:
        """Of its conversations that were handed off, in [0, 1]."""
        return self.handed_off / self.conversations


async def count_by_intent(session: AsyncSession, tenant_id: str) -> list[IntentCount]:
    """The labels of all conversations that are kept, the commonest first.

    A conversation counts for each of its labels, and as handed off whenever it was.
    """
    scope = of_tenant(tenant_id)
    talks = func.count(distinct(MessageLabel.conversation_id))
    query = scope.select(MessageLabel.label, talks).where(MessageLabel.task == INTENT)
    query = query.group_by(MessageLabel.label).order_by(talks.desc(), MessageLabel.label)
    passed_on = MessageLabel.conversation_id.in_(scope.select(Handoff.conversation_id))
    handed_off = await session.execute(query.where(passed_on))
    taken = {row[0]: row[1] for row in handed_off}
    found = await session.execute(query)
    return [IntentCount(label, count, taken.get(label, 0)) for label, count in found]


def to_csv(found: Sequence[IntentCount]) -> bytes:
    """The labels, a line each."""
    return spreadsheets.to_csv(("intent", "conversations", "handed_off"), found)
