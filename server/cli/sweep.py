"""``tenantune sweep``: looks for a better recipe, in a child process, within a budget of time."""

import asyncio
import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from subprocess import DEVNULL
from typing import BinaryIO

import msgspec
import rich_click as click
from rich.progress import TextColumn

from server.child_processes import run_child
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
    progress_bar,
    tenant_option,
)
from server.datasets import creation
from server.datasets import service as datasets
from server.engine.backends.vllm.launch import MAX_RANK
from server.jobs.recipes import default_recipe
from server.knowledge.pieces import freeze
from server.tenants import service as tenants
from training.base_models.manifest import load_base
from training.config import TrainingSpec, load_recipe
from training.events import EXIT_BAD_INPUT, EXIT_OK, ErrorEvent, Event, StageEvent, StepEvent, parse
from training.filesystem import write_atomically
from training.sweeps.comparison import SweepResult
from training.sweeps.config import Setting, SweepSpec, space_around
from training.sweeps.sweep import RECIPE_FILE, RESULT_FILE

POLL_SECONDS = 0.5
OnEvent = Callable[[Event], None]


@click.command()
@tenant_option
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="All that it may take; of a sweep that goes on, what it has taken already included.",
)
@click.option("--recipe", metavar="NAME", help="The one to improve on; as for train.")
@click.option(
    "--dataset",
    metavar="SHA256",
    help="A dataset version; by default one of all transcripts as they are now.",
)
@click.option("--seed", default=17, show_default=True)
@json_option
@command
async def sweep(
    app: App,
    tenant: str,
    minutes: float,
    recipe: str | None,
    dataset: str | None,
    seed: int,
    *,
    as_json: bool,
) -> None:
    """Look for a better learning rate, rank, number of references and epochs for a tenant, and say why.

    Trains here and now, many short runs on the base in memory, without a worker. Stopped or killed, the
    same command goes on. Chooses by the validation split; the test split stays unread for a job's report.
    Writes the winner's recipe to a file, for `tenantune train --recipe FILE`.
    """
    async with app.database.reading() as session:
        owner = await tenants.get(session, tenant)
        chosen = None if dataset is None else await datasets.get_dataset(session, owner, dataset)
    version = chosen or await creation.create_version(app.database, owner.id, settings=app.settings)
    folder = app.settings.sweeps / version.sha256
    articles = await freeze(app.database, owner, folder)
    improved = load_recipe(recipe or await default_recipe(app.settings))
    rank = int(app.settings.engine_options.get("max_lora_rank", MAX_RANK))
    spec = SweepSpec(
        run=TrainingSpec(
            label=tenant,
            base=str(app.settings.bases / app.settings.base),
            dataset=str(app.settings.datasets / version.sha256),
            recipe=improved,
            seed=seed,
            knowledge=str(articles) if articles else None,
        ),
        minutes=minutes,
        space=space_around(improved, max_rank=rank),
    )
    out = folder / _name(spec)
    path = out / "sweep.json"
    write_atomically(path, msgspec.json.format(msgspec.json.encode(spec), indent=2))
    try:
        status = await _run(path, out, seconds=60 * minutes, quiet=as_json)
    except asyncio.CancelledError:
        print_message("stopped; the same command goes on with what is left of its time")
        raise
    finally:
        _print_result(out, tenant, as_json=as_json)
    if status != EXIT_OK:
        code = EXIT_USAGE if status == EXIT_BAD_INPUT else EXIT_FAILED
        fail(f"the sweep ended early; its log is {out / 'trainer.log'}", code=code)


def _name(spec: SweepSpec) -> str:
    """Of a sweep's folder: another recipe, base, seed, space or state of the articles is another sweep."""
    same = (spec.run, load_base(Path(spec.run.base)).serving_sha256, spec.space)
    return f"{spec.run.recipe.name}-{hashlib.sha256(msgspec.json.encode(same)).hexdigest()[:8]}"


async def _run(spec: Path, out: Path, *, seconds: float, quiet: bool) -> int:
    """Run the sweep in a child, which saves when this is cancelled; show what it does."""
    argv = [sys.executable, "-m", "training.sweeps", str(spec), str(out), "--with-parent"]
    events = out / "events.jsonl"
    events.touch()
    with events.open("rb") as lines, (out / "trainer.log").open("ab") as log:
        lines.seek(0, os.SEEK_END)
        with _shown(seconds, quiet=quiet) as show:
            shown = _Events(lines, show)
            async with asyncio.TaskGroup() as group:
                following = group.create_task(shown.follow())
                status = await run_child(argv, stdout=DEVNULL, stderr=log)
                following.cancel()
            shown.show_new()
    return status


class _Events:
    """Events as they are written to a file."""

    def __init__(self, lines: BinaryIO, show: OnEvent) -> None:
        self._lines, self._show = lines, show
        self._rest = b""

    def show_new(self) -> None:
        """Show those that are whole."""
        *whole, self._rest = (self._rest + self._lines.read()).split(b"\n")
        for event in map(parse, whole):
            if event is not None:
                self._show(event)

    async def follow(self) -> None:
        """Show them until cancelled."""
        while True:
            self.show_new()
            await asyncio.sleep(POLL_SECONDS)


@contextlib.contextmanager
def _shown(seconds: float, *, quiet: bool) -> Generator[OnEvent]:
    """Shows events: a bar of the time on a terminal, lines in a pipe."""
    if quiet or not sys.stderr.isatty():
        yield lambda event: None if quiet else _print_event(event)
        return
    with progress_bar(TextColumn("{task.fields[note]}", markup=False)) as progress:
        task = progress.add_task("searching", total=seconds, note="")
        started = time.monotonic()

        def show(event: Event) -> None:
            if isinstance(event, StepEvent):
                note = f"step {event.step} of {event.steps}, loss {event.loss:.3f}"
                progress.update(task, completed=time.monotonic() - started, note=note)
            _print_event(event)

        yield show


def _print_event(event: Event) -> None:
    if isinstance(event, StageEvent) and event.stage in {"indexing", "loading", "searching"}:
        print_message(event.detail)
    elif isinstance(event, ErrorEvent) and event.code != "interrupted":
        print_message(("error:", "bold red"), f" {event.message}")


def _print_result(out: Path, tenant: str, *, as_json: bool) -> None:
    """The table of trials and the words; nothing where nothing was measured yet."""
    if not (out / RESULT_FILE).is_file():
        return
    result = msgspec.json.decode((out / RESULT_FILE).read_bytes(), type=SweepResult)
    if as_json:
        print_json(result)
        return
    columns = ("trial", "rate", "rank", "references", "least epochs")
    scores = tuple(f"nats at {tokens:,}" for tokens in result.rungs)
    rows = [
        (
            trial.number,
            *_cells(trial.setting),
            *(f"{score:.3f}" for score in trial.scores),
            *("" for _ in result.rungs[len(trial.scores) :]),
            f"{trial.seconds:.0f}",
            "won" if trial.number == result.winner else trial.ended or "under way",
        )
        for trial in result.trials
    ]
    print_table("Trials (0 is the recipe)", (*columns, *scores, "seconds", "end"), rows)
    for sentence in result.words:
        print_message(sentence)
    if result.winner:
        recipe = out / RECIPE_FILE
        print_message(f"train with it: tenantune train --tenant {tenant} --recipe {recipe}")


def _cells(setting: Setting) -> tuple[str, ...]:
    return (
        f"{setting.learning_rate:.2g}",
        str(setting.rank),
        str(setting.references),
        f"{setting.min_epochs:g}",
    )
