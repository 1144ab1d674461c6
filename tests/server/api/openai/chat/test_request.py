"""What is refused before it reaches the engine, and in which words."""

import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from server.api.openai.chat.request import UNSUPPORTED, parse, to_chat
from server.chat.schemas import CalledFunction, ChatRequest, Function, Sampling, ToolCall, Tools
from server.errors import Invalid

TEXT = {"role": "user", "content": "hi"}


def tool(name: str = "f", **fields: Any) -> dict[str, Any]:
    """A function, as OpenAI's clients send it."""
    return {"type": "function", "function": {"name": name, **fields}}


def allowed(*names: str, mode: str = "auto") -> dict[str, Any]:
    """A choice that leaves these tools."""
    return {
        "type": "allowed_tools",
        "allowed_tools": {"mode": mode, "tools": [tool(name) for name in names]},
    }


TOOL = tool()
Explain = Callable[[dict[str, Any]], Invalid]


@pytest.fixture
def body_error() -> Explain:
    """What is said about a body that is good but for the given fields."""

    def explain(fields: dict[str, Any]) -> Invalid:
        good = {"model": "acme", "messages": [TEXT]}
        with pytest.raises(Invalid) as refused:
            to_chat(parse(json.dumps(good | fields).encode()))
        return refused.value

    return explain


ENGINE_ONLY = [
    "add_generation_prompt", "allowed_token_ids", "cache_salt", "chat_template",
    "chat_template_kwargs", "continue_final_message", "documents", "echo", "guided_json",
    "ignore_eos", "kv_transfer_params", "min_tokens", "priority", "prompt_embeds",
    "prompt_logprobs", "repetition_penalty", "request_id", "return_prompt_text",
    "return_token_ids", "structured_outputs", "top_k", "truncate_prompt_tokens",
    "use_beam_search", "vllm_xargs",
]  # fmt: skip


@pytest.mark.parametrize("field", [*ENGINE_ONLY, "anything"])
def test_a_field_of_the_engines_own_is_refused_by_name(body_error: Explain, field: str) -> None:
    error = body_error({field: 1})
    assert (error.param, error.code) == (field, "unknown_parameter")


@pytest.mark.parametrize("field", sorted(UNSUPPORTED))
def test_a_field_that_is_not_supported_is_refused_by_name(body_error: Explain, field: str) -> None:
    error = body_error({field: {"something": 1}})
    assert (error.param, error.code) == (field, "unsupported_parameter")


def call_of(**fields: Any) -> dict[str, Any]:
    """An earlier call, as OpenAI's clients send it back."""
    function = {"name": "f", "arguments": "{}", **fields}
    return {"id": "c1", "type": "function", "function": function}


CALL = call_of()
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [TEXT] * 1001}, "messages"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
    ({"messages": [TEXT, {"role": "user"}]}, "messages[1].content"),
    ({"messages": [TEXT, {"role": "tool", "content": "4"}]}, "messages[1].tool_call_id"),
    ({"messages": [{**TEXT, "prefix": True}]}, "messages[0].prefix"),
    ({"messages": [{"role": "user", "content": "x" * 1_000_001}]}, "messages"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0].image_url.url",
    ),
    ({"messages": [{**TEXT, "content": []}]}, "messages[0].content"),
    ({"messages": [{**TEXT, "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    (
        {"messages": [{**TEXT, "content": [{"type": "text", "text": "x", "refusal": "y"}]}]},
        "messages[0].content[0].refusal",
    ),
    (
        {"messages": [{**TEXT, "content": [{"type": "text", "text": "x", "cache_control": {}}]}]},
        "messages[0].content[0].cache_control",
    ),
    ({"messages": [{**TEXT, "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
    ({"messages": [{**TEXT, "tool_call_id": "c1"}]}, "messages[0].tool_call_id"),
    ({"messages": [{**TEXT, "refusal": "No."}]}, "messages[0].refusal"),
    (
        {"messages": [TEXT, {"role": "assistant", "tool_calls": [{**CALL, "x": 1}]}]},
        "messages[1].tool_calls[0].x",
    ),
    (
        {"messages": [TEXT, {"role": "assistant", "tool_calls": [call_of(x=1)]}]},
        "messages[1].tool_calls[0].function.x",
    ),
    ({"tools": None, "anything": None}, "anything"),
    ({"model": ""}, "model"),
    ({"model": None}, "model"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "warm"}, "temperature"),
    ({"top_p": -1}, "top_p"),
    ({"n": 9}, "n"),
    ({"n": 2, "temperature": 0}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"stop": "x" * 257}, "stop"),
    ({"seed": 1 << 70}, "seed"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logit_bias": {"5": 101}}, "logit_bias[...]"),
    ({"logit_bias": {str(i): 1 for i in range(301)}}, "logit_bias"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"continuous": 1}}, "stream_options.continuous"),
    ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
    ({"metadata": {"j": "x" * 512, "k": "x" * 513}}, "metadata.k"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"store": 1}, "store"),
    ({"service_tier": "priority"}, "service_tier"),
    ({"prompt_cache_retention": "24h"}, "prompt_cache_retention"),
    ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"verbosity": "low"}, "verbosity"),
    ({"modalities": ["audio"]}, "modalities"),
    (
        {"messages": [TEXT, {"role": "tool", "content": "4", "tool_call_id": "c"}]},
        "messages[1].tool_call_id",
    ),
    ({"messages": [{"role": "function", "name": "f", "content": "4"}]}, "messages[0].role"),
    (
        {"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": "No."}]}]},
        "messages[0].content[0]",
    ),
    ({"tools": []}, "tools"),
    ({"tools": [TOOL] * 129}, "tools"),
    ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
    ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "url": "x"}}]},
        "tools[0].function.url",
    ),
    ({"tools": [tool(parameters=[])]}, "tools[0].function.parameters"),
    ({"tools": [tool(parameters={"$ref": "file:///etc/passwd"})]}, "tools[0].function.parameters"),
    (
        {"tools": [tool(strict=True, parameters={"pattern": "(a{999}){999}"})]},
        "tools[0].function.parameters",
    ),
    ({"tools": [tool(f"f{i}", parameters={"enum": ["x" * 30_000]}) for i in range(3)]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.function"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "tool_choice.function.name",
    ),
    ({"tools": [TOOL], "tool_choice": allowed("g")}, "tool_choice.allowed_tools"),
    ({"tools": [TOOL], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ({"response_format": {"type": "grammar"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        {"response_format": {"type": "text", "json_schema": {"name": "x"}}},
        "response_format.json_schema",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
        "response_format.json_schema.name",
    ),
]


@pytest.mark.parametrize(
    ("fields", "param"), WRONG, ids=[f"{place}-{param}" for place, (_, param) in enumerate(WRONG)]
)
def test_a_value_out_of_bounds_is_refused_by_name(
    body_error: Explain, fields: dict[str, Any], param: str
) -> None:
    error = body_error(fields)
    assert error.param == param
    assert error.code is None or isinstance(error.code, str)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema, "maxItems": 50}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        [],
        {"enum": ["x" * 40_000]},
        nested(40),
        nested(3),
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a{999}){999}"}}},
        {"patternProperties": {".*": {}}},
        {"$ref": "file:///etc/passwd"},
        {"enum": list(range(3000))},
    ],
    ids=["list", "large", "deep", "counts", "pattern", "patterns", "elsewhere", "many"],
)
def test_a_schema_that_could_stall_the_engine_is_refused(body_error: Explain, schema: Any) -> None:
    named = {"name": "x", "strict": True, "schema": schema}
    wanted = {"type": "json_schema", "json_schema": named}
    assert body_error({"response_format": wanted}).param == "response_format.json_schema.schema"


def an_object(**properties: Any) -> dict[str, Any]:
    """An object that must have all of these, as OpenAI's strict schemas are."""
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


ROOT = {"$ref": "#"}
NULL = {"type": "null"}
MUTUAL = {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [NULL, {"$ref": "#/$defs/a"}]}}
BACK_TO_ITSELF = "leads back to itself"
ENDLESS = "requires itself without end"
NOTHING = "names nothing"
NO_TYPE = "must be one of string, "


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (ROOT, BACK_TO_ITSELF),
        (an_object(a={"$ref": "#/properties/a"}), BACK_TO_ITSELF),
        ({"anyOf": [NULL, ROOT]}, BACK_TO_ITSELF),
        ({"oneOf": [NULL, ROOT]}, BACK_TO_ITSELF),
        ({"allOf": [ROOT]}, BACK_TO_ITSELF),
        ({"$ref": "#/$defs/a", "$defs": MUTUAL}, BACK_TO_ITSELF),
        (an_object(x={"type": "array", "items": {"$ref": "#/$defs/a"}}) | {"$defs": MUTUAL},
         BACK_TO_ITSELF),
        (an_object(a=ROOT), ENDLESS),
        (an_object(a=an_object(b={"anyOf": [ROOT, an_object(c=ROOT)]})), ENDLESS),
        ({"type": "array", "items": ROOT, "minItems": 1}, ENDLESS),
        ({"type": "array", "prefixItems": [NULL, ROOT], "minItems": 2}, ENDLESS),
        ({"type": "object", "required": ["x"], "additionalProperties": ROOT}, ENDLESS),
        ({"type": "object", "properties": {"a": an_object(b={"$ref": "#/properties/a"})}}, ENDLESS),
        ({"$ref": "#/$defs/a"}, NOTHING),
        (an_object(a={"$ref": "#/$defs/a/b"}) | {"$defs": {"a": {}}}, NOTHING),
        ({"$ref": "#a", "$defs": {"a": {"$anchor": "a"}}}, NOTHING),
        ({"$ref": 5}, NOTHING),
        (an_object(a={"$ref": "#/required"}), NOTHING),
        ({"type": "foo"}, NO_TYPE),
        (an_object(a={"anyOf": [NULL, {"type": ["string", "foo"]}]}), NO_TYPE),
        ({"type": {}}, NO_TYPE),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": None}}}, NO_TYPE),
    ],
)  # fmt: skip
@pytest.mark.parametrize("strict", [True, False])
def test_a_schema_without_any_answer_is_refused(
    body_error: Explain, schema: Any, words: str, *, strict: bool
) -> None:
    named = {"name": "x", "strict": strict, "schema": schema}
    error = body_error({"response_format": {"type": "json_schema", "json_schema": named}})
    param = "response_format.json_schema.schema"
    assert (error.code, error.param) == ("invalid_value", param)
    assert words in str(error)
    assert f"'{param}'" in str(error)
    error = body_error({"tools": [tool(strict=strict, parameters=schema)]})
    assert (error.code, error.param) == ("invalid_value", "tools[0].function.parameters")


@pytest.mark.parametrize(
    "schema",
    [
        an_object(children={"type": "array", "items": ROOT}),
        an_object(children={"type": "array", "items": {"anyOf": [ROOT, NULL]}, "minItems": 1}),
        an_object(next={"anyOf": [ROOT, NULL]}),
        an_object(next={"type": ["object", "null"], "properties": {"a": ROOT}, "required": ["a"]}),
        {"type": "object", "properties": {"next": ROOT}},
        {"type": "object", "additionalProperties": ROOT},
        {"type": "array", "items": ROOT},
        {"$ref": "#/$defs/node", "$defs": {"node": an_object(
            left={"anyOf": [{"$ref": "#/$defs/node"}, {"$ref": "#/$defs/leaf"}]},
        ), "leaf": {"enum": [1, 2]}}},
        {"anyOf": [NULL, an_object(more=ROOT)]},
        {"type": "object", "$defs": {"unused": {"$ref": "#/$defs/unused"}}},
        an_object(a={"$ref": "#/$defs/any of it"}) | {"$defs": {"any of it": True}},
        an_object(a={"$ref": "#/properties/b"}, b={"const": {"$ref": "#", "type": "foo"}}),
        {"type": "object", "x-ui": {"type": "textarea"}},
        {"properties": {"$ref": {"type": "string"}, "type": {"type": "string"}}},
    ],
)  # fmt: skip
def test_a_schema_that_refers_to_itself_and_can_end_passes(schema: Any) -> None:
    named = {"name": "x", "strict": True, "schema": schema}
    passed = sampled(response_format={"type": "json_schema", "json_schema": named})
    assert passed.sampling.response_format is not None
    assert passed.sampling.response_format["json_schema"]["schema"] == schema


def test_many_references_are_read_in_good_time(body_error: Explain) -> None:
    names = [f"d{number}" for number in range(500)]
    chain = {a: {"$ref": f"#/$defs/{b}"} for a, b in itertools.pairwise(names)} | {"d499": NULL}
    endless = {a: an_object(a={"$ref": f"#/$defs/{b}"}) for a, b in itertools.pairwise(names[:150])}
    endless["d149"] = an_object(a=ROOT)
    wide = {"type": "object", "$defs": chain, "required": names[:250]}
    wide["properties"] = {name: {"$ref": f"#/$defs/{name}"} for name in names[:250]}
    for schema in ({"$ref": "#/$defs/d0", "$defs": chain}, wide):
        named = {"name": "x", "strict": True, "schema": schema}
        began = time.process_time()  # the neighbours' seconds do not count
        sampled(response_format={"type": "json_schema", "json_schema": named})
        assert time.process_time() - began < 0.5
    named = {"name": "x", "strict": True, "schema": {"$ref": "#/$defs/d0", "$defs": endless}}
    error = body_error({"response_format": {"type": "json_schema", "json_schema": named}})
    assert ENDLESS in str(error)


def sampled(**fields: Any) -> ChatRequest:
    """A good body with some fields, as the chat service gets it."""
    body = {"model": "acme", "messages": [TEXT]} | fields
    return to_chat(parse(json.dumps(body).encode()))


def test_instructions_are_collected_and_texts_are_joined() -> None:
    request = sampled(
        messages=[
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": a} for a in ("one", "two")]},
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        ]
    )
    assert request.system == "Be kind.\n\nBe brief."
    assert [(m.role, m.content) for m in request.messages] == [("user", "one\ntwo")]


def test_a_system_message_alone_may_be_answered() -> None:
    request = sampled(messages=[{"role": "system", "content": "Say hi."}])
    assert (request.system, request.messages) == ("Say hi.", ())


def test_an_answer_may_be_sent_back_as_it_came() -> None:
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "Hello.",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    request = sampled(messages=[TEXT, answer, TEXT])
    assert [message.content for message in request.messages] == ["hi", "Hello.", "hi"]


def test_a_clients_own_keys_in_an_answer_are_not_read() -> None:
    call = {**call_of(parsed_arguments={"a": 1}, strict=None), "index": 0, "caller": None}
    part = {"type": "text", "text": "Hello.", "annotations": None}
    answer: dict[str, Any] = {"role": "assistant", "content": [part], "tool_calls": [call]}
    answer |= {"parsed": {"a": 1}, "annotations": [{"type": "url_citation"}], "reasoning": None}
    request = sampled(messages=[TEXT, answer])
    assert request.messages[1].content == "Hello."
    assert request.messages[1].tool_calls is not None


def test_a_long_refusal_is_read() -> None:
    said = [{"role": "assistant", "refusal": "No. " * 500}, {"role": "assistant", "content": "x"}]
    request = sampled(messages=[TEXT, *said, {**said[1], "refusal": "No."}])
    assert [len(message.content) for message in request.messages] == [2, 2000, 1, 5]


def test_earlier_calls_and_their_results_pass() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    request = sampled(
        messages=[
            TEXT,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "4", "tool_call_id": "c1"},
        ]
    )
    expected = ToolCall(id="c1", function=CalledFunction("f", "{}"))
    assert request.messages[1].tool_calls == (expected,)
    assert request.messages[2].tool_call_id == "c1"


def test_what_means_nothing_is_left_out() -> None:
    quiet: dict[str, Any] = {"store": False, "tools": None, "tool_choice": "none", "user": "u"}
    quiet |= {"parallel_tool_calls": True, "reasoning_effort": "none", "verbosity": "medium"}
    quiet |= {"service_tier": "auto", "prompt_cache_retention": "in_memory"}
    quiet |= {"metadata": {"a": "b"}, "stop": None, "response_format": {"type": "text"}}
    assert sampled(**quiet).sampling == Sampling()


def test_both_names_of_the_limit_are_one() -> None:
    assert sampled(max_tokens=7).sampling.max_tokens == 7
    assert sampled(max_completion_tokens=7).sampling.max_tokens == 7


def test_a_modest_schema_passes() -> None:
    properties = {"pattern": {"type": "string", "maxLength": 20}, "format": {"enum": ["a"]}}
    schema = {"type": "object", "properties": properties, "required": ["pattern"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    passed = sampled(response_format=wanted).sampling.response_format
    assert passed == {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def test_published_formats_pass_and_others_only_where_a_schema_is_a_wish(
    body_error: Explain,
) -> None:
    def wanted(strict: bool | None, **keywords: Any) -> dict[str, Any]:
        when = {"type": "string", **keywords}
        schema = {"type": "object", "properties": {"when": when, "pattern": {"type": "string"}}}
        named: dict[str, Any] = {"name": "x", "schema": schema}
        if strict is not None:
            named["strict"] = strict
        return {"response_format": {"type": "json_schema", "json_schema": named}}

    def passed(**asked: Any) -> Any:
        form = sampled(**asked).sampling.response_format
        assert form is not None
        return form["json_schema"]["schema"]["properties"]

    date = {"type": "string", "format": "date-time"}
    assert passed(**wanted(True, format="date-time"))["when"] == date
    for keywords in ({"format": "color"}, {"format": "date", "maxLength": 5}, {"pattern": "^a"}):
        error = body_error(wanted(True, **keywords))
        assert error.code == "unsupported_value"
        left = {"type": "string"} | {k: v for k, v in keywords.items() if k == "maxLength"}
        for strict in (None, False):
            relaxed = passed(**wanted(strict, **keywords))
            assert relaxed == {"when": left, "pattern": {"type": "string"}}


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Function(name="get_weather", description="Now.", parameters=SCHEMA, strict=True)
TIME = Function(name="get_time")
TOOLS = [
    tool("get_weather", description="Now.", parameters=SCHEMA, strict=True),
    tool("get_time", strict=None),
]
FORCED = {"type": "function", "function": {"name": "get_time"}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Tools(functions=(WEATHER, TIME))),
        ({"tool_choice": "auto"}, Tools(functions=(WEATHER, TIME))),
        ({"tool_choice": "none"}, None),
        ({"tool_choice": "required"}, Tools(functions=(WEATHER, TIME), choice="required")),
        (
            {"tool_choice": FORCED},
            Tools(functions=(WEATHER, TIME), choice="required", name="get_time"),
        ),
        (
            {"tool_choice": allowed("get_time", mode="required")},
            Tools(functions=(TIME,), choice="required"),
        ),
        ({"parallel_tool_calls": False}, Tools(functions=(WEATHER, TIME), parallel=False)),
    ],
    ids=["default", "auto", "none", "required", "forced", "allowed", "one-at-a-time"],
)
def test_what_may_be_called_is_read(fields: dict[str, Any], expected: Tools | None) -> None:
    assert sampled(tools=TOOLS, **fields).tools == expected
