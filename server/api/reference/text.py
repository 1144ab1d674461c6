"""Docstrings as text of the document."""

import inspect
import re

_SECTION = re.compile(r"(?m)^(Args|Returns|Yields|Raises):$")


def markdown(docstring: str) -> str:
    """A docstring without its indentation, in Markdown, which OpenAPI's descriptions are in."""
    return inspect.cleandoc(docstring).replace("``", "`").strip()


def summary_and_description(docstring: str | None) -> tuple[str, str]:
    """(first line without its full stop, the rest without the sections for callers in Python)."""
    lead, _, rest = markdown(docstring or "").partition("\n")
    return lead.removesuffix("."), _SECTION.split(rest, maxsplit=1)[0].strip()
