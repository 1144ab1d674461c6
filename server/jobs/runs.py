"""A tenant's runs as its pages list and compare them: one word for the state, and the main figures.

Lists load neither recipes nor reports, and are paged by the last row's id.
"""

import datetime
from collections.abc import Collection, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Row, Select, and_
from sqlalchemy.ext.asyncio import AsyncSession

from server import spreadsheets
from server.db.models import Adapter, AdapterState, DatasetVersion, Decision, Job, JobState, Tenant
from server.db.scope import of_tenant
from server.errors import Invalid, NotFound
from server.jobs.curve import Curve, read_curve
from server.jobs.schemas import FINAL_STATES

Tone = Literal["plain", "going", "live", "ok", "warn", "bad"]
PAGE = 25
COMPARED = (2, 4)
"""How many runs can be compared: at least, at most."""
CSV_COLUMNS = (
    "version",
    "state",
    "recipe",
    "perplexity",
    "token_f1",
    "conversations",
    "trainer_seconds",
    "created_at",
    "job",
)


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's state is called, and how it is shown. ``going``: it works or waits for its turn."""

    word: str
    tone: Tone
    going: bool = False


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run in a list.

    ``name``: its version's, empty before there is one. ``perplexity`` and ``token_f1`` are of held-out
    conversations. ``seconds``: how long the trainer worked, pauses and waiting left out.
    """

    id: str
    name: str
    version: int | None
    state: RunState
    recipe: str
    perplexity: float | None
    token_f1: float | None
    conversations: int | None
    seconds: float
    created_at: datetime.datetime
    actor: str | None


_STATES: dict[JobState, RunState] = {
    "queued": RunState(word="Queued", tone="plain", going=True),
    "validating": RunState(word="Checking data", tone="going", going=True),
    "running": RunState(word="Training", tone="going", going=True),
    "evaluating": RunState(word="Evaluating", tone="going", going=True),
    "awaiting_approval": RunState(word="Needs approval", tone="warn", going=True),
    "paused": RunState(word="Paused", tone="plain"),
    "failed": RunState(word="Failed", tone="bad"),
    "cancelled": RunState(word="Cancelled", tone="plain"),
}
_ADAPTERS: dict[AdapterState, RunState] = {
    "ready": RunState(word="Ready", tone="ok"),
    "candidate": RunState(word="Undecided", tone="warn"),
    "failed_gates": RunState(word="Gate failed", tone="bad"),
    "unsafe": RunState(word="Unsafe", tone="bad"),
    "deleted": RunState(word="Deleted", tone="plain"),
}


def run_state(
    state: JobState,
    *,
    adapter: AdapterState | None,
    live: bool,
    decision: Decision | None = None,
    stopping: Literal["cancel", "pause"] | None = None,
) -> RunState:
    """The word for a run's state.

    Args:
        state: the job's.
        adapter: its adapter's, if it made one.
        live: whether that adapter answers customers now.
        decision: what a person decided about it.
        stopping: what was asked of it and has not happened yet.
    """
    if stopping is not None and state not in FINAL_STATES:
        word = "Cancelling" if stopping == "cancel" else "Pausing"
        return RunState(word=word, tone="warn", going=True)
    if state == "succeeded":
        return _ended_well(adapter, live=live, decision=decision)
    return _STATES[state]


def _ended_well(adapter: AdapterState | None, *, live: bool, decision: Decision | None) -> RunState:
    if live:
        return RunState(word="Live", tone="live")
    if decision == "rejected":
        return RunState(word="Rejected", tone="plain")
    return _ADAPTERS[adapter or "deleted"]


def stopping_of(job: Job) -> Literal["cancel", "pause"] | None:
    """What was asked of a job and has not happened yet."""
    if job.state in FINAL_STATES:
        return None
    if job.cancel_requested:
        return "cancel"
    return "pause" if job.pause_requested and job.state != "paused" else None


async def list_runs(
    session: AsyncSession,
    tenant: Tenant,
    *,
    limit: int = PAGE,
    after: str | None = None,
    states: Collection[JobState] | None = None,
) -> list[Run]:
    """The tenant's runs, newest first, from behind the job ``after`` on, in all states or in ``states``."""
    query = _query(tenant).order_by(Job.id.desc()).limit(limit)
    if states is not None:
        query = query.where(Job.state.in_(states))
    if after is not None:
        query = query.where(Job.id < after)
    return [_run(tenant, row) for row in await session.execute(query)]


async def get_runs(session: AsyncSession, tenant: Tenant, ids: Sequence[str]) -> list[Run]:
    """These runs of the tenant, in the order of ``ids``.

    Raises:
        NotFound: one of them is not there, or is another tenant's.
    """
    rows = await session.execute(_query(tenant).where(Job.id.in_(ids)))
    found = {row.id: _run(tenant, row) for row in rows}
    missing = [each for each in ids if each not in found]
    if missing:
        raise NotFound(f"no job {missing[0]}")
    return [found[each] for each in ids]


def _query(tenant: Tenant) -> Select[*tuple[Any, ...]]:
    return (
        of_tenant(tenant.id)
        .select(
            Job.id,
            Job.state,
            Job.recipe_name,
            Job.gpu_seconds,
            Job.created_at,
            Job.actor,
            Job.decision,
            Job.cancel_requested,
            Job.pause_requested,
        )
        .outerjoin(Adapter, and_(Adapter.id == Job.adapter_id, Adapter.tenant_id == Job.tenant_id))
        .outerjoin(
            DatasetVersion,
            and_(DatasetVersion.id == Job.dataset_id, DatasetVersion.tenant_id == Job.tenant_id),
        )
        .add_columns(
            Adapter.id.label("adapter_id"),
            Adapter.version,
            Adapter.state.label("adapter_state"),
            Adapter.scores,
            DatasetVersion.counts,
        )
    )


def _run(tenant: Tenant, row: Row[*tuple[Any, ...]]) -> Run:
    new = (row.scores or {}).get("new") or {}
    stopping: Literal["cancel", "pause"] | None = None
    if row.cancel_requested:
        stopping = "cancel"
    elif row.pause_requested and row.state != "paused":
        stopping = "pause"
    return Run(
        id=row.id,
        name=f"{tenant.slug}@{row.version}" if row.version is not None else "",
        version=row.version,
        state=run_state(
            row.state,
            adapter=row.adapter_state,
            live=row.adapter_id is not None and row.adapter_id == tenant.live_adapter_id,
            decision=row.decision,
            stopping=stopping,
        ),
        recipe=row.recipe_name,
        perplexity=new.get("perplexity"),
        token_f1=new.get("token_f1") if new.get("replies") else None,
        conversations=sum(row.counts.values()) if row.counts else None,
        seconds=row.gpu_seconds,
        created_at=row.created_at,
        actor=row.actor,
    )


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One of several runs that are looked at together. ``base``: losses over two bases do not compare."""

    run: Run
    curve: Curve
    base: str


async def compare(session: AsyncSession, tenant: Tenant, ids: Sequence[str]) -> list[Compared]:
    """Two to four runs with their curves.

    Raises:
        Invalid: too few or too many, or one twice.
        NotFound: one of them is not there, or is another tenant's.
    """
    fewest, most = COMPARED
    if not fewest <= len(set(ids)) == len(ids) <= most:
        raise Invalid(
            f"Choose {fewest} to {most} runs to compare; {len(ids)} were chosen.", param="run"
        )
    runs = await get_runs(session, tenant, ids)
    found = []
    for run in runs:
        job = await of_tenant(tenant.id).get_one(session, Job, run.id)
        found.append(Compared(run=run, curve=await read_curve(session, job), base=job.base))
    return found


def to_csv(runs: Sequence[Run]) -> bytes:
    """Runs, a line each."""
    return spreadsheets.to_csv(
        CSV_COLUMNS,
        (
            (
                run.name,
                run.state.word,
                run.recipe,
                None if run.perplexity is None else f"{run.perplexity:.4f}",
                None if run.token_f1 is None else f"{run.token_f1:.4f}",
                run.conversations,
                f"{run.seconds:.1f}",
                run.created_at.isoformat(timespec="seconds"),
                run.id,
            )
            for run in runs
        ),
    )
