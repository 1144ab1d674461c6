"""Hermes' form of calls, with arguments in compact JSON, and none that the model did not write.

vLLM's grammar for a call lets any white space stand between the parts of its arguments, and a small
model that may write an empty line may write nothing else until its answer is cut off.
"""

import json
import re
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.tool_parsers.hermes_tool_parser import Hermes2ProToolParser
from xgrammar import Grammar
from xgrammar.structural_tag import GrammarFormat, JSONSchemaFormat

_WHERE = re.compile(r"^\[[\d:]+\] \S+:\d+: ")  # in xgrammar's source


class CompactHermes(Hermes2ProToolParser):  # type: ignore[misc] # vLLM is not followed by mypy
    """vLLM's reader of that form, with another grammar for what it reads."""

    def get_structural_tag(self, request: Any, **options: Any) -> Any:  # noqa: ANN401 - vLLM's types
        """The grammar of calls; raises a refusal where a schema makes no sense."""
        tag = super().get_structural_tag(request, **options)
        for call in () if tag is None else tag.format.tags:
            if isinstance(call.content, JSONSchemaFormat):
                call.content = GrammarFormat(grammar=_compact(call.content.json_schema))
        return tag

    def get_remaining_unstreamed_args(self) -> str:
        """Nothing: all are told as they come. vLLM's own invents "{}" where a call is cut off."""
        return ""

    def _extract_tool_args(self, tc_json: str, is_complete: bool) -> str | None:
        """Arguments as far as they are written; a complete call without any has none: "{}"."""
        found: str | None = super()._extract_tool_args(tc_json, is_complete)
        return "{}" if found is None and is_complete else found


def _compact(schema: dict[str, Any] | bool) -> str:
    try:
        return str(Grammar.from_json_schema(json.dumps(schema), any_whitespace=False))
    except RuntimeError as exc:
        why = _WHERE.sub("", str(exc)).strip()
        raise VLLMValidationError(f"A tool's schema cannot be used: {why}.") from exc
