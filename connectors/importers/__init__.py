"""The registry of importers. A new format is one module, one fixture and one line here (see ``Importer``)."""

import re

from connectors.errors import UnknownFormat
from connectors.importers.base import (
    Importer,
    ImportOptions,
    Note,
    Reason,
    Rejected,
    ignore_note,
)
from connectors.importers.csv.columns import parse_map
from connectors.importers.csv.table import CsvTable
from connectors.importers.decode import peek
from connectors.importers.openai import OpenAIMessages
from connectors.importers.sharegpt import ShareGpt
from connectors.importers.tenantune import Tenantune

__all__ = [
    "HEAD_BYTES",
    "IMPORTERS",
    "ImportOptions",
    "Importer",
    "Note",
    "Reason",
    "Rejected",
    "choose",
    "ignore_note",
    "parse_map",
]

HEAD_BYTES = 64 * 1024

IMPORTERS: dict[str, Importer] = {
    importer.name: importer for importer in (OpenAIMessages(), ShareGpt(), Tenantune(), CsvTable())
}


def choose(head: bytes, filename: str, *, name: str | None = None) -> Importer:
    """The importer called ``name``, or the one that recognizes the file by its first bytes.

    For example::

        choose(head, "export.csv")  # the one whose ``sniff`` accepts the file
        choose(head, "export.csv", name="openai")

    Args:
        head: The first ``HEAD_BYTES`` of the file, or all of it.
        filename: Only a hint: most formats are recognized by content alone.
        name: A key of ``IMPORTERS``.

    Raises:
        UnknownFormat: no importer has that name, or none or several recognize the file.
    """
    known = "\n".join(f"  {each.name}: {each.description}" for each in IMPORTERS.values())
    if name is not None:
        if name not in IMPORTERS:
            raise UnknownFormat(f"no importer {name!r}; there are:\n{known}")
        return IMPORTERS[name]
    fitting = [importer for importer in IMPORTERS.values() if importer.sniff(head, filename)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(importer.name for importer in fitting)
        raise UnknownFormat(f"{filename}: several formats fit ({names}); name one of them")
    raise UnknownFormat(f"{filename}: no format fits.{_hint(head)}\nThere are:\n{known}")


# Files that are often uploaded and are no transcripts, by their beginning, and what to do instead.
_TABLE = "make it a table (CSV) with the columns conversation, role, text, time"
_OTHER_FORMATS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"[\W_]*\d{1,4}[./-]\s?\d{1,2}[./-]\s?\d{2,4},?\s+[^\n]{0,12}?\d{1,2}[:.]\d\d[^\n]{0,16}?"
            r"(?:\]|\s[-\u2013])\s[^\n]{1,80}"
        ),
        "It looks like a WhatsApp chat, which does not say who is the agent: " + _TABLE + ".",
    ),
    (
        re.compile(r"PK\x03\x04"),
        "It is a zip archive or an Excel workbook: unpack it, or save it as CSV.",
    ),
    (re.compile("\xd0\xcf\x11\xe0"), "It is an old Excel workbook: save it as CSV."),
    (re.compile(r"%PDF-"), f"It is a PDF: {_TABLE}."),
    (
        re.compile(r"\s*<(?:!doctype|html|\?xml|[a-z][\w:-]*[\s>])", re.IGNORECASE),
        f"It is HTML or XML: {_TABLE}.",
    ),
    (
        re.compile(r"From \S+ .*\d{4}\n|(?:[A-Z][\w-]*: .*\n){3}"),
        f"It looks like e-mail: {_TABLE}.",
    ),
    (
        re.compile(r"\s*[\[{]"),
        'It is JSON, but none of its first records holds a list "messages", "conversations" or '
        "\"turns\"; if they lie deeper in it, get them out with: jq -c '.[]' FILE > FILE.jsonl",
    ),
)


def _hint(head: bytes) -> str:
    """What a file that no importer recognizes seems to be."""
    packed = head[:4].decode("latin-1")
    text = _INVISIBLE.sub("", peek(head))
    for pattern, hint in _OTHER_FORMATS:
        if pattern.match(packed) or pattern.match(text):
            return f" {hint}"
    return ""


_INVISIBLE = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
