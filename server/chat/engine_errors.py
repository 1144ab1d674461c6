"""The engine's errors in the caller's terms: which field is wrong, and nothing of its internals.

The engine knows neither what the caller's body looks like nor which of several schemas is wrong.
What only the operator may read is logged.
"""

import re
from collections.abc import Iterator

import msgspec
import structlog

from server.adapters.schemas import Resolved
from server.chat.completions import TextRequest
from server.chat.schemas import ChatRequest, FieldNames
from server.chat.truncation import CLIENT_ERRORS, is_too_long
from server.errors import AdapterRefused, EngineRejected, EngineUnavailable, Invalid, ServerError

log = structlog.get_logger(__name__)

MAX_CHARACTERS = 300  # of what the engine says about a schema
MAX_MESSAGE_CHARACTERS = 1000  # of any other refusal: a longer one is not shown
HIDDEN_CHARACTERS = 40  # a message with the beginning of the model's system prompt is not shown
_SOURCE = re.compile(r"(?s).*\[[\d:]+\]\s+\S+:\d+:\s*")  # a time, a file and a line of its compiler
_ABOUT_SCHEMA = re.compile(r"schema|grammar|structural tag", re.IGNORECASE)
_OF_A_TOOL = "A tool's schema"
_PREFIX = re.compile(r"(A tool's schema cannot be used|Failed to transform [^:]*): ")
_FEATURES = re.compile(r"features? not supported by \S+", re.IGNORECASE)
_MENTIONED = re.compile(r'"([^"]+)"|(#[^\s"]*)')
_WHOLE_CONTEXT = re.compile(r"max_model_len\s*=\s*(\d+)")
_LIMITS = ("max_tokens", "max_completion_tokens")


def for_caller(
    exc: EngineRejected | AdapterRefused, request: ChatRequest | TextRequest, resolved: Resolved
) -> ServerError:
    """The error that the caller gets for what the engine rejected."""
    if isinstance(exc, AdapterRefused):
        log.error("adapter was refused", model=resolved.model, reason=exc.message)
        return AdapterRefused(
            f"The model '{resolved.model}' cannot be loaded. The operator's log says why."
        )
    if is_too_long(exc):
        param = "messages" if isinstance(request, ChatRequest) else "prompt"
        return Invalid(exc.message, param=param, code="context_length_exceeded")
    if exc.status not in CLIENT_ERRORS:
        log.error("engine refused", model=resolved.model, status=exc.status, reason=exc.message)
        return EngineUnavailable("the engine does not know the model", retry_after_seconds=5.0)
    named = of_limit(exc, request.fields if isinstance(request, ChatRequest) else FieldNames())
    if named is None and isinstance(request, ChatRequest):
        named = of_schema(exc, request)
    if named is not None:
        return named
    hidden = resolved.system_prompt[:HIDDEN_CHARACTERS]
    message = without_source(exc.message)
    if len(message) > MAX_MESSAGE_CHARACTERS or (hidden and hidden in message):
        message = "The engine refused the request."
    return Invalid(message, param=exc.param, code=exc.code)


def without_source(message: str) -> str:
    """A message without the file and line of the engine's own source."""
    return _SOURCE.sub("", message).strip()


def of_limit(exc: EngineRejected, fields: FieldNames) -> Invalid | None:
    """The error for a limit of the answer above the whole context; None for anything else."""
    context = _WHOLE_CONTEXT.search(exc.message)
    if exc.param not in _LIMITS or context is None:
        return None
    return Invalid(
        f"This model's context has {context[1]} tokens, for what is read and what is answered "
        f"together: '{fields.limit}' cannot be more than that.",
        param=fields.limit,
    )


def of_schema(exc: EngineRejected, request: ChatRequest) -> Invalid | None:
    """The error for a schema that the engine cannot use; None for anything else."""
    schemas = list(_schemas(request))
    if exc.message.startswith(_OF_A_TOOL):
        schemas = [one for one in schemas if one[0] != request.fields.schema]
    if not schemas or not _ABOUT_SCHEMA.search(exc.message):
        return None
    why = _PREFIX.sub("", without_source(exc.message)).rstrip(".")
    if _FEATURES.search(why):
        why = "it has features that are not supported"
    param = _blamed(schemas, why)
    return Invalid(f"The schema in '{param}' cannot be used: {why[:MAX_CHARACTERS]}.", param=param)


def _schemas(request: ChatRequest) -> Iterator[tuple[str, str]]:
    """(field, text) of each schema that the engine compiled to a grammar."""
    wanted = request.sampling.response_format or {}
    if "json_schema" in wanted:
        schema = msgspec.json.encode(wanted["json_schema"]["schema"]).decode()
        yield request.fields.schema, schema
    for function in request.tools.functions if request.tools else ():
        if function.parameters is not None:
            field = request.fields.functions.get(function.name, "tools")
            yield field, msgspec.json.encode(function.parameters).decode()


def _blamed(schemas: list[tuple[str, str]], why: str) -> str:
    """The field of the schema that is wrong: the first that contains what the engine quotes."""
    mentioned = [quoted or pointer for quoted, pointer in _MENTIONED.findall(why)]
    if len(schemas) > 1:
        for field, schema in schemas:
            if mentioned and all(word in schema for word in mentioned):
                return field
        if len({field.partition("[")[0] for field, _ in schemas}) == 1:
            return "tools"
    return schemas[0][0]
