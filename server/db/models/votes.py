"""Votes about answers, cast without knowing whose they are."""

from typing import Literal

from sqlalchemy import ForeignKey, Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.accounts import person_column
from server.db.models.base import Record, SafeString, tenant_column

VoteChoice = Literal["new", "other", "tie"]
VotedAgainst = Literal["live", "base"]


class BlindVote(Record):
    """Which answer to a held-out question a person prefers: the version's, the other's, or neither.

    ``question`` is its place among the samples of the version's report, which never change.
    ``against``: whose the other answer is; ``live`` is what was live when the version was evaluated.
    """

    __tablename__ = "blind_vote"
    __table_args__ = (UniqueConstraint("adapter_id", "person_id", "question"),)

    tenant_id: Mapped[str] = tenant_column()
    adapter_id: Mapped[str] = mapped_column(
        SafeString(32), ForeignKey("adapter.id", ondelete="CASCADE")
    )
    person_id: Mapped[str] = person_column()
    question: Mapped[int] = mapped_column(Integer)
    against: Mapped[VotedAgainst] = mapped_column(SafeString(8))
    choice: Mapped[VoteChoice] = mapped_column(SafeString(8))
