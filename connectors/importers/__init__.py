"""The registry of importers. A new format is one module, one fixture and one line here."""

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
from connectors.importers.columns import parse_map
from connectors.importers.csv_table import CsvTable
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
    """The importer called ``name``, or the one that knows the file by its first bytes.

    Raises:
        UnknownFormat: there is none of that name, or none (or several) that knows the file.
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
    hint = ""
    if re.match(r"\s*\[", peek(head)):
        hint = " It is one JSON array; make it lines with: jq -c '.[]' FILE > FILE.jsonl"
    raise UnknownFormat(f"{filename}: no format fits.{hint}\nThere are:\n{known}")
