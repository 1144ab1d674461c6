"""The workers of the installation."""

import datetime

from sqlalchemy import Integer
from sqlalchemy.orm import Mapped, mapped_column

from server.db.models.base import Json, Record, SafeText


class WorkerProcess(Record):
    """A worker that lives, or was killed; one that stops by itself takes its row along.

    ``name`` is its name in DBOS: there is one worker for each data folder. ``jobs`` and ``imports`` are
    the ids of what it works on. It writes ``seen_at`` every few seconds (`server/jobs/heartbeat.py`).
    """

    __tablename__ = "worker_process"

    name: Mapped[str] = mapped_column(SafeText, unique=True)
    host: Mapped[str] = mapped_column(SafeText)
    pid: Mapped[int] = mapped_column(Integer)
    jobs_at_once: Mapped[int] = mapped_column(Integer)
    jobs: Mapped[list[str]] = mapped_column(Json, default=list)
    imports: Mapped[list[str]] = mapped_column(Json, default=list)
    seen_at: Mapped[datetime.datetime]
