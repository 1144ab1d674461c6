"""vLLM's parser of Hermes' tool calls, with compact arguments and no invented ones.

vLLM's grammar for a call allows any white space between the parts of its arguments, and a small
model that may write an empty line may write nothing else until its answer is cut off.
"""

import json
import re
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.tool_parsers.hermes_tool_parser import Hermes2ProToolParser
from xgrammar import Grammar
from xgrammar.structural_tag import GrammarFormat, JSONSchemaFormat

_SOURCE_LINE = re.compile(r"^\[[\d:]+\] \S+:\d+: ")  # of xgrammar, before its message


class CompactHermes(Hermes2ProToolParser):  # type: ignore[misc] # vLLM is not followed by mypy
    """vLLM's parser, with another grammar for the calls that it parses."""

    def get_structural_tag(self, request: Any, **options: Any) -> Any:  # noqa: ANN401 - vLLM's types
        """The grammar of calls; raises VLLMValidationError for a schema that cannot be used."""
        tag = super().get_structural_tag(request, **options)
        for call in () if tag is None else tag.format.tags:
            if isinstance(call.content, JSONSchemaFormat):
                call.content = GrammarFormat(grammar=_compact(call.content.json_schema))
        return tag

    def get_remaining_unstreamed_args(self) -> str:
        """Nothing: all were streamed already. vLLM's own adds "{}" to a call that is cut off."""
        return ""

    def _extract_tool_args(self, tc_json: str, is_complete: bool) -> str | None:
        """Arguments as far as they are written; "{}" for a complete call that has none."""
        found: str | None = super()._extract_tool_args(tc_json, is_complete)
        return "{}" if found is None and is_complete else found


def _compact(schema: dict[str, Any] | bool) -> str:
    try:
        return str(Grammar.from_json_schema(json.dumps(schema), any_whitespace=False))
    except RuntimeError as exc:
        why = _SOURCE_LINE.sub("", str(exc)).strip()
        raise VLLMValidationError(f"A tool's schema cannot be used: {why}.") from exc
