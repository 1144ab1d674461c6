"""What the pages about runs show, as their templates want it: words, figures and curves of services' facts."""

import datetime
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from server.adapters import service as adapters
from server.db.models import Adapter, DatasetVersion, Job, Tenant, now
from server.db.scope import of_tenant
from server.jobs import curve as curves
from server.jobs import history, runs, service
from server.jobs.curve import Curve, CurveReader, Point, Reference
from server.jobs.declared_gates import GateState, GateView, decided_gates, declared_gates
from server.jobs.history import LogLine, Stage
from server.jobs.runs import Compared, Run, Tone
from server.jobs.schemas import FINAL_STATES
from server.jobs.states import PAUSABLE
from server.web.console.figures import duration, number
from server.web.console.plots import Level, Plot, Series, draw

MEASURES = {"loss": "Loss", "speed": "Tokens/s", "memory": "Memory"}
HEADINGS = {"loss": "Loss", "speed": "Tokens a second", "memory": "Memory, GiB"}
VOICES = ("cand", "live", "base", "ink")
"""How runs that are compared are drawn, in their order."""
TABLE_ROWS = 200
_GROWING = frozenset({"queued", "validating", "running", "paused"})
"""States of a run whose curve may go on."""
_GIB = 2**30
_TONES: dict[Tone, str] = {
    "plain": "",
    "going": "cand",
    "live": "live",
    "ok": "ok",
    "warn": "warn",
    "bad": "bad",
}
_GATES: dict[GateState, tuple[str, str]] = {
    "later": ("", "later"),
    "passed": ("ok", "passed"),
    "failed": ("bad", "failed"),
    "open": ("warn", "cannot tell"),
}


class Shown(NamedTuple):
    """All that is read of a run for its page, in one transaction."""

    job: Job
    run: Run
    curve: Curve
    reference: Reference | None
    live: Adapter | None
    adapter: Adapter | None
    dataset: DatasetVersion | None
    stages: list[Stage]
    log: list[LogLine]
    gates: list[GateView]
    left: float | None
    at: datetime.datetime


async def read_run(
    session: AsyncSession, tenant: Tenant, job_id: str, *, reader: CurveReader
) -> Shown:
    """Read what a run's page shows.

    Raises:
        NotFound: no such run, or another tenant's.
    """
    job = await service.get_job(session, tenant.id, job_id)
    (run,) = await runs.get_runs(session, tenant, [job_id])
    mine = of_tenant(tenant.id)
    live = await mine.get(session, Adapter, tenant.live_adapter_id)
    adapter = await adapter_of(session, job)
    curve = await reader.read(session, job)
    events = await history.read_history(session, job)
    stepped = history.stepped_since_resumption(events, curve.step_seq)
    at = now()
    if adapter is not None and adapter.report is not None:
        gates = decided_gates(adapter.report)
    else:
        gates = declared_gates(job, live=live)
    return Shown(
        job=job,
        run=run,
        curve=curve,
        reference=await curves.live_reference(session, job, live),
        live=live,
        adapter=adapter,
        dataset=await mine.get(session, DatasetVersion, job.dataset_id),
        stages=history.read_stages(job, events, declared=len(gates), now=at),
        log=history.read_log(events),
        gates=gates,
        left=history.seconds_left(
            job, stepped=stepped, last_at=curve.last.at if curve.last else 0.0, now=at
        ),
        at=at,
    )


async def adapter_of(session: AsyncSession, job: Job) -> Adapter | None:
    """The version that came of a run; None before there is one, and of one that was deleted."""
    found = await adapters.get_by_ids(session, job.tenant_id, [job.adapter_id])
    adapter = found.get(job.adapter_id)
    return None if adapter is None or adapter.state == "deleted" else adapter


def row_of(run: Run) -> dict[str, Any]:
    """A run as tables show it."""
    return {
        "id": run.id,
        "name": run.name,
        "state": run.state.word,
        "tone": _TONES[run.state.tone],
        "going": run.state.going,
        "recipe": run.recipe,
        "perplexity": None if run.perplexity is None else f"{run.perplexity:.2f}",
        "token_f1": None if run.token_f1 is None else f"{run.token_f1:.2f}",
        "conversations": None if run.conversations is None else number(run.conversations),
        "took": duration(run.seconds) if run.seconds else None,
        "created_at": run.created_at,
        "actor": run.actor,
    }


def best_of(found: Sequence[Run]) -> dict[str, str | None]:
    """The ids of the runs with the lowest perplexity and the highest token F1; of one run, none."""
    measured = [run for run in found if run.perplexity is not None]
    written = [run for run in found if run.token_f1 is not None]
    several = 2
    return {
        "perplexity": min(measured, key=lambda run: run.perplexity or 0.0).id
        if len(measured) >= several
        else None,
        "token_f1": max(written, key=lambda run: run.token_f1 or 0.0).id
        if len(written) >= several
        else None,
    }


def measure_links(chosen: str, more: str = "") -> list[dict[str, Any]]:
    """The links that choose a measure. ``more``: what else their address says."""
    return [
        {"name": name, "href": f"?measure={key}{more}", "current": key == chosen}
        for key, name in MEASURES.items()
    ]


def run_context(shown: Shown, tenant: Tenant, measure: str) -> dict[str, Any]:
    """What the template of a run's page is given, but for people's names."""
    job, curve = shown.job, shown.curve
    total = job.progress.get("steps")
    claim, figures = _sentence(shown, measure)
    going = job.state not in FINAL_STATES
    return {
        "row": row_of(shown.run),
        "job": job,
        "facts": _facts(shown),
        "more_facts": _more_facts(job),
        "stages": [_stage(stage, job) for stage in shown.stages],
        "spoken": _status(shown),
        "measure": measure,
        "measures": measure_links(measure),
        "heading": HEADINGS[measure],
        "now_line": _now_line(shown, measure),
        "plot": _plot(shown, measure, tenant),
        "claim": claim,
        "figures": figures,
        "last_at": _moment(curve.last) if job.state == "running" else None,
        "points": _table(curve),
        "hidden_points": max(0, len(curve.points) - TABLE_ROWS),
        "estimate": _estimate(shown),
        "estimate_basis": (job.estimate or {}).get("basis", ""),
        "gates": _gates(shown),
        "decided": any(gate.state != "later" for gate in shown.gates),
        "log": shown.log,
        "error": _error(job),
        "outcome": service.outcome_of(job),
        "acts": _acts(shown),
        "live_job": shown.live.job_id if shown.live and shown.live.job_id != job.id else None,
        "going": going,
        "data": {
            "data-marks": msgspec.json.encode(
                curves.marks_of(curves.thinned(curve.points))
            ).decode(),
            "data-after": curve.seq,
            "data-measure": measure,
            "data-growing": "1" if job.state in _GROWING else "",
            "data-steps": total or "",
            "data-reference": shown.reference.loss if shown.reference else "",
            "data-reference-name": _live_name(shown.reference, tenant),
            "data-expected": (job.estimate or {}).get("memory_bytes", ""),
            "data-events": f"/console/t/{tenant.slug}/training/{job.id}/events" if going else "",
        },
    }


def _moment(point: Point | None) -> datetime.datetime | None:
    return None if point is None else datetime.datetime.fromtimestamp(point.at, datetime.UTC)


def _live_name(reference: Reference | None, tenant: Tenant) -> str:
    return f"{tenant.slug}{reference.name}, live" if reference else ""


def _facts(shown: Shown) -> list[tuple[str, str]]:
    job = shown.job
    facts = [("Recipe", job.recipe_name), ("Base", job.base)]
    if shown.dataset is not None:
        count = sum(shown.dataset.counts.values())
        facts.append(("Data", f"{count:,} conversations, version {shown.dataset.sha256[:6]}"))
    elif job.progress.get("examples"):
        facts.append(("Data", f"{job.progress['examples']:,} to learn from"))
    method = service.method_of(job)
    if method != "supervised":
        facts.append(("Method", method))
    return facts


def _more_facts(job: Job) -> list[tuple[str, str]]:
    return [("Seed", str(job.seed)), *([("Suffix", job.suffix)] if job.suffix else [])]


def _stage(stage: Stage, job: Job) -> dict[str, Any]:
    state = {"done": "done", "now": "now", "later": "", "failed": "bad"}[stage.progress]
    note = stage.note
    if job.state == "paused" and stage.progress == "now":
        note = f"paused{' at ' + note if note.startswith('step') else ''}"
    elif not note and stage.seconds is not None:
        note = duration(stage.seconds)
    part = None if stage.part is None else round(100 * stage.part)
    return {"name": stage.name, "note": note, "state": state, "part": part}


def _status(shown: Shown) -> str:
    """What a screen reader is told when it changes: the state and, coarsely, how far it is."""
    job = shown.job
    if job.state == "running" and job.progress.get("steps"):
        tenths = int(10 * job.progress["step"] / job.progress["steps"])
        return f"{shown.run.state.word}, {10 * tenths} % done."
    return f"{shown.run.state.word}."


def _now_line(shown: Shown, measure: str) -> list[tuple[str, str]]:
    curve, last = shown.curve, shown.curve.last
    if last is None:
        return []
    line: list[tuple[str, str]] = []
    if measure == "loss":
        unit = "nats a token" if service.method_of(shown.job) == "supervised" else "of the method"
        line.append((number(last.train_loss, 2), f"training, {unit}"))
        if curve.validated:
            newest = curve.validated[-1]
            line.append((number(newest.valid_loss, 2), f"validation, step {newest.step}"))
    elif measure == "speed":
        line.append((number(last.tokens_per_second), "tokens a second"))
        line.append((number(last.tokens), "tokens so far"))
    elif curve.peak_memory_bytes is not None:
        line.append((curves.gib(curve.peak_memory_bytes), "at most so far"))
    if shown.left is not None:
        line.append((duration(shown.left), "left"))
    elif shown.job.state in FINAL_STATES:
        line.append((duration(_training_seconds(shown)), "of training"))
    return line


def _training_seconds(shown: Shown) -> float | None:
    return next(stage.seconds for stage in shown.stages if stage.key == "training")


def _values(curve: Curve, measure: str) -> list[tuple[float, float]]:
    match measure:
        case "speed":
            return [(p.step, p.tokens_per_second) for p in curve.points if p.tokens_per_second]
        case "memory":
            return [(p.step, p.memory_bytes / _GIB) for p in curve.points if p.memory_bytes]
        case _:
            return [(p.step, p.train_loss) for p in curve.points if p.train_loss is not None]


def _plot(shown: Shown, measure: str, tenant: Tenant) -> Plot | None:
    job = shown.job
    thin = msgspec.structs.replace(shown.curve, points=tuple(curves.thinned(shown.curve.points)))
    values = _values(thin, measure)
    series = [Series("training", "cand", values)]
    levels = []
    if measure == "loss":
        validated = [(float(p.step), p.valid_loss or 0.0) for p in thin.validated]
        series.append(Series("validation", "ink", validated, dots=True))
        if shown.reference is not None:
            name = _live_name(shown.reference, tenant)
            levels.append(Level(name, "live", shown.reference.loss))
    elif measure == "memory" and (job.estimate or {}).get("memory_bytes"):
        levels.append(Level("estimate", "base", (job.estimate or {})["memory_bytes"] / _GIB))
    last = values[-1] if values else None
    digits = {"loss": 2, "speed": 0, "memory": 1}[measure]
    return draw(
        series,
        last=float(job.progress.get("steps") or (last[0] if last else 1)),
        levels=levels,
        now=last[0] if last and job.state in _GROWING else None,
        now_text=f"{last[1]:,.{digits}f} now" if last else "",
        level_label=f"{{:.{digits}f}}".format,
    )


def _sentence(shown: Shown, measure: str) -> tuple[str, str]:
    match measure:
        case "speed":
            return curves.speed_sentence(shown.curve)
        case "memory":
            expected = (shown.job.estimate or {}).get("memory_bytes")
            return curves.memory_sentence(shown.curve, expected_bytes=expected)
        case _:
            return curves.loss_sentence(shown.curve, shown.reference)


def _table(curve: Curve) -> list[dict[str, Any]]:
    """The newest points, the last first."""
    return [
        {
            "step": point.step,
            "loss": number(point.train_loss, 3),
            "validation": number(point.valid_loss, 3) if point.valid_loss is not None else "",
            "best": point.best,
            "speed": number(point.tokens_per_second),
            "memory": curves.gib(point.memory_bytes) if point.memory_bytes else "",
        }
        for point in reversed(curve.points[-TABLE_ROWS:])
    ]


def _estimate(shown: Shown) -> list[tuple[str, str, str]]:
    """Rows of (what, the trainer's estimate, what it is now)."""
    told, curve, last = shown.job.estimate or {}, shown.curve, shown.curve.last
    if not told and last is None:
        return []
    spent = _training_seconds(shown)
    whole = None if spent is None or last is None else spent + (shown.left or 0.0)
    speed = told["train_tokens"] / told["seconds"] if told.get("seconds") else None
    expected, peak = told.get("memory_bytes"), curve.peak_memory_bytes
    return [
        ("Training, whole", duration(told.get("seconds")), duration(whole)),
        ("Tokens", number(told.get("train_tokens")), number(last.tokens if last else None)),
        ("Tokens a second", number(speed), number(last.tokens_per_second if last else None)),
        (
            "Memory, most",
            curves.gib(expected) if expected else number(None),
            curves.gib(peak) if peak else number(None),
        ),
    ]


def _gates(shown: Shown) -> list[dict[str, Any]]:
    job = shown.job
    items = []
    for gate in shown.gates:
        state, word = _GATES[gate.state]
        if gate.state == "later" and job.state in FINAL_STATES:
            word = "not reached"
        items.append(
            {
                "name": gate.title,
                "note": gate.evidence,
                "state": state,
                "word": word,
                "icon": None,
            }
        )
    if job.require_approval or job.state == "awaiting_approval" or job.decision is not None:
        state, word = {
            "approved": ("ok", "approved"),
            "rejected": ("bad", "rejected"),
            None: ("", "later"),
        }[job.decision]
        if job.state == "awaiting_approval" and job.decision is None:
            state, word = "warn", "waits"
        note = "an admin of this tenant, on this page"
        items.append(
            {
                "name": "A person approves",
                "note": note,
                "state": state,
                "word": word,
                "icon": "user",
            }
        )
    return items


def _error(job: Job) -> dict[str, str] | None:
    if job.error is None:
        return None
    code = str(job.error.get("code", ""))
    return {
        "message": str(job.error.get("message", "")).removesuffix(".") + ".",
        "advice": history.advice_for(code),
    }


def _acts(shown: Shown) -> dict[str, bool]:
    """What can be done with the run now."""
    job = shown.job
    stopping = runs.stopping_of(job)
    return {
        "pause": job.state in PAUSABLE and stopping is None,
        "resume": job.state == "paused" or stopping == "pause",
        "cancel": job.state not in FINAL_STATES and stopping != "cancel",
        "decide": job.state == "awaiting_approval" and job.decision is None,
        "report": shown.adapter is not None and shown.adapter.report is not None,
    }


def compared_plot(found: Sequence[Compared], measure: str) -> Plot | None:
    """The curves of several runs over each other."""
    series = []
    for voice, each in zip(VOICES, found, strict=False):
        thin = msgspec.structs.replace(each.curve, points=tuple(curves.thinned(each.curve.points)))
        series.append(Series(each.run.name, voice, _values(thin, measure)))
    if measure == "loss":
        for voice, each in zip(VOICES, found, strict=False):
            validated = [(float(p.step), p.valid_loss or 0.0) for p in each.curve.validated]
            series.append(Series("", f"{voice} valid", validated, dots=True))
    steps = [point.step for each in found for point in each.curve.points]
    return draw(series, last=float(max(steps, default=1)))
