"""``tenantune heads``."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
from sqlalchemy.ext.asyncio import AsyncSession

from server.cli.console import (
    App,
    command,
    json_option,
    print_json,
    print_message,
    print_table,
    tenant_option,
)
from server.db.models import Tenant
from server.errors import Invalid
from server.heads import service
from server.heads.schemas import HeadView
from server.scratch import scratch
from server.tenants import service as tenants
from training.errors import BadInput
from training.heads.config import IMAGE, TASKS, Task

_SHARED = "*"  # no slug
F = TypeVar("F", bound=Callable[..., Any])

task_option = click.option(
    "--task", type=click.Choice(TASKS), required=True, help="What the labels tell."
)


def owner_option(function: F) -> F:
    """Whose heads: ``--tenant``, or ``--shared`` for the installation's: then ``tenant`` is ``_SHARED``."""
    shared = click.option(
        "--shared",
        "tenant",
        flag_value=_SHARED,
        help="Those of all tenants without a live one of theirs.",
    )
    return click.option("--tenant", metavar="SLUG", help="Whose.")(shared(function))


async def _owner(session: AsyncSession, tenant: str | None) -> Tenant | None:
    """The tenant of this slug; None for shared heads.

    Raises:
        Invalid: neither was said.
    """
    if tenant is None:
        raise Invalid("Say whose heads: --tenant SLUG, or --shared.", param="tenant")
    return None if tenant == _SHARED else await tenants.get(session, tenant)


@click.group()
def heads() -> None:
    """Small classifiers of what customers write (sentiment, annoyance, intent), and of images."""


@heads.command("upload")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@owner_option
@task_option
@json_option
@command
async def upload(app: App, file: Path, tenant: str | None, task: Task, *, as_json: bool) -> None:
    """Upload labelled texts or images; a worker trains a version.

    Texts: JSON lines or CSV with text and label. Images: a folder, or a zip archive of one, with a folder
    for each label and images in them.
    """
    with scratch(app.settings, "pictures") as pictures:
        upload = await service.check_examples(file, filename=file.name, task=task, scratch=pictures)
        async with app.transaction() as session:
            row = await service.queue(
                session,
                await _owner(session, tenant),
                upload,
                task=task,
                filename=file.name,
                settings=app.settings,
            )
            view = service.view(row)
    if as_json:
        print_json(view)
        return
    for left_out in upload.left_out[: service.SHOWN_LEFT_OUT]:
        print_message(f"left out: {left_out.place}: {left_out.detail}")
    if upload.left_out:
        print_message(f"{len(upload.left_out):,} files in all were left out")
    print_message(
        f"{task}, version {view.version}: {view.texts:,} {'images' if task == IMAGE else 'texts'} "
        f"wait for a worker; see tenantune heads list {'--shared' if tenant == _SHARED else f'--tenant {tenant}'}"
    )


@heads.command("list")
@owner_option
@json_option
@command
async def list_heads(app: App, tenant: str | None, *, as_json: bool) -> None:
    """Versions with their scores, by task, newest first."""
    async with app.database.reading() as session:
        rows = await service.list_for(session, await _owner(session, tenant))
        views = [service.view(row) for row in rows]
    if as_json:
        print_json(views)
        return
    columns = ("task", "version", "state", "balanced accuracy", "macro F1", "ECE", "gates")
    print_table("Heads", columns, [_row(view) for view in views])
    for view in views:
        if view.error:
            print_message(f"{view.task}, version {view.version}: {view.error['message']}")


@heads.command("promote")
@click.argument("version", type=click.IntRange(1))
@owner_option
@task_option
@click.option("--force", is_flag=True, help="Also where the gates do not say better.")
@command
async def promote(app: App, version: int, tenant: str | None, task: Task, *, force: bool) -> None:
    """Let a version label visitors' messages from now on."""
    async with app.transaction() as session:
        owner = await _owner(session, tenant)
        await service.promote(session, owner, task, version, force=force)
    print_message(f"{task}, version {version} is live")


@heads.command("rollback")
@owner_option
@task_option
@command
async def rollback(app: App, tenant: str | None, task: Task) -> None:
    """Go back to the version that was live before."""
    async with app.transaction() as session:
        row = await service.roll_back(session, await _owner(session, tenant), task)
    print_message(f"{task}, version {row.version} is live")


@heads.command("retire")
@owner_option
@task_option
@command
async def retire(app: App, tenant: str | None, task: Task) -> None:
    """Let no version of a task label messages any more."""
    async with app.transaction() as session:
        await service.retire(session, await _owner(session, tenant), task)
    print_message(f"no version of {task} is live")


@heads.command("delete")
@click.argument("version", type=click.IntRange(1))
@owner_option
@task_option
@command
async def delete(app: App, version: int, tenant: str | None, task: Task) -> None:
    """Delete a version that is not live, and what it was trained on; what it said stays."""
    async with app.transaction() as session:
        owner = await _owner(session, tenant)
        await service.delete(session, owner, task, version)
    async with app.transaction() as session:
        await service.remove_unused(session, owner, settings=app.settings)
    print_message(f"{task}, version {version} is deleted")


@heads.command("classify")
@click.argument("text")
@tenant_option
@task_option
@click.option("--version", type=click.IntRange(1), help="Not the live one.")
@json_option
@command
async def classify(
    app: App, text: str, tenant: str, task: Task, version: int | None, *, as_json: bool
) -> None:
    """What the live version says of a text, or for the task image of an image file.

    The encoder is loaded here, which takes some seconds.
    """
    from training.heads.images import read_picture  # noqa: PLC0415 - loads numpy
    from training.heads.package import Classified, Head  # noqa: PLC0415 - loads numpy

    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        row = (
            await service.live(session, owner, task)
            if version is None
            else await service.get(session, owner, task, version)
        )
    folder = service.weights_folder(app.settings, row)

    def ask() -> Classified:
        if task == IMAGE:
            return Head(folder).classify([read_picture(Path(text).read_bytes())])[0]
        return Head(folder).classify([text])[0]

    try:
        said = await asyncio.to_thread(ask)
    except (BadInput, OSError) as exc:
        raise Invalid(f"{text}: {exc}") from exc
    if as_json:
        print_json(said._asdict())
        return
    ranked = sorted(said.probabilities.items(), key=lambda each: -each[1])
    rows = [(label, f"{probability:.2f}") for label, probability in ranked[:10]]
    print_table(f"{task}, version {row.version}", ("label", "probability"), rows)


def _row(view: HeadView) -> tuple[str, ...]:
    state: str = "live" if view.live else view.state
    if view.state == "running":
        state = f"running, {view.progress:.0%}"
    start = (view.task, str(view.version), state)
    if view.report is None:
        return (*start, "", "", "", "")
    scores, verdict = view.report["scores"], view.report["verdict"]
    figures = (scores["balanced_accuracy"], scores["macro_f1"], scores["ece"])
    return (*start, *(f"{each:.2f}" for each in figures), verdict["result"].replace("_", " "))
