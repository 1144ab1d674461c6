"""Fine-tuning jobs: created as rows, which a worker picks up, listed and shown.

``states`` changes their state, ``workflows`` does their work.
"""

import re
from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from server.audit import service as audit
from server.db.models import (
    Adapter,
    ConversationRow,
    DatasetVersion,
    Import,
    Job,
    JobEvent,
    JobState,
    SafeText,
    Tenant,
)
from server.db.scope import across_tenants, of_tenant
from server.errors import Conflict, Invalid, NotFound, TooMany
from server.jobs.recipes import default_recipe
from server.jobs.schemas import (
    FINAL_STATES,
    SUFFIX,
    Hyperparameters,
    Imported,
    JobEventView,
    JobRequest,
    JobView,
    Learning,
    Outcome,
    objectives_of,
)
from server.jobs.states import add_event, subject
from server.settings import Settings
from training.adapters.foreign import ImportedAdapter
from training.adapters.package import Foreign
from training.config import Method, Recipe, load_recipe, recipe_names
from training.data.dataset import MIN_EXAMPLES
from training.errors import BadInput
from training.finetuning.trackers import what_to_install

MAX_UNFINISHED = 100
"""Of one tenant. More would be a queue of days."""
WORKING: tuple[JobState, ...] = ("queued", "validating", "running", "evaluating")
"""States in which a job waits for a machine or uses one, and no person is asked."""


async def create_job(
    session: AsyncSession,
    tenant: Tenant,
    *,
    request: JobRequest,
    settings: Settings,
    learning: Learning | None = None,
    imported: Imported | None = None,
    recipe: Recipe | None = None,
    actor: str | None = None,
) -> Job:
    """Queue a job. The row is the job: the worker starts what it finds queued.

    For example::

        async with database.transaction() as session:
            tenant = await tenants.get(session, "acme")
            job = await create_job(
                session, tenant, request=JobRequest(seed=17), settings=settings
            )

    Args:
        session: a transaction; the worker sees the job once it is committed.
        tenant: the owner.
        request: recipe, objectives and seed.
        settings: the installation's defaults, where the request is silent.
        learning: the files and the method to learn by; from all that was imported when None.
        imported: an adapter that was trained elsewhere. The job trains nothing, and evaluates it.
        recipe: one that does not ship, as from a file of the operator's; instead of the request's.
        actor: who starts it, as ``Principal.actor`` names callers.

    Raises:
        Invalid: the recipe is not one that ships, or the suffix cannot be in a model's name.
        Conflict: it is to learn from what was imported, and that is too little.
        TooMany: the tenant has ``MAX_UNFINISHED`` jobs that have not ended.
    """
    recipe = await _recipe_asked_for(request, settings, given=recipe)
    if request.suffix and not re.fullmatch(SUFFIX, request.suffix):  # "$" lets a last "\n" through
        raise Invalid("suffix: 1 to 64 letters, digits, '_' and '-'.", param="suffix")
    if learning is None:
        await expect_transcripts(session, tenant)
    await _expect_room(session, tenant)
    job = Job(
        tenant_id=tenant.id,
        state="queued",
        stage="queued",
        base=settings.base,
        recipe_name=recipe.name,
        seed=request.seed,
        objectives=msgspec.to_builtins(request.objectives or settings.objectives),
        suffix=request.suffix or None,
        require_approval=request.require_approval,
        actor=actor,
    )
    if learning is not None:
        recipe = with_hyperparameters(recipe, learning.hyperparameters)
        job.training_file_id = learning.training_file_id
        job.validation_file_id = learning.validation_file_id
        job.start_adapter_id = learning.start_adapter_id
        job.client_metadata = learning.metadata
        job.method = {
            "type": learning.method,
            "hyperparameters": msgspec.to_builtins(learning.hyperparameters),
        }
    if imported is not None:
        job.id = imported.job_id
        recipe = _shaped_like(recipe, imported.taken)
        job.method = {
            "type": "supervised",
            "foreign": msgspec.to_builtins(imported.taken.foreign),
        }
    job.recipe = msgspec.to_builtins(recipe)
    session.add(job)
    await session.flush()
    await add_event(session, job, kind="state", body={"state": "queued"})
    details = {"base": job.base, "recipe": job.recipe_name, "method": method_of(job)}
    if (foreign := foreign_of(job)) is not None:
        details["imported_adapter"] = foreign.source
    audit.record(
        session,
        "job.started",
        tenant_id=tenant.id,
        subject=subject(job),
        details=details,
        actor=actor,
    )
    return job


async def count_in(
    session: AsyncSession, tenant_ids: Collection[str], states: Collection[JobState]
) -> dict[str, int]:
    """How many jobs of each of these tenants, by id, are in ``states``; those without any are absent."""
    query = across_tenants("a person may belong to several tenants").select(
        Job.tenant_id, func.count(Job.id)
    )
    query = query.where(Job.tenant_id.in_(tenant_ids), Job.state.in_(states))
    rows = await session.execute(query.group_by(Job.tenant_id))
    return dict(rows.all())


async def _recipe_asked_for(
    request: JobRequest, settings: Settings, *, given: Recipe | None
) -> Recipe:
    """The recipe that is given or named, or the installation's, with what the request adds to it.

    Raises:
        Invalid: it is not one that ships, or a tracker's package is not installed.
    """
    recipe = given or await _recipe_that_ships(request, settings)
    trackers = request.report_to or recipe.report_to
    if (absent := what_to_install(trackers)) is not None:
        raise Invalid(absent, param="report_to")
    return msgspec.structs.replace(
        recipe,
        report_to=tuple(dict.fromkeys(trackers)),
        full_evaluation=request.full_evaluation or recipe.full_evaluation,
    )


async def _recipe_that_ships(request: JobRequest, settings: Settings) -> Recipe:
    name = request.recipe or await default_recipe(settings)
    if name not in recipe_names():  # never a path: this comes from a request
        known = ", ".join(recipe_names())
        raise Invalid(f"no recipe {name!r}; there are: {known}", param="recipe")
    try:
        return load_recipe(name)
    except BadInput as exc:
        raise Invalid(str(exc), param="recipe") from exc


async def _expect_room(session: AsyncSession, tenant: Tenant) -> None:
    """Raise TooMany where ``MAX_UNFINISHED`` of the tenant's jobs have not ended."""
    if sum((await count_by_state(session, tenant.id)).values()) >= MAX_UNFINISHED:
        raise TooMany(
            f"{MAX_UNFINISHED} jobs have not ended yet; wait for one, or cancel some.",
            retry_after_seconds=60,
        )


async def count_by_state(session: AsyncSession, tenant_id: str) -> dict[JobState, int]:
    """How many of a tenant's jobs are in each state that is not final."""
    query = of_tenant(tenant_id).select(Job.state, func.count(Job.id))
    rows = await session.execute(query.where(Job.state.not_in(FINAL_STATES)).group_by(Job.state))
    return {row[0]: row[1] for row in rows}


def _shaped_like(recipe: Recipe, taken: ImportedAdapter) -> Recipe:
    """The recipe with the shape of an adapter that exists already."""
    return msgspec.structs.replace(
        recipe,
        rank=taken.lora.rank,
        alpha=round(taken.lora.alpha),
        targets=taken.lora.targets,
        dropout=0.0,
        adapter_dtype="bfloat16" if taken.dtype == "BF16" else "float32",
    )


async def expect_transcripts(session: AsyncSession, tenant: Tenant) -> None:
    """Check that there are conversations to learn from, or uploads that are still being read.

    Raises:
        Conflict: there is too little; the job could only fail later.
    """
    mine = of_tenant(tenant.id)
    count = await session.scalar(mine.select(func.count(ConversationRow.id))) or 0
    unread = mine.select(Import.id).where(Import.state.in_(("queued", "running"))).limit(1)
    if count < MIN_EXAMPLES and await session.scalar(unread) is None:
        raise Conflict(
            f"'{tenant.slug}' has {count} conversations, at least {MIN_EXAMPLES} are needed: upload some "
            f"first (`tenantune transcripts import FILE --tenant {tenant.slug}`).",
            code="no_transcripts",
        )


def with_hyperparameters(recipe: Recipe, given: Hyperparameters) -> Recipe:
    """The recipe with the hyperparameters that a client has set.

    Epochs that are given are not cut short by the recipe's bound on tokens; a run still stops where
    its validation loss has stopped falling (``patience``).
    """
    changes: dict[str, Any] = {}
    if given.n_epochs is not None:
        changes |= {"epochs": float(given.n_epochs), "max_train_tokens": 0}
    if given.batch_size is not None:
        changes["batch_examples"] = given.batch_size
    if given.learning_rate_multiplier is not None:
        changes["learning_rate"] = recipe.learning_rate * given.learning_rate_multiplier
    if given.beta is not None:
        changes["beta"] = given.beta
    return msgspec.structs.replace(recipe, **changes)


def method_of(job: Job) -> Method:
    """How a job learns."""
    method: Method = (job.method or {}).get("type", "supervised")
    return method


def foreign_of(job: Job) -> Foreign | None:
    """The origin of an adapter that a job evaluates without having trained it; None of other jobs."""
    found = (job.method or {}).get("foreign")
    return None if found is None else msgspec.convert(found, Foreign)


def hyperparameters_of(job: Job) -> Hyperparameters:
    """The hyperparameters that the client has set."""
    return msgspec.convert((job.method or {}).get("hyperparameters", {}), Hyperparameters)


def outcome_of(job: Job) -> Outcome | None:
    """What came of a job; None before its gates were applied, and of one that is older than outcomes."""
    if job.state not in ("awaiting_approval", "succeeded") or job.outcome is None:
        return None
    return msgspec.convert(job.outcome, Outcome)


async def get_job(session: AsyncSession, tenant_id: str, job_id: str) -> Job:
    """One job of this tenant.

    Raises:
        NotFound: no such job, or another tenant's.
    """
    job = await of_tenant(tenant_id).get(session, Job, job_id)
    if job is None:
        raise NotFound(f"no job {job_id}")
    return job


async def list_jobs(
    session: AsyncSession,
    tenant_id: str,
    *,
    limit: int = 50,
    after: str | None = None,
    metadata: dict[str, str] | None = None,
    without_metadata: bool = False,
) -> list[Job]:
    """This tenant's jobs, newest first, from behind the job ``after`` (a row's id) on.

    ``metadata``: only jobs that carry all of these pairs; ``without_metadata``: only those that
    carry none.
    """
    query = of_tenant(tenant_id).select(Job).order_by(Job.id.desc())
    if after is not None:
        query = query.where(Job.id < after)
    if without_metadata:
        query = query.where(Job.client_metadata.is_(None))
    each = func.json_each
    if metadata and (await session.connection()).dialect.name == "postgresql":
        each = func.jsonb_each_text
    for key, value in (metadata or {}).items():  # not by a path: a key may hold any character
        pairs = each(Job.client_metadata).table_valued("key", "value")
        same = pairs.c.key == literal(key, SafeText), pairs.c.value == literal(value, SafeText)
        query = query.where(select(pairs.c.key).where(*same).exists())
    return list(await session.scalars(query.limit(limit)))


async def list_events(
    session: AsyncSession, tenant_id: str, job_id: str, *, after: int = 0, limit: int = 500
) -> list[JobEventView]:
    """A job's history after event number ``after``, oldest first."""
    query = (
        of_tenant(tenant_id)
        .select(JobEvent)
        .where(JobEvent.job_id == job_id, JobEvent.seq > after)
        .order_by(JobEvent.seq)
        .limit(limit)
    )
    return [
        JobEventView(seq=row.seq, kind=row.kind, body=row.body, at=row.created_at)
        for row in await session.scalars(query)
    ]


async def view(session: AsyncSession, job: Job, tenant_slug: str) -> JobView:
    """The job as shown to its tenant."""
    mine = of_tenant(job.tenant_id)
    dataset = adapter = None
    if job.dataset_id:
        found = mine.select(DatasetVersion.sha256).where(DatasetVersion.id == job.dataset_id)
        dataset = await session.scalar(found)
    if job.adapter_id:
        version = await session.scalar(
            mine.select(Adapter.version).where(Adapter.id == job.adapter_id)
        )
        adapter = f"{tenant_slug}@{version}"
    return JobView(
        id=job.id,
        tenant=tenant_slug,
        state=job.state,
        stage=job.stage,
        recipe=job.recipe_name,
        seed=job.seed,
        suffix=job.suffix or "",
        base=job.base,
        method=method_of(job),
        foreign=foreign_of(job),
        training_file=_file_name(job.training_file_id),
        validation_file=_file_name(job.validation_file_id),
        result_file=_file_name(job.result_file_id),
        objectives=objectives_of(job.objectives),
        require_approval=job.require_approval,
        dataset=dataset,
        adapter=adapter,
        progress=job.progress,
        estimate=job.estimate,
        error=job.error,
        outcome=outcome_of(job),
        gpu_seconds=round(job.gpu_seconds, 1),
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _file_name(file_id: str | None) -> str | None:
    return file_id and f"file-{file_id}"
