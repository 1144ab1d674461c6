"""Tables as CSV that a spreadsheet can open: no cell is taken for a formula."""

import csv
import io
from collections.abc import Iterable, Sequence

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""How a cell begins that a spreadsheet would run."""

Cell = str | int | float | None


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> bytes:
    """A header and a line for each row, as UTF-8 with LF line ends.

    A text that begins like a formula gets an apostrophe before it; None is an empty cell.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(columns)
    lines.writerows([harmless(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def harmless(cell: Cell) -> Cell:
    """A cell that is no formula: with an apostrophe before it where it begins like one."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULAS) else cell
