"""A full evaluation of a version that is there already: its controls, trained and put into its report."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from server.db.models import Adapter, DatasetVersion, Tenant
from server.db.scope import of_tenant
from server.db.session import Database
from server.errors import Conflict
from server.jobs.schemas import JobEventView
from server.jobs.trainer_process import Interruption, event_body, event_kind, run_trainer
from server.knowledge.pieces import kept
from server.settings import Settings
from training.adapters.package import read_manifest, spec_of
from training.events import Event
from training.filesystem import write_atomically
from training.reports.report import Report, read_controls, render_html
from training.results import CONTROLS_FILE, Controls

FOLDER = "full"  # in the job's folder


async def evaluate_fully(
    database: Database,
    settings: Settings,
    tenant: Tenant,
    adapter: Adapter,
    dataset: DatasetVersion,
    *,
    on_event: Callable[[JobEventView], None],
) -> Controls:
    """Train what the version is compared with in a child process, and add it to the version's report.

    What an earlier call has finished is not done again.

    Args:
        database: for the report. Read and written once the child has ended.
        settings: for the folders.
        tenant: whose version it is.
        adapter: the version.
        dataset: what it was trained on.
        on_event: called with each event of the child.

    Raises:
        Conflict: the version was not made by a job, or has no report.
        TrainingFailed: it cannot be evaluated so, with the reason.
    """
    if adapter.job_id is None or adapter.report is None:
        raise Conflict(f"{tenant.slug}@{adapter.version} has no report to add to")
    job_folder = settings.jobs / adapter.job_id
    out, source = job_folder / FOLDER, settings.adapters / adapter.engine_name
    manifest = read_manifest(source)
    spec = spec_of(
        manifest,
        base=settings.bases / adapter.base_name,
        dataset=settings.datasets / dataset.sha256,
        adapters=settings.adapters,
        knowledge=kept(job_folder, manifest.knowledge),
    )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "spec.json", msgspec.json.encode(spec))

    async def tell(event: Event) -> None:
        on_event(
            JobEventView(
                0, event_kind(event), event_body(event), datetime.fromtimestamp(event.at, UTC)
            )
        )

    await run_trainer(
        out / "spec.json",
        out,
        command=("training", "--controls-of", str(source)),
        on_event=tell,
        requested=_never,
        stopping=asyncio.Event(),
        on_saved=lambda: None,
    )
    controls = read_controls(out / CONTROLS_FILE)
    assert controls is not None  # noqa: S101 - the child ended well
    async with database.transaction() as session:
        row = await of_tenant(tenant.id).get_one(session, Adapter, adapter.id, lock=True)
        report = msgspec.structs.replace(msgspec.convert(row.report, Report), controls=controls)
        row.report = msgspec.to_builtins(report)
    _write_report(job_folder, report)
    return controls


async def _never() -> Interruption | None:
    return None


def _write_report(folder: Path, report: Report) -> None:
    write_atomically(folder / "report.json", msgspec.json.encode(report))
    write_atomically(folder / "report.html", render_html(report).encode())
