"""The proof of an adapter in one place: for a terminal, as JSON, and as one HTML page."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.table import Table

from training.artifact import read_manifest
from training.base_model import BaseModel
from training.dataset import load as load_dataset
from training.evaluation import Evaluation, Parity, Scores
from training.gates import Verdict, judge
from training.progress import Event, StepEvent, ValidationEvent, parse
from training.spec import Objectives

CHART_WIDTH, CHART_HEIGHT, CHART_MARGIN = 640, 220, 34
MAX_POINTS = 400


class CurvePoint(msgspec.Struct, frozen=True):
    """A loss, nats per assistant token, after ``step`` steps."""

    step: int
    loss: float


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What the adapter was made of; ``tokens`` were trained on, in ``seconds``."""

    base: str
    base_sha256: str
    base_parameters: int
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


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that speaks for or against an adapter. ``version`` is 0 until it has one."""

    tenant: str
    version: int
    evaluation: Evaluation
    parity: Parity | None
    verdict: Verdict
    training_curve: list[CurvePoint]
    validation_curve: list[CurvePoint]
    provenance: Provenance
    made_at: str


def build_report(
    job_folder: Path,
    *,
    tenant: str,
    dataset_folder: Path,
    base: BaseModel,
    objectives: Objectives,
) -> Report:
    """Collect what a run left in its folder, and apply the gates.

    ``parity_result.json`` may be missing, which fails its gate.

    Raises:
        ArtifactError: the adapter's manifest cannot be read.
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
        verdict=judge(evaluation, parity, objectives),
        training_curve=training,
        validation_curve=validation,
        provenance=Provenance(
            base=base.name,
            base_sha256=base.serving_sha256,
            base_parameters=base.parameters,
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
        ),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def read_curves(path: Path) -> tuple[list[CurvePoint], list[CurvePoint]]:
    """(training, validation) losses of an ``events.jsonl``; a repeated step counts as its last."""
    steps: dict[int, float] = {}
    validations: dict[int, float] = {}
    with path.open("rb") as lines:
        for line in lines:
            event: Event | None = parse(line)
            if isinstance(event, StepEvent):
                steps[event.step] = event.loss
            elif isinstance(event, ValidationEvent):
                validations[event.step] = event.loss
    return _points(steps), _points(validations)


def _points(losses: dict[int, float]) -> list[CurvePoint]:
    stride = max(1, len(losses) // MAX_POINTS)
    return [CurvePoint(step, losses[step]) for step in sorted(losses)][::stride]


ROWS: tuple[tuple[str, str, str], ...] = (
    ("perplexity", "Perplexity of held-out replies (lower is better)", "{:.2f}"),
    ("exact", "Replies just like the agent's", "{:.0%}"),
    ("token_f1", "Words shared with the agent's reply (F1)", "{:.2f}"),
    ("similarity", "Same meaning as the agent's reply (cosine)", "{:.2f}"),
)


def score_rows(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """(column names, rows of text) of the table of scores."""
    subjects: list[tuple[str, Scores]] = [("base", evaluation.base), ("new", evaluation.new)]
    if evaluation.live is not None:
        subjects.append(("live", evaluation.live))
    subjects.append(("lookup", evaluation.lookup))
    rows = []
    for field, title, form in ROWS:
        values = [getattr(scores, field) for _, scores in subjects]
        rows.append([title, *("-" if value is None else form.format(value) for value in values)])
    return [name for name, _ in subjects], rows


def print_scores(evaluation: Evaluation, console: Console | None = None) -> None:
    """The scores as a table on a terminal."""
    columns, rows = score_rows(evaluation)
    table = Table(title="Scores on held-out conversations", title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    console = console or Console()
    console.print(table)
    console.print(
        f"{evaluation.new.replies} replies and {evaluation.new.tokens:,} tokens of "
        f"{evaluation.conversations} conversations; lookup: the reply that followed the nearest "
        "training question, no model at all",
        highlight=False,
    )


def render_terminal(report: Report, console: Console | None = None) -> None:
    """The whole report on a terminal."""
    console = console or Console()
    mark = "[green]passed[/]" if report.verdict.passed else "[red]did not pass[/]"
    version = f" version {report.version}" if report.version else ""
    console.print(f"[bold]{report.tenant}[/]{version}: {mark}")
    print_scores(report.evaluation, console)
    for gate in report.verdict.gates:
        console.print(("  ok  " if gate.passed else "  NO  ") + gate.why, highlight=False)
    made = report.provenance
    console.print(
        f"{made.tokens:,} tokens in {made.steps} steps and {made.seconds:.0f} s on {made.base} "
        f"({made.recipe}, rank {made.rank}, seed {made.seed})",
        highlight=False,
    )


def to_json(report: Report) -> str:
    """The report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A loss curve as SVG coordinates; ticks are (position, text)."""

    training: str
    validation: str
    validation_dots: list[tuple[float, float, str]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def chart(training: Sequence[CurvePoint], validation: Sequence[CurvePoint]) -> Chart | None:
    """Lay the curves out; None where there is nothing to draw."""
    every = [*training, *validation]
    if not every:
        return None
    last = max(1, *(point.step for point in every))
    top = max(point.loss for point in every) * 1.05 or 1.0

    def x(step: float) -> float:
        return round(CHART_MARGIN + step / last * (CHART_WIDTH - CHART_MARGIN - 8), 1)

    def y(loss: float) -> float:
        return round(8 + (1 - loss / top) * (CHART_HEIGHT - CHART_MARGIN - 8), 1)

    def line(points: Sequence[CurvePoint]) -> str:
        return " ".join(f"{x(point.step)},{y(point.loss)}" for point in points)

    return Chart(
        training=line(training),
        validation=line(validation),
        validation_dots=[(x(p.step), y(p.loss), f"{p.loss:.3f}") for p in validation],
        x_ticks=[(x(last * part / 4), f"{last * part / 4:.0f}") for part in range(5)],
        y_ticks=[(y(top * part / 4), f"{top * part / 4:.1f}") for part in range(5)],
    )


_templates = Environment(
    loader=PackageLoader("training", "templates"), autoescape=True, undefined=StrictUndefined
)


def render_html(report: Report) -> str:
    """One self-contained page: no script, no other file, light and dark."""
    columns, rows = score_rows(report.evaluation)
    return _templates.get_template("report.html.j2").render(
        report=report,
        columns=columns,
        rows=rows,
        chart=chart(report.training_curve, report.validation_curve),
        width=CHART_WIDTH,
        height=CHART_HEIGHT,
        margin=CHART_MARGIN,
    )
