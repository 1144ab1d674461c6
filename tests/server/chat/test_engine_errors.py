"""What the engine refuses is told in the caller's words, by the name of the field that is wrong."""

from typing import Any

import pytest

from server.chat.engine_errors import of_limit, of_schema, without_source
from server.chat.schemas import ChatRequest, FieldNames, Function, Sampling, Tools
from server.errors import EngineRejected

# as vLLM 0.32 with xgrammar says it
TYPE = (
    "Failed to transform json schema into a grammar: [19:01:01] "
    '/project/cpp/json_schema_converter.cc:4944: Unsupported type "foo"\n'
)
REFERENCE = (
    "Failed to transform json schema into a grammar: [19:01:01] "
    "/project/cpp/json_schema_converter.cc:4950: Cannot find field $defs in #/$defs/x\n"
)
TOOL = "A tool's schema cannot be used: Cannot find field $defs in #/$defs/x."
FEATURES = "The provided JSON schema contains features not supported by xgrammar."
LIMIT = (
    "max_tokens=100000 cannot be greater than max_model_len=2048. Please request fewer output "
    "tokens."
)
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "foo"}}}
FIELDS = FieldNames(
    limit="max_output_tokens",
    schema="text.format.schema",
    functions={"f": "tools[0].parameters", "g": "tools[1].parameters"},
)


def refused(message: str, *, param: str | None = None) -> EngineRejected:
    return EngineRejected(message, status=400, param=param)


def asked(form: dict[str, Any] | None = None, **schemas: dict[str, Any]) -> ChatRequest:
    functions = tuple(Function(name=name, parameters=one) for name, one in schemas.items())
    return ChatRequest(
        system="",
        messages=(),
        sampling=Sampling(response_format=form),
        tools=Tools(functions=functions) if functions else None,
        fields=FIELDS,
    )


@pytest.mark.parametrize(
    ("message", "request_", "param", "why"),
    [
        (TYPE, asked(FORM), "text.format.schema", 'Unsupported type "foo"'),
        (FEATURES, asked(FORM), "text.format.schema", "it has features that are not supported"),
        (TYPE, asked(f={"type": "foo"}), "tools[0].parameters", 'Unsupported type "foo"'),
        (
            TOOL,
            asked(FORM, f={"type": "object"}, g={"$ref": "#/$defs/x"}),
            "tools[1].parameters",
            "Cannot find field $defs in #/$defs/x",
        ),
        (
            "A tool's schema cannot be used: required must be an array.",
            asked(FORM, f={"required": "a"}),
            "tools[0].parameters",
            "required must be an array",
        ),
        (
            REFERENCE,
            asked(f={"type": "object"}, g={"$ref": "#/$defs/x"}),
            "tools[1].parameters",
            "Cannot find field $defs in #/$defs/x",
        ),
        (
            "A tool's schema cannot be used: required must be an array.",
            asked(f={"required": "a"}, g={"required": "a"}),
            "tools",
            "required must be an array",
        ),
    ],
    ids=[
        "type",
        "features",
        "only-tool",
        "tool-beside-a-form",
        "tool-without-a-word",
        "one-of-tools",
        "some-tool",
    ],
)
def test_a_schema_that_makes_no_sense_is_named(
    message: str, request_: ChatRequest, param: str, why: str
) -> None:
    error = of_schema(refused(message), request_)
    assert error is not None
    assert error.param == param
    assert error.message == f"The schema in '{param}' cannot be used: {why}."


def test_a_limit_above_the_context_is_named_as_the_caller_did() -> None:
    error = of_limit(refused(LIMIT, param="max_tokens"), FIELDS)
    assert error is not None
    assert error.param == "max_output_tokens"
    assert "This model's context has 2048 tokens" in error.message
    assert "max_model_len" not in error.message


def test_other_refusals_are_left_to_others() -> None:
    assert of_schema(refused("no"), asked(FORM)) is None
    assert of_schema(refused(TYPE), asked()) is None
    assert of_limit(refused("max_tokens is odd", param="max_tokens"), FIELDS) is None
    assert without_source("[19:01:01] /a/b.cc:12: Bad\n") == "Bad"
