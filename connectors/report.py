"""The report of an import, for programs and for people."""

import msgspec

from connectors.importers.base import Rejected

EXAMPLES_OF_A_REASON = 10
"""How many records a report names for each reason; all are counted."""


class ImportReport(msgspec.Struct, kw_only=True):
    """What an import kept and what it rejected.

    ``read`` conversations were kept, with ``turns`` turns. Where they were stored, ``stored`` were
    new, ``known`` were there already and ``repeated`` occurred more than once in the file.
    ``renamed`` had an id that was taken (``#2`` was added).

    ``rejected`` records were rejected whole; ``partially_rejected`` counts rejected parts of kept
    records. ``reasons`` counts both by reason, and ``examples`` are the first of each reason, with
    their lines.

    ``roles`` counts turns by role, ``redacted`` counts replaced personal data by entity type.
    ``notes`` say what the importer detected and assumed: ``encoding``, ``columns``, ``roles`` (which
    value is which role), ``dates``, ``order``.
    """

    importer: str
    filename: str = ""
    sha256: str = ""
    size_bytes: int = 0
    read: int = 0
    stored: int = 0
    known: int = 0
    repeated: int = 0
    renamed: int = 0
    turns: int = 0
    rejected: int = 0
    partially_rejected: int = 0
    reasons: dict[str, int] = {}
    examples: list[Rejected] = []
    roles: dict[str, int] = {}
    redacted: dict[str, int] = {}
    notes: dict[str, str] = {}


def render_table(report: ImportReport) -> str:
    """The report as plain text; ends with a newline."""
    rows = [("read as", report.importer), *report.notes.items()]
    if report.filename:
        name = f"{report.filename} ({report.size_bytes:,} bytes, sha256 {report.sha256[:12]})"
        rows.insert(0, ("file", name))
    rows.append(("kept", f"{report.read:,} conversations, {report.turns:,} turns"))
    if report.roles:
        rows.append(("turns of", _listed(report.roles)))
    if report.stored or report.known or report.repeated:
        stored = f"{report.stored:,} new, {report.known:,} known, {report.repeated:,} repeated"
        rows.append(("stored", stored))
    rows += [
        ("redacted", _listed(report.redacted) or "nothing"),
        (
            "rejected",
            f"{report.rejected:,} records, {report.partially_rejected:,} parts of kept ones",
        ),
    ]
    if report.reasons:
        rows.append(("because", _listed(report.reasons)))
    if report.renamed:
        rows.append(("renamed", f"{report.renamed:,} conversations whose id was taken"))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    if report.examples:
        lines += ["", *_examples(report)]
    return "\n".join(lines) + "\n"


def _examples(report: ImportReport) -> list[str]:
    width = max(len("reason"), *(len(item.reason) for item in report.examples))
    lines = [f"{'line':>8}  {'reason':<{width}}  detail"]
    lines += [f"{item.line:>8}  {item.reason:<{width}}  {item.detail}" for item in report.examples]
    more = sum(report.reasons.values()) - len(report.examples)
    return [*lines, f"{'':>8}  and {more:,} more"] if more > 0 else lines


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
