"""``tenantune train`` and ``tenantune jobs``."""

import asyncio
import contextlib
import math
import sys
from collections.abc import Callable, Generator
from typing import Any, get_args

import msgspec
import rich_click as click
from rich.progress import Progress, TextColumn

from server.audit.actors import COMMAND_LINE
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
from server.cli.options import convert_options
from server.db.models import Decision, Tenant
from server.jobs import service, states
from server.jobs.schemas import FINAL_STATES, PUBLIC_ID, JobEventView, JobRequest, JobView
from server.tenants import service as tenants
from training.config import Objectives, Tracker, load_recipe
from training.locks import is_locked
from training.results import Subject

FOLLOW_SECONDS = 0.5
ACTOR = COMMAND_LINE.reference
"""How records name whoever uses these commands."""


def _gates() -> str:
    """Every gate that can be declared, with its default."""
    bounds = zip(Objectives.__struct_fields__, Objectives.__struct_defaults__, strict=True)
    return ", ".join(f"{name} ({'off' if bound is None else bound})" for name, bound in bounds)


def _database_id(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """A job's id in the database; also accepts the id that ``/v1/fine_tuning`` shows."""
    found = PUBLIC_ID.fullmatch(value)
    return found[1] if found else value


job_argument = click.argument("job_id", callback=_database_id)


@click.command()
@tenant_option
@click.option(
    "--recipe",
    metavar="NAME",
    help="One that ships, or a file (.toml); the machine's default when absent.",
)
@click.option("--seed", default=17, show_default=True)
@click.option("--suffix", default="", help="Part of the model's name.")
@click.option("--require-approval", is_flag=True, help="A person promotes it, not the gates alone.")
@click.option(
    "--objective",
    multiple=True,
    metavar="NAME=NUMBER",
    help=f"A gate, as max_perplexity=3.0; once for each. There are, with their defaults: {_gates()}.",
)
@click.option(
    "--report-to",
    multiple=True,
    metavar="NAME",
    type=click.Choice(get_args(Tracker)),
    help=f"Tell a tracker each step's figures, of {', '.join(get_args(Tracker))}. It writes into "
    "the job's folder, unless its own variables (MLFLOW_TRACKING_URI, WANDB_MODE) say otherwise.",
)
@click.option(
    "--full",
    is_flag=True,
    help="Also train, on as many tokens, on less of the data and from scratch, to compare with.",
)
@click.option("--wait/--no-wait", default=True, help="Follow the job to its end.")
@json_option
@command
async def train(
    app: App,
    tenant: str,
    recipe: str | None,
    seed: int,
    suffix: str,
    require_approval: bool,
    objective: tuple[str, ...],
    report_to: tuple[Tracker, ...],
    full: bool,
    wait: bool,
    *,
    as_json: bool,
) -> None:
    """Fine-tune on all of a tenant's transcripts, prove the adapter, and promote it if it passes.

    Ends with 1 where the job failed, and where it succeeded but its adapter did not go live.
    """
    own = load_recipe(recipe) if recipe is not None and recipe.endswith(".toml") else None
    request = convert_options(
        JobRequest,
        {
            "recipe": None if own else recipe,
            "seed": seed,
            "suffix": suffix,
            "require_approval": require_approval,
            "objectives": _parse_objectives(objective) if objective else None,
            "report_to": report_to,
            "full_evaluation": full,
        },
    )
    async with app.transaction() as session:
        owner = await tenants.get(session, tenant)
        job = await service.create_job(
            session,
            owner,
            request=request,
            settings=app.settings,
            recipe=own,
            actor=ACTOR,
        )
        view = await service.view(session, job, tenant)
    await follow_and_report(app, owner, view, wait=wait, as_json=as_json)


async def follow_and_report(
    app: App, tenant: Tenant, view: JobView, *, wait: bool, as_json: bool
) -> None:
    """Follow a new job to its end, if a worker runs, and print the result.

    Args:
        app: The command's settings and database.
        tenant: The job's owner.
        view: The job as it was created.
        wait: Whether to follow it at all.
        as_json: Whether to print the job as JSON instead of its progress.
    """
    running = is_locked(app.settings.run / "worker.lock")
    if not running:
        print_message("no worker runs on this machine: the job waits until `tenantune up` runs")
    if wait and running:
        view = await follow(app, tenant, view.id, quiet=as_json)
    _print_result(view, as_json=as_json)


def _parse_objectives(pairs: tuple[str, ...]) -> Objectives:
    values: dict[str, Any] = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        try:
            values[name] = float(number)
        except ValueError:
            values[name] = math.nan
        if not math.isfinite(values[name]):
            fail(f"--objective {pair!r} is not NAME=NUMBER", code=EXIT_USAGE)
    try:
        return msgspec.convert(values, Objectives)
    except msgspec.ValidationError as exc:
        fail(f"--objective: {exc}; there are: {_gates()}", code=EXIT_USAGE)


def _print_result(view: JobView, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
    elif view.state == "succeeded" and not held_back_reason(view):
        print_message(("done:", "green"), f" {view.adapter} is live")
    elif view.state == "succeeded":
        name, _, version = str(view.adapter).rpartition("@")
        print_message(("not promoted:", "yellow"), f" {view.adapter}: {held_back_reason(view)}")
        print_message(
            f"it answers as '{view.adapter}'; its report is `tenantune adapters report {version} "
            f"--tenant {name} --html`, and `tenantune adapters promote {version} --tenant {name}` "
            "makes it live" + (" (against its gates: with --force)" if _is_worse(view) else "")
        )
    elif view.state == "awaiting_approval":
        name, _, version = str(view.adapter).rpartition("@")
        why = view.outcome.summary if view.outcome else "a person decides"
        print_message(("waits for approval:", "yellow"), f" {view.adapter} {why}")
        print_message(
            f"its report is `tenantune adapters report {version} --tenant {name} --html`; `tenantune "
            f"jobs approve {view.id} --tenant {name}` makes it live, and `... --reject` does not"
        )
    elif view.state in FINAL_STATES:
        reason = (view.error or {}).get("message", "")
        print_message((f"{view.state}:", "red"), f" {reason}")
    else:
        print_message(f"job {view.id} is {view.state}; follow it with `tenantune jobs follow`")
        print(view.id)
    if view.state in {"failed", "cancelled", "awaiting_approval"} or held_back_reason(view):
        sys.exit(EXIT_FAILED)


def held_back_reason(view: JobView) -> str:
    """Why the adapter of a job that succeeded did not go live; empty where it did."""
    if view.outcome is None or view.outcome.promoted:
        return ""
    return view.outcome.reason or view.outcome.summary


def _is_worse(view: JobView) -> bool:
    return view.outcome is not None and view.outcome.gates == "worse"


async def follow(app: App, tenant: Tenant, job_id: str, *, quiet: bool = False) -> JobView:
    """Show a job until it ends or awaits a person: a bar on a terminal, lines in a pipe.

    When cancelled, it prints how to go on.
    """
    seen = 0
    with _hint_on_cancel(tenant.slug, job_id), event_printer(quiet=quiet) as report:
        while True:
            async with app.database.reading() as session:
                events = await service.list_events(session, tenant.id, job_id, after=seen)
                job = await service.get_job(session, tenant.id, job_id)
                view = await service.view(session, job, tenant.slug)
            for event in events:
                seen = event.seq
                report(event)
            if not events and view.state in {*FINAL_STATES, "awaiting_approval", "paused"}:
                return view
            if not events:
                await asyncio.sleep(FOLLOW_SECONDS)


@contextlib.contextmanager
def _hint_on_cancel(tenant: str, job_id: str) -> Generator[None]:
    try:
        yield
    except asyncio.CancelledError:
        words = f"{job_id} --tenant {tenant}"
        print_message(
            f"job {job_id} goes on without this command: `tenantune jobs follow {words}` shows it "
            f"again, `tenantune jobs pause {words}` or `... cancel ...` stops it"
        )
        raise


@contextlib.contextmanager
def event_printer(*, quiet: bool) -> Generator[Callable[[JobEventView], None]]:
    """Yield what shows events: a bar on a terminal, lines in a pipe, nothing where ``quiet``."""
    if quiet:
        yield lambda _event: None
    elif sys.stderr.isatty():
        with progress_bar(TextColumn("{task.fields[note]}", markup=False)) as progress:
            yield _bar_updater(progress)
    else:
        yield _print_event


def _bar_updater(progress: Progress) -> Callable[[JobEventView], None]:
    task = progress.add_task("queued", total=None, note="")

    def report(event: JobEventView) -> None:
        body = event.body
        match event.kind:
            case "step":
                note = f"loss {body['loss']:.3f}, {body['tokens_per_second']:.0f} tokens/s"
                progress.update(
                    task,
                    description="training",
                    total=body["steps"],
                    completed=body["step"],
                    note=note,
                )
            case "evaluation":
                subject = body["subject"]  # of a full evaluation it says itself what is done
                doing = f"evaluating {subject}" if subject in get_args(Subject) else subject
                progress.update(
                    task,
                    description=escape_controls(doing),
                    total=body["total"],
                    completed=body["done"],
                    note="",
                )
            case "state" | "stage" | "estimate" | "verdict" | "validation" | "warning":
                print_message(describe_event(event))

    return report


def _print_event(event: JobEventView) -> None:
    text = describe_event(event)
    if text:
        print_message(text)


def describe_event(event: JobEventView) -> str:  # noqa: PLR0911 - one line each
    """One event as a line; empty for an event that is not shown."""
    body = event.body
    match event.kind:
        case "state":
            return f"state: {body['state']}"
        case "stage":
            return f"stage: {body['stage']} {body.get('detail', '')}".rstrip()
        case "estimate":
            minutes, gib = body["seconds"] / 60, body["memory_bytes"] / 2**30
            tokens = body["train_tokens"]
            return (
                f"estimate: {minutes:.1f} min, {gib:.1f} GiB, {tokens:,} tokens ({body['basis']})"
            )
        case "step" if body["step"] % 10 == 0 or body["step"] == body["steps"]:
            speed, left = body["tokens_per_second"], body["eta_seconds"]
            return (
                f"step {body['step']}/{body['steps']}: loss {body['loss']:.3f}, "
                f"{speed:.0f} tokens/s, {left:.0f} s left"
            )
        case "validation":
            return f"validation at step {body['step']}: {body['loss']:.3f} nats a token"
        case "resumed":
            return f"resumed at step {body['step']}"
        case "verdict":
            return f"verdict: {body['adapter']} {body['summary']}"
        case "error" | "warning":
            return f"{event.kind}: {body['message']}"
        case _:
            return ""


@click.group()
def jobs() -> None:
    """Fine-tuning runs."""


@jobs.command("list")
@tenant_option
@json_option
@command
async def list_jobs(app: App, tenant: str, *, as_json: bool) -> None:
    """Newest first."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        rows = await service.list_jobs(session, owner.id)
        views = [await service.view(session, job, tenant) for job in rows]
    if as_json:
        print_json(views)
    else:
        cells = [(v.id, v.state, v.recipe, v.adapter, v.created_at, v.stage) for v in views]
        print_table("Jobs", ("id", "state", "recipe", "adapter", "created", "stage"), cells)


@jobs.command("show")
@job_argument
@tenant_option
@command
async def show_job(app: App, job_id: str, tenant: str) -> None:
    """One job, as JSON."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        job = await service.get_job(session, owner.id, job_id)
        print_json(await service.view(session, job, tenant))


@jobs.command("follow")
@job_argument
@tenant_option
@json_option
@command
async def follow_job(app: App, job_id: str, tenant: str, *, as_json: bool) -> None:
    """Show a job until it ends."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
    _print_result(await follow(app, owner, job_id, quiet=as_json), as_json=as_json)


@jobs.command("cancel")
@job_argument
@tenant_option
@command
async def cancel(app: App, job_id: str, tenant: str) -> None:
    """Stop a job; it never yields a model."""
    async with app.transaction() as session:
        owner = await tenants.get(session, tenant)
        await states.cancel(session, owner.id, job_id, actor=ACTOR)
    print_message(f"job {job_id} is asked to stop")


@jobs.command("pause")
@job_argument
@tenant_option
@command
async def pause(app: App, job_id: str, tenant: str) -> None:
    """Let a job save and give its place to others."""
    async with app.transaction() as session:
        owner = await tenants.get(session, tenant)
        job = await states.pause(session, owner.id, job_id, actor=ACTOR)
    print_message(
        f"job {job_id} " + ("is paused" if job.state == "paused" else "is asked to pause")
    )


@jobs.command("resume")
@job_argument
@tenant_option
@command
async def resume(app: App, job_id: str, tenant: str) -> None:
    """Put a paused job back into the queue; it goes on where it was."""
    async with app.transaction() as session:
        owner = await tenants.get(session, tenant)
        await states.resume(session, owner.id, job_id, actor=ACTOR)
    print_message(f"job {job_id} goes on")


@jobs.command("approve")
@job_argument
@tenant_option
@click.option("--reject", is_flag=True, help="Say no instead.")
@command
async def approve(app: App, job_id: str, tenant: str, *, reject: bool) -> None:
    """Decide about an adapter that awaits it."""
    async with app.transaction() as session:
        owner = await tenants.get(session, tenant)
        decision: Decision = "rejected" if reject else "approved"
        await states.decide(session, owner.id, job_id, decision=decision, actor=ACTOR)
    print_message(f"job {job_id}: {decision}")
