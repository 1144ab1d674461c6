"""Docstrings as people read them."""

import inspect
import re

_SECTION = re.compile(r"(?m)^(Args|Returns|Yields|Raises):$")


def markdown(text: str) -> str:
    """A docstring's text in Markdown, which OpenAPI's descriptions are in."""
    return text.replace("``", "`").strip()


def summary_and_description(docstring: str | None) -> tuple[str, str]:
    """(first line without its full stop, the rest without what only callers in Python need)."""
    lead, _, rest = inspect.cleandoc(docstring or "").partition("\n")
    rest = _SECTION.split(rest, maxsplit=1)[0]
    return markdown(lead).removesuffix("."), markdown(rest)
