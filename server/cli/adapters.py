"""``tenantune adapters`` and ``tenantune eval``."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from server.adapters import canary, service
from server.adapters.download import Form
from server.adapters.schemas import MAX_PERCENT, MIN_PERCENT, AdapterView, Answered, Share
from server.child_processes import run_child, with_parent_watch
from server.cli.console import (
    EXIT_FAILED,
    EXIT_USAGE,
    App,
    command,
    fail,
    json_option,
    print_json,
    print_message,
    print_table,
    tenant_option,
)
from server.cli.jobs import ACTOR, event_printer, follow_and_report
from server.cli.options import convert_options
from server.db.models import Adapter, DatasetVersion, Tenant
from server.errors import Conflict
from server.jobs import service as jobs
from server.jobs.adapter_import import import_adapter
from server.jobs.full_evaluation import evaluate_fully
from server.jobs.schemas import JobRequest
from server.jobs.trainer_process import TrainingFailed
from server.knowledge.pieces import kept
from server.scratch import scratch
from server.tenants import service as tenants
from training.adapters import export
from training.adapters.gguf import export_gguf
from training.adapters.package import read_manifest
from training.reports.report import print_controls, print_scores
from training.results import Evaluation

VERSION = click.IntRange(1, (1 << 31) - 1)


@click.group()
def adapters() -> None:
    """Trained versions of tenants' assistants."""


@adapters.command("list")
@tenant_option
@json_option
@command
async def list_adapters(app: App, tenant: str, *, as_json: bool) -> None:
    """Newest first; the live one and the canary are marked."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        views = await service.views(session, owner, await service.list_for(session, owner))
    if as_json:
        print_json(views)
        return
    rows = [
        (
            v.model,
            "live" if v.live else _state(v),
            _perplexity(v.scores),
            v.created_at,
            "foreign" if v.foreign else "",
        )
        for v in views
    ]
    print_table("Adapters", ("model", "state", "perplexity", "made", "origin"), rows)


def _state(view: AdapterView) -> str:
    return f"canary, {view.canary_percent} %" if view.canary_percent else view.state


def _perplexity(scores: dict[str, Any]) -> str:
    value = (scores.get("new") or {}).get("perplexity")
    return f"{value:.2f}" if value is not None else ""


@adapters.command("promote")
@click.argument("version", type=VERSION)
@tenant_option
@click.option("--force", is_flag=True, help="Although its gates speak against it.")
@command
async def promote(app: App, version: int, tenant: str, *, force: bool) -> None:
    """Make a version live from the next request on; also one of which its gates cannot tell.

    A canary ends with it.
    """
    async with app.transaction() as session:
        owner = await tenants.get(session, tenant)
        await service.promote(session, owner, version=version, actor=ACTOR, force=force)
    print_message(f"{tenant}@{version} is live")


@adapters.command("rollback")
@tenant_option
@command
async def rollback(app: App, tenant: str) -> None:
    """Make live what was live before. A canary ends with it."""
    async with app.transaction() as session:
        owner = await tenants.get(session, tenant)
        await service.roll_back(session, owner, actor=ACTOR)
        live = await service.live_version(session, owner)
    print_message(f"{tenant}@{live} is live" if live else f"the base answers for {tenant}")


@adapters.command("history")
@tenant_option
@json_option
@command
async def history(app: App, tenant: str, *, as_json: bool) -> None:
    """Every change of what is live and of the canary, newest first."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        steps = await service.history(session, owner)
    if as_json:
        print_json(steps)
        return
    rows = [
        (
            s.created_at,
            s.kind,
            s.from_version or "base",
            s.to_version or "base",
            f"{s.canary_version}, {s.canary_percent} %" if s.canary_version else "",
            s.actor,
        )
        for s in steps
    ]
    print_table("Promotions", ("when", "what", "from", "to", "canary", "who"), rows)


@adapters.group("canary")
def canary_group() -> None:
    """A version that answers a share of the requests before it goes live, or does not."""


@canary_group.command("start")
@click.argument("version", type=VERSION)
@click.option(
    "--percent",
    type=click.IntRange(MIN_PERCENT, MAX_PERCENT),
    required=True,
    help="Share of the requests.",
)
@tenant_option
@command
async def start_canary(app: App, version: int, percent: int, tenant: str) -> None:
    """Let a version answer a share of the requests from the next one on, or change its share.

    Whom it answers is decided by a hash of the conversation or the end user, so that nobody meets both.
    """
    async with app.transaction() as session:
        owner = await tenants.get(session, tenant)
        await canary.start(
            session, owner, version=version, percent=percent, base=app.settings.base, actor=ACTOR
        )
    print_message(f"{tenant}@{version} answers {percent} % of the requests")


@canary_group.command("end")
@tenant_option
@command
async def end_canary(app: App, tenant: str) -> None:
    """Take it back: what is live answers everything from the next request on."""
    async with app.transaction() as session:
        owner = await tenants.get(session, tenant)
        await canary.end(session, owner, actor=ACTOR)
        live = await service.live_version(session, owner)
    name = f"{tenant}@{live}" if live else "the base"
    print_message(f"{name} answers everything")


@canary_group.command("show")
@tenant_option
@json_option
@command
async def show_canary(app: App, tenant: str, *, as_json: bool) -> None:
    """How it does beside what is live, since its share was last set."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        found = await canary.required(session, owner, base=app.settings.base)
    if as_json:
        print_json(found)
        return
    name = f"{tenant}@{found.version}"
    print_message(
        f"{name} answers {found.percent} % of the requests since {found.since}, by {found.actor}"
    )
    columns = ("", name, f"{tenant}@{found.live.version}" if found.live.version else "base")
    both: tuple[Answered, Answered] = (found.canary, found.live)
    rows = [
        ("requests", *(each.requests for each in both)),
        ("failed", *(_share(each.errors) for each in both)),
        ("thumbs up, of those rated", *(_share(each.liked) for each in both)),
        ("prompt tokens", *(each.prompt_tokens for each in both)),
        ("completion tokens", *(each.completion_tokens for each in both)),
    ]
    print_table("Since the share was set", columns, rows)
    for title, compared in (("failures", found.errors_compared), ("thumbs", found.liked_compared)):
        print_message(f"{title}: {compared.replace('_', ' ')}")


def _share(share: Share) -> str:
    """``3 of 120, 2.5 % (0.9 % to 7.1 %)``: with its 95 % interval."""
    if share.share is None or share.low is None or share.high is None:
        return f"{share.count} of {share.of}"
    ends = f"{share.low:.1%} to {share.high:.1%}"
    return f"{share.count} of {share.of}, {share.share:.1%} ({ends})"


@adapters.command("report")
@click.argument("version", type=VERSION)
@tenant_option
@click.option("--html", is_flag=True, help="Print where the HTML page is.")
@command
async def report(app: App, version: int, tenant: str, *, html: bool) -> None:
    """The proof of a version: scores, parity and gates."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        adapter = await service.get(session, owner, version=version)
    if adapter.report is None:
        fail(f"{tenant}@{version} has no report", code=EXIT_FAILED)
    if html:
        print(app.settings.jobs / str(adapter.job_id) / "report.html")
    else:
        print_json(adapter.report)


@adapters.command("export")
@click.argument("version", type=VERSION)
@tenant_option
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Where to: a zip where the name ends in .zip, else a new folder.",
)
@click.option("--merged", "form", flag_value="merged", help="The base with the adapter in it.")
@click.option("--gguf", "form", flag_value="gguf", help="The adapter for llama.cpp and Ollama.")
@click.option("--base", "form", flag_value="base", help="The base that the adapter belongs to.")
@command
async def export_(app: App, version: int, tenant: str, out: Path, form: Form | None) -> None:
    """Take a version away: as PEFT's folder, which loads with transformers and peft."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        adapter = await service.get(session, owner, version=version)
    folder = app.settings.adapters / adapter.engine_name
    base = app.settings.bases / adapter.base_name
    if out.is_dir() or (out.exists() and out.suffix != ".zip"):
        fail(f"{out} is there already; name another place with --out", code=EXIT_USAGE)
    with scratch(app.settings, "export") as work:
        if form == "gguf":
            export_gguf(folder, base, work / "out")
            files = export.folder_entries(work / "out")
        else:
            files = export.entries(form or "peft", folder, base)
        write = export.write_zip if out.suffix == ".zip" else export.write_folder
        write(files, out.absolute())
    print_message(f"{tenant}@{version} is in {out}")


@adapters.command("import")
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@tenant_option
@click.option("--suffix", default="", help="Part of the model's name.")
@click.option("--require-approval", is_flag=True, help="A person promotes it, not the gates alone.")
@click.option("--wait/--no-wait", default=True, help="Follow the job to its end.")
@json_option
@command
async def import_(
    app: App,
    folder: Path,
    tenant: str,
    suffix: str,
    require_approval: bool,
    wait: bool,
    *,
    as_json: bool,
) -> None:
    """Take in a PEFT adapter that was trained elsewhere: its folder, or a zip of it.

    It is checked, proved on the tenant's held-out conversations, and promoted where it passes the
    gates, as if it had been trained here.
    """
    request = convert_options(JobRequest, {"suffix": suffix, "require_approval": require_approval})
    name = folder.name or folder.absolute().name
    job = await import_adapter(
        app.database,
        tenant,
        folder,
        settings=app.settings,
        request=request,
        name=name,
        actor=ACTOR,
    )
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        view = await jobs.view(session, job, tenant)
    await follow_and_report(app, owner, view, wait=wait, as_json=as_json)


@click.command("eval")
@tenant_option
@click.option("--version", type=VERSION, help="Which; the live one when absent.")
@click.option(
    "--full",
    is_flag=True,
    help="Train, on as many tokens, on less of the data and from scratch, and compare; into the report. "
    "Stopped, it goes on there when it is asked again.",
)
@json_option
@command
async def evaluate(
    app: App, tenant: str, version: int | None, full: bool, *, as_json: bool
) -> None:
    """Score a version again on the dataset it was trained for, beside the base and a plain lookup."""
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        version = version or await service.live_version(session, owner)
        if version is None:
            raise Conflict(f"no adapter of {tenant} is live; give --version")
        adapter: Adapter = await service.get(session, owner, version=version)
        dataset = await service.dataset_of(session, adapter)
        if dataset is None:
            raise Conflict(f"the dataset of {tenant}@{version} is gone")
    if full:
        await _evaluate_fully(app, owner, adapter, dataset, as_json=as_json)
        return
    source = app.settings.adapters / adapter.engine_name
    articles = kept(app.settings.jobs / str(adapter.job_id), read_manifest(source).knowledge)
    with scratch(app.settings, "eval") as folder:
        out = folder / "evaluation.json"
        argv = with_parent_watch(
            "training.evaluation.evaluate",
            *("--adapter", str(source)),
            *("--base", str(app.settings.bases / adapter.base_name)),
            *("--dataset", str(app.settings.datasets / dataset.sha256)),
            *(("--knowledge", str(articles)) if articles else ()),
            *("--out", str(out)),
        )
        if not as_json:
            print_message(f"scoring {tenant}@{version}: about a minute on a CPU")
        with (folder / "log").open("wb+") as said:
            if await run_child(argv, stdout=said, stderr=said):
                # the libraries' own remarks are only worth reading now
                said.seek(0)
                words = said.read().decode(errors="replace")
                fail(f"the evaluation failed:\n{words[-4000:]}", code=EXIT_FAILED)
        evaluation = msgspec.json.decode(out.read_bytes(), type=Evaluation)
    print_json(evaluation) if as_json else print_scores(evaluation)


async def _evaluate_fully(
    app: App, owner: Tenant, adapter: Adapter, dataset: DatasetVersion, *, as_json: bool
) -> None:
    name = f"{owner.slug}@{adapter.version}"
    try:
        with event_printer(quiet=as_json) as report:
            controls = await evaluate_fully(
                app.database, app.settings, owner, adapter, dataset, on_event=report
            )
    except asyncio.CancelledError:
        print_message(
            f"what is finished is kept: `tenantune eval --full --tenant {owner.slug} --version "
            f"{adapter.version}` goes on"
        )
        raise
    except TrainingFailed as exc:
        fail(exc.message, code=EXIT_USAGE if exc.code == "bad_input" else EXIT_FAILED)
    if as_json:
        print_json(controls)
        return
    print_controls(controls)
    print_message(f"the report of {name} has it now")
