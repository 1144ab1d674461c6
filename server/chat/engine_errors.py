"""The engine's refusals in the words of whoever called: which field it was, without the engine's own.

The engine knows neither what the caller's body looks like nor which of several schemas it was.
"""

import re
from collections.abc import Iterator

import msgspec

from server.chat.schemas import ChatRequest, FieldNames
from server.errors import EngineRejected, Invalid

MAX_WORDS = 300
_SOURCE = re.compile(r"(?s).*\[[\d:]+\]\s+\S+:\d+:\s*")  # a time, a file and a line of its compiler
_ABOUT_SCHEMA = re.compile(r"schema|grammar|structural tag", re.IGNORECASE)
_OF_A_TOOL = "A tool's schema"
_PREFIX = re.compile(r"(A tool's schema cannot be used|Failed to transform [^:]*): ")
_FEATURES = re.compile(r"features? not supported by \S+", re.IGNORECASE)
_MENTIONED = re.compile(r'"([^"]+)"|(#[^\s"]*)')
_WHOLE_CONTEXT = re.compile(r"max_model_len\s*=\s*(\d+)")
_LIMITS = ("max_tokens", "max_completion_tokens")


def without_source(message: str) -> str:
    """A message without the place in the engine's own source."""
    return _SOURCE.sub("", message).strip()


def of_limit(exc: EngineRejected, fields: FieldNames) -> Invalid | None:
    """The refusal of an answer's limit that is above the whole context, if it is that."""
    context = _WHOLE_CONTEXT.search(exc.message)
    if exc.param not in _LIMITS or context is None:
        return None
    return Invalid(
        f"This model's context has {context[1]} tokens, for what is read and what is answered "
        f"together: '{fields.limit}' cannot be more than that.",
        param=fields.limit,
    )


def of_schema(exc: EngineRejected, request: ChatRequest) -> Invalid | None:
    """The refusal of a schema that makes no sense, if it is that; names the schema's field."""
    schemas = list(_schemas(request))
    if exc.message.startswith(_OF_A_TOOL):
        schemas = [one for one in schemas if one[0] != request.fields.schema]
    if not schemas or not _ABOUT_SCHEMA.search(exc.message):
        return None
    why = _PREFIX.sub("", without_source(exc.message)).rstrip(".")
    if _FEATURES.search(why):
        why = "it has features that are not supported"
    param = _blamed(schemas, why)
    return Invalid(f"The schema in '{param}' cannot be used: {why[:MAX_WORDS]}.", param=param)


def _schemas(request: ChatRequest) -> Iterator[tuple[str, str]]:
    """(field, text) of each schema that the engine made a grammar of."""
    wanted = request.sampling.response_format or {}
    if "json_schema" in wanted:
        schema = msgspec.json.encode(wanted["json_schema"]["schema"]).decode()
        yield request.fields.schema, schema
    for function in request.tools.functions if request.tools else ():
        if function.parameters is not None:
            field = request.fields.functions.get(function.name, "tools")
            yield field, msgspec.json.encode(function.parameters).decode()


def _blamed(schemas: list[tuple[str, str]], why: str) -> str:
    """The field of the schema that it is about: the first that has in it what the engine quotes."""
    mentioned = [quoted or pointer for quoted, pointer in _MENTIONED.findall(why)]
    if len(schemas) > 1:
        for field, schema in schemas:
            if mentioned and all(word in schema for word in mentioned):
                return field
        if len({field.partition("[")[0] for field, _ in schemas}) == 1:
            return "tools"
    return schemas[0][0]
