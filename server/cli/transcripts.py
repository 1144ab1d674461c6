"""``tenantune transcripts``."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import rich_click as click

from connectors.importers import IMPORTERS, ImportOptions, parse_map
from connectors.report import ImportReport, render_table
from server.cli.console import (
    EXIT_FAILED,
    EXIT_USAGE,
    App,
    command,
    escape_controls,
    fail,
    json_option,
    print_json,
    print_message,
    print_table,
    progress_bar,
    tenant_option,
)
from server.cli.options import add_old_name
from server.datasets import creation
from server.datasets.schemas import dataset_view
from server.storage.blobs import BlobStore
from server.storage.references import acquire_reference, stored
from server.tenants import service as tenants
from server.transcripts import deletion, importing, service
from server.transcripts.schemas import ImportView, import_view
from training.locks import is_locked

CHUNK_BYTES = 1 << 20
POLL_SECONDS = 0.3

format_option = click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)


@click.group()
def transcripts() -> None:
    """Uploaded conversations, and the datasets made of them."""


@transcripts.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@tenant_option
@click.option("--importer", type=click.Choice(list(IMPORTERS)), help="Found out when absent.")
@click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="For tables; also role:VALUE=agent and private:VALUE=yes.",
)
@click.option("--encoding", help="Found out when absent.")
@click.option(
    "--dates",
    type=click.Choice(["day-first", "month-first"]),
    help="Of a table, for dates such as 03/04/2024; found out, or asked for, when absent.",
)
@click.option(
    "--order",
    type=click.Choice(["oldest-first", "newest-first"]),
    help="Of a table's rows where no time tells it.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    help="Keep all of this file in one split; decided by hash when absent.",
)
@format_option
@command
async def import_(
    app: App,
    file: Path,
    tenant: str,
    importer: str | None,
    mapping: tuple[str, ...],
    encoding: str | None,
    dates: str | None,
    order: str | None,
    split: str | None,
    form: str,
) -> None:
    """Read a file of transcripts; the same bytes twice change nothing."""
    columns, roles = parse_map(list(mapping))
    options = msgspec.structs.replace(
        msgspec.convert(
            {"split": split, "encoding": encoding, "dates": dates, "order": order}, ImportOptions
        ),
        mapping=columns,
        roles=roles,
    )
    async with app.database.reading() as session:
        await tenants.get(session, tenant)
    blobs = BlobStore.open(app.settings.blobs)
    limit = app.settings.max_upload_bytes
    async with (
        stored(app.database, blobs, _read_chunks(file), max_bytes=limit) as (sha256, size),
        app.transaction() as session,
    ):
        if size == 0:  # known only now: what a pipe holds has no size before it is read
            fail(f"{file}: the file is empty", code=EXIT_USAGE)
        owner = await tenants.get(session, tenant)
        await acquire_reference(session, blobs, sha256)
        row, _ = await service.queue_import(
            session,
            owner,
            sha256=sha256,
            size_bytes=size,
            filename=file.name,
            importer=importer,
            options=options,
        )
    if not is_locked(app.settings.run / "worker.lock"):
        await importing.run_import(app.database, row.id, settings=app.settings, blobs=blobs)
    view = await _wait_for_import(app, tenant, row.id)
    if view.state == "failed":
        if form == "json":
            print_json(view)
        fail((view.error or {}).get("message", "the import failed"), code=EXIT_FAILED)
    _print_report(view, form=form)


async def _read_chunks(file: Path) -> AsyncGenerator[bytes]:
    quiet = not sys.stderr.isatty()
    with file.open("rb") as source, progress_bar(disable=quiet) as bar:
        task = bar.add_task(escape_controls(f"storing {file.name}"), total=file.stat().st_size)
        while chunk := await asyncio.to_thread(source.read, CHUNK_BYTES):
            bar.advance(task, len(chunk))
            yield chunk


async def _wait_for_import(app: App, tenant: str, import_id: str) -> ImportView:
    while True:
        async with app.database.reading() as session:
            owner = await tenants.get(session, tenant)
            view = import_view(*await service.get_import(session, owner, import_id))
        if view.state in {"done", "failed"}:
            return view
        await asyncio.sleep(POLL_SECONDS)


def _print_report(view: ImportView, *, form: str) -> None:
    if form == "json" or view.report is None:
        print_json(view)
    else:
        report = msgspec.convert(view.report, ImportReport, strict=False)
        print(escape_controls(render_table(report), lines=True))


@transcripts.command("list")
@tenant_option
@json_option
@command
async def list_imports(app: App, tenant: str, *, as_json: bool) -> None:
    """Uploads, newest first."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        views = [import_view(*pair) for pair in await service.list_imports(session, owner)]
    if as_json:
        print_json(views)
        return
    rows = [
        (v.id, v.filename, v.state, (v.report or {}).get("read"), (v.report or {}).get("rejected"))
        for v in views
    ]
    print_table("Imports", ("id", "file", "state", "kept", "rejected"), rows)


@transcripts.command("report")
@click.argument("import_id")
@tenant_option
@format_option
@command
async def report(app: App, import_id: str, tenant: str, form: str) -> None:
    """What an import kept, and what it rejected, where and why."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        view = import_view(*await service.get_import(session, owner, import_id))
    _print_report(view, form=form)


@transcripts.command("delete")
@click.argument("import_id")
@tenant_option
@click.option(
    "--datasets",
    is_flag=True,
    help="And the dataset versions that hold its conversations; their adapters stay.",
)
@json_option
@command
async def delete(app: App, import_id: str, tenant: str, *, datasets: bool, as_json: bool) -> None:
    """Remove an import and its conversations, but those that another import holds too."""
    async with app.transaction() as session:
        deleted, leftovers = await deletion.delete_import(
            session, tenant, import_id, datasets=datasets
        )
    blobs = BlobStore.open(app.settings.blobs)
    await deletion.remove(leftovers, database=app.database, blobs=blobs, settings=app.settings)
    if as_json:
        print_json(deleted)
        return
    print_message(f"deleted: {deleted.conversations_deleted:,} conversations")
    if deleted.conversations_kept:
        print_message(
            f"kept: {deleted.conversations_kept:,} conversations that another import holds too"
        )
    if deleted.datasets:
        fate = "deleted" if datasets else "kept (--datasets removes them)"
        print_message(f"datasets {fate}: {', '.join(sha256[:12] for sha256 in deleted.datasets)}")
    if deleted.adapters:
        print_message(f"adapters that learnt from it, and stay: {', '.join(deleted.adapters)}")


@transcripts.command("create-dataset")
@tenant_option
@json_option
@command
async def create_dataset(app: App, tenant: str, *, as_json: bool) -> None:
    """Create the dataset version that the next job would train on, to look at it first."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
    row = await creation.create_version(app.database, owner.id, settings=app.settings)
    view = dataset_view(row)
    if as_json:
        print_json(view)
        return
    print_table("Dataset", ("hash", "counts"), [(view.sha256[:12], view.counts)])
    print(app.settings.datasets / view.sha256)


add_old_name(transcripts, create_dataset, "freeze")
