"""Docstrings as text of the document."""

import inspect
import re

_SECTION = re.compile(r"(?m)^(Args|Returns|Yields|Raises):$")


def markdown(text: str) -> str:
    """A docstring's text in Markdown, which OpenAPI's descriptions are in."""
    return text.replace("``", "`").strip()


def summary_and_description(docstring: str | None) -> tuple[str, str]:
    """(first line without its full stop, the rest without the sections for callers in Python)."""
    lead, _, rest = inspect.cleandoc(docstring or "").partition("\n")
    rest = _SECTION.split(rest, maxsplit=1)[0]
    return markdown(lead).removesuffix("."), markdown(rest)
