"""Gate: decide by the gates, write the report, register the adapter, keep the result file."""

from collections.abc import AsyncGenerator

import msgspec

from server.adapters import service as adapters
from server.db.models import DatasetVersion, Tenant
from server.db.scope import of_tenant
from server.files import service as files
from server.jobs import results
from server.jobs.curve import read_curve
from server.jobs.schemas import Outcome, objectives_of, public_id
from server.jobs.states import add_event
from server.jobs.steps.context import StepContext, find_job, lock_job, requested_interruption
from server.jobs.trainer_process import raise_if_interrupted
from server.storage.references import stored
from training.base_models.manifest import load_base
from training.filesystem import write_atomically
from training.reports.report import build_report, render_html


async def apply_gates(context: StepContext, job_id: str, adapter_name: str) -> str:
    """Apply the gates, write the report, register the adapter; why it is unsafe, or ``""``.

    An unsafe adapter is registered too, and marked, so that a person can look at it.

    Raises:
        TrainingCancelled: the job's cancellation was requested.
        TrainingPaused: the job's pause was requested.
    """
    folder, settings = context.folder(job_id), context.settings
    async with context.database.transaction() as session:
        job = await lock_job(session, job_id)
        raise_if_interrupted(requested_interruption(job))
        tenant = await session.get_one(Tenant, job.tenant_id)
        dataset = await of_tenant(tenant.id).get_one(session, DatasetVersion, job.dataset_id)
        report = build_report(
            folder,
            tenant=tenant.name,
            dataset_folder=settings.datasets / dataset.sha256,
            base=load_base(settings.bases / job.base),
            objectives=objectives_of(job.objectives),
        )
        adapter = await adapters.register(
            session,
            tenant,
            job,
            settings=settings,
            folder=settings.adapters / adapter_name,
            report=msgspec.to_builtins(report),
            state=adapters.state_of(report.verdict),
        )
        job.adapter_id = adapter.id
        job.outcome = msgspec.to_builtins(
            Outcome(gates=report.verdict.result or "cannot_tell", summary=report.verdict.summary)
        )
        report = msgspec.structs.replace(report, version=adapter.version)
        await add_event(
            session,
            job,
            kind="verdict",
            body={
                "passed": report.verdict.passed,
                "result": report.verdict.result,
                "summary": report.verdict.summary,
                "adapter": f"{tenant.slug}@{adapter.version}",
            },
        )
    write_atomically(folder / "report.json", msgspec.json.encode(report))
    write_atomically(folder / "report.html", render_html(report).encode())
    return report.verdict.unsafe


async def keep_results(context: StepContext, job_id: str) -> None:
    """Store the loss curve as a file of the tenant's, once."""
    async with context.database.reading() as session:
        job = await find_job(session, job_id)
        if job.result_file_id is not None:
            return
        data = results.to_csv((await read_curve(session, job)).points)

    async def chunks() -> AsyncGenerator[bytes]:
        yield data

    async with (
        stored(context.database, context.blobs, chunks(), max_bytes=len(data)) as (sha256, size),
        context.database.transaction() as session,
    ):
        job = await lock_job(session, job_id)
        if job.result_file_id is None:
            file = await files.create(
                session,
                job.tenant_id,
                blobs=context.blobs,
                sha256=sha256,
                size_bytes=size,
                filename=f"{public_id(job_id)}-metrics.csv",
                purpose="fine-tune-results",
            )
            job.result_file_id = file.id
