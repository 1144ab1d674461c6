"""The report about an adapter: for a terminal, as JSON, and as one HTML page."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.adapters.package import WEIGHTS_NAME, Foreign, KnowledgeRef, read_manifest
from training.adapters.safetensors_io import parameter_count
from training.base_models.manifest import BaseModel
from training.config import Method, Objectives
from training.data.dataset import load as load_dataset
from training.evaluation.gates import Verdict, apply_gates
from training.evaluation.verdicts import Comparison, Result, comparisons_of
from training.reports.learning_curve import (
    CONTROL_COLUMNS,
    control_findings,
    control_rows,
    learning_curve,
)
from training.reports.loss_curve import CurvePoint, chart, read_curves
from training.reports.tables import SUBJECTS, TITLES, difference_rows, findings, score_rows
from training.results import CONTROLS_FILE, Controls, Evaluation, Parity, languages_of_topics

__all__ = [
    "CurvePoint",
    "Provenance",
    "Report",
    "build_report",
    "print_controls",
    "print_scores",
    "render_html",
    "render_terminal",
    "to_json",
]


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What the adapter was made of, and how.

    ``parameters``: trained ones, of the adapter; ``base_parameters`` were not trained. ``tokens``
    and ``seconds``: of training. ``started_from``: the adapter that training started from.
    ``foreign``: it was trained elsewhere; ``recipe`` then only says how it was evaluated.
    ``knowledge``: the articles that it was trained and evaluated with.
    """

    base: str
    base_sha256: str
    base_parameters: int
    parameters: int = 0
    dataset_sha256: str
    conversations: dict[str, int]
    dropped: dict[str, int]
    recipe: str
    seed: int
    rank: int
    tokens: int
    steps: int
    seconds: float
    stopped: str
    packages: dict[str, str]
    computed_in: tuple[str, ...] = ()
    method: Method = "supervised"
    started_from: str | None = None
    foreign: Foreign | None = None
    knowledge: KnowledgeRef | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All the evidence about an adapter. ``version`` is 0 until it has one.

    ``comparisons``: a verdict on each difference to another subject, with how much data would tell where
    it cannot; empty in reports from before there were such.
    ``controls``: None where they were not asked for.
    """

    tenant: str
    version: int
    evaluation: Evaluation
    parity: Parity | None
    verdict: Verdict
    training_curve: list[CurvePoint]
    validation_curve: list[CurvePoint]
    provenance: Provenance
    made_at: str
    comparisons: tuple[Comparison, ...] = ()
    controls: Controls | None = None


def build_report(
    job_folder: Path,
    *,
    tenant: str,
    dataset_folder: Path,
    base: BaseModel,
    objectives: Objectives,
) -> Report:
    """Collect the results in a run's folder, and apply the gates.

    Without a ``parity_result.json`` the gate of parity fails.

    Raises:
        ArtifactError: the adapter's manifest or weights cannot be read.
        BadInput: the dataset is not whole.
        OSError: the evaluation is missing.
    """
    evaluation = msgspec.json.decode((job_folder / "evaluation.json").read_bytes(), type=Evaluation)
    parity_path = job_folder / "parity_result.json"
    parity = None
    if parity_path.is_file():
        parity = msgspec.json.decode(parity_path.read_bytes(), type=Parity)
    manifest = read_manifest(job_folder / "adapter")
    dataset = load_dataset(dataset_folder).manifest
    training, validation = read_curves(job_folder / "events.jsonl")
    summary = manifest.training
    return Report(
        tenant=tenant,
        version=0,
        evaluation=evaluation,
        parity=parity,
        verdict=apply_gates(evaluation, parity, objectives),
        training_curve=training,
        validation_curve=validation,
        provenance=Provenance(
            base=base.name,
            base_sha256=base.serving_sha256,
            base_parameters=base.parameters,
            parameters=parameter_count(job_folder / "adapter" / WEIGHTS_NAME),
            dataset_sha256=manifest.dataset_sha256,
            conversations={str(split): count for split, count in dataset.counts.items()},
            dropped={reason: count for reason, count in dataset.dropped.items() if count},
            recipe=manifest.recipe.name,
            seed=manifest.seed,
            rank=manifest.lora.rank,
            tokens=summary.tokens if summary else 0,
            steps=summary.steps if summary else 0,
            seconds=summary.seconds if summary else 0.0,
            stopped=summary.stopped if summary else "",
            packages=manifest.packages,
            computed_in=summary.computed_in if summary else (),
            method=manifest.method,
            started_from=manifest.started_from,
            foreign=manifest.foreign,
            knowledge=manifest.knowledge,
        ),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        comparisons=comparisons_of(evaluation),
        controls=read_controls(job_folder / CONTROLS_FILE),
    )


def read_controls(path: Path) -> Controls | None:
    """What `training.controls.measure` left in a file; None where there is none."""
    return msgspec.json.decode(path.read_bytes(), type=Controls) if path.is_file() else None


_COLOURS: dict[Result, str] = {"better": "green", "worse": "red", "cannot_tell": "yellow"}


def headline(verdict: Verdict) -> str:
    """The verdict in one line."""
    if verdict.unsafe:
        return "Unsafe: must not be served"
    if verdict.passed:
        return "Passed: may answer customers"
    found = sum(gate.result == verdict.result for gate in verdict.gates)
    count = f"{found} of {len(verdict.gates)} gates"
    if verdict.result == "worse":
        return f"Not promoted: {count} {'says' if found == 1 else 'say'} worse"
    return f"Waits for a person: {count} cannot tell with this much data"


def print_scores(evaluation: Evaluation, console: Console | None = None) -> None:
    """Print the scores as a table, with what they show and do not show."""
    console = console or Console()
    columns, rows = score_rows(evaluation)
    table = Table(title="Scores on held-out conversations", title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        cells = [f"[bold]{c.text}[/]" if c.best else c.text for c in row.cells]
        table.add_row(f"{row.title} [dim]({row.hint})[/]", *cells)
    console.print(table)
    for finding in findings(evaluation):
        console.print(f"  {escape(finding)}", highlight=False)
    for note in evaluation.notes:
        console.print(f"  [dim]{escape(note)}[/]", highlight=False)


def print_controls(controls: Controls, console: Console | None = None) -> None:
    """Print what a version is held against, and what it shows."""
    console = console or Console()
    table = Table(title="Trained on as many tokens", title_justify="left")
    table.add_column("")
    for column in CONTROL_COLUMNS:
        table.add_column(column, justify="right")
    for row in control_rows(controls):
        table.add_row(*msgspec.structs.astuple(row))
    console.print(table)
    for finding in control_findings(controls):
        console.print(f"  {escape(finding)}", highlight=False)


def render_terminal(report: Report, console: Console | None = None) -> None:
    """Print the whole report."""
    console = console or Console()
    colour = _COLOURS[report.verdict.result or "worse"]
    version = f" version {report.version}" if report.version else ""
    console.print(
        f"[bold]{escape(report.tenant)}[/]{version}: [{colour}]{headline(report.verdict)}[/]"
    )
    for gate in report.verdict.gates:
        colour = _COLOURS[gate.result or "worse"]
        console.print(f"  [{colour}]{gate.label:>11}[/]  {escape(gate.why)}", highlight=False)
    print_scores(report.evaluation, console)
    if report.controls is not None:
        print_controls(report.controls, console)
    made = report.provenance
    if made.knowledge is not None:
        console.print(
            f"  with {made.knowledge.pieces:,} pieces of articles ({made.knowledge.sha256[:12]})",
            highlight=False,
        )
    if made.foreign is not None:
        console.print(
            f"  foreign: {escape(made.foreign.source)}, trained elsewhere", highlight=False
        )
        for note in made.foreign.notes:
            console.print(f"  [dim]{escape(note)}[/]", highlight=False)
        return
    console.print(
        f"  {made.tokens:,} tokens in {made.steps} steps and {made.seconds:.0f} s on {made.base} "
        f"({made.method}, {made.recipe}, rank {made.rank}, seed {made.seed}"
        f"{', in ' + ' and '.join(made.computed_in) if made.computed_in else ''})",
        highlight=False,
    )


def to_json(report: Report) -> str:
    """The report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


_templates = Environment(
    loader=PackageLoader("training.reports", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_html(report: Report) -> str:
    """One self-contained page: no script, no other file, light and dark, from 360 px wide.

    The customers' texts are escaped.
    """
    columns, rows = score_rows(report.evaluation)
    return _templates.get_template("report.html.j2").render(
        report=report,
        heading=headline(report.verdict),
        columns=columns,
        rows=rows,
        findings=findings(report.evaluation),
        differences=difference_rows(report.evaluation),
        topic_languages=languages_of_topics(report.evaluation.topics),
        subjects={TITLES[name]: what for name, what in SUBJECTS.items()},
        chart=chart(report.training_curve, report.validation_curve),
        controls=control_rows(report.controls) if report.controls else [],
        control_columns=CONTROL_COLUMNS,
        control_findings=control_findings(report.controls) if report.controls else [],
        learning_curve=learning_curve(report.controls) if report.controls else None,
    )
