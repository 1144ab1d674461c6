"""How JSON bodies are read, whatever they are of."""

import json
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from server.api.body import BodyReader
from server.api.openai.chat.schemas import CompletionBody
from server.api.openai.completions.schemas import TextBody
from server.api.openai.embeddings.schemas import EmbeddingBody
from server.api.openai.files.form import read_form
from server.api.openai.fine_tuning.schemas import JobBody
from server.api.openai.responses.schemas import ResponseBody
from server.api.openai.uploads.schemas import UploadBody
from server.errors import Invalid

GOOD: dict[type[Any], dict[str, Any]] = {
    CompletionBody: {"model": "acme", "messages": [{"role": "user", "content": "hi"}]},
    TextBody: {"model": "acme", "prompt": "hi"},
    ResponseBody: {"model": "acme", "input": "hi"},
    EmbeddingBody: {"model": "acme", "input": "hi"},
    JobBody: {"model": "acme", "training_file": "file-1"},
    UploadBody: {"bytes": 1, "filename": "a", "mime_type": "a", "purpose": "batch"},
}
HYPER = ("method", "supervised", "hyperparameters")


def integers(kind: inspect.Type, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of the fields of a body that hold a whole number and no other kind of number."""
    match kind:
        case inspect.Metadata():
            return integers(kind.type, path)
        case inspect.UnionType() if not any(
            isinstance(one, inspect.FloatType) for one in kind.types
        ):
            return [found for one in kind.types for found in integers(one, path)]
        case inspect.IntType():
            return [path]
        case inspect.StructType():
            nested = (integers(field.type, (*path, field.encode_name)) for field in kind.fields)
            return [found for each in nested for found in each]
        case _:
            return []


CASES = [
    (kind, path)
    for kind in GOOD
    for path in integers(inspect.type_info(kind))
    if path[0] not in ("prompt", "input")
]


def with_number(kind: type[Any], path: tuple[str, ...], number: str) -> bytes:
    """A good body of a kind, with a number, as it is written, at a path."""
    body: dict[str, Any] = json.loads(json.dumps(GOOD[kind]))
    place = body
    for name in path[:-1]:
        place = place.setdefault(name, {"type": "supervised"} if name == "method" else {})
    place[path[-1]] = "NUMBER"
    return json.dumps(body).replace('"NUMBER"', number).encode()


def value_at(body: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        body = getattr(body, name)
    return body


def test_the_cases_are_all_there() -> None:
    names = {".".join(path) for _, path in CASES}
    assert names >= {"max_tokens", "max_completion_tokens", "max_output_tokens", "n", "seed"}
    assert names >= {"top_logprobs", "logprobs", "best_of", "dimensions", "bytes"}
    assert {(*HYPER, "n_epochs"), (*HYPER, "batch_size")} <= {path for _, path in CASES}


@pytest.mark.parametrize(("kind", "path"), CASES)
@pytest.mark.parametrize("number", ["1.0", "1e0", "10E-1", "1.000"])
def test_a_whole_number_may_have_a_decimal_point(
    kind: type[Any], path: tuple[str, ...], number: str
) -> None:
    plain = 7200 if path[-1] == "seconds" else 1
    written = "7200.0" if path[-1] == "seconds" else number
    data = with_number(kind, path, written)
    if path[0] == "expires_after":
        data = data.replace(b'"expires_after": {', b'"expires_after": {"anchor": "created_at", ')
    found = value_at(BodyReader(kind).read(data), path)
    assert (found, type(found)) == (plain, int)


@pytest.mark.parametrize(("kind", "path"), CASES)
@pytest.mark.parametrize("number", ["5.5", '"5"', "1e300", "true"])
def test_what_is_no_whole_number_is_refused_by_its_field(
    kind: type[Any], path: tuple[str, ...], number: str
) -> None:
    if number == '"5"' and path[-1] in ("n_epochs", "batch_size", "prompt", "input"):
        number = '"five"'
    with pytest.raises(Invalid) as refused:
        BodyReader(kind).read(with_number(kind, path, number))
    assert refused.value.param == ".".join(path)


def test_the_field_at_fault_is_named_beside_one_that_is_not() -> None:
    body = GOOD[CompletionBody] | {"max_tokens": 5.0, "n": 1.5, "seed": 2.0}
    with pytest.raises(Invalid) as refused:
        BodyReader(CompletionBody).read(json.dumps(body).encode())
    assert refused.value.param == "n"
    body |= {"n": 1.0, "max_tokens": 0.0}
    with pytest.raises(Invalid, match=r"'max_tokens': Expected `int` >= 1"):
        BodyReader(CompletionBody).read(json.dumps(body).encode())


def test_lists_of_token_ids_may_have_them_and_schemas_and_fractions_stay_as_they_are() -> None:
    text = BodyReader(TextBody).read(b'{"model":"a","prompt":[1.0,2,3.0],"temperature":1.0}')
    assert text.prompt == [1, 2, 3]
    assert isinstance(text.temperature, float)
    schema = {"type": "number", "multipleOf": 1.0, "maximum": 1 << 70}
    body = GOOD[CompletionBody] | {
        "max_tokens": 5.0,
        "logit_bias": {"7": 1.0},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
    }
    read = BodyReader(CompletionBody).read(json.dumps(body).encode())
    assert read.max_tokens == 5
    assert read.logit_bias == {7: 1.0}
    assert read.tools is not None
    kept = json.loads(bytes(read.tools[0].function.parameters))
    assert kept == schema
    assert isinstance(kept["multipleOf"], float)


def test_a_field_that_takes_any_number_keeps_its_kind() -> None:
    class Body(msgspec.Struct, forbid_unknown_fields=True):
        whole: int
        either: int | float | None = None
        anything: Any = None

    read = BodyReader(Body).read(b'{"whole": 3.0, "either": 2.0, "anything": 1.0}')
    assert list(map(type, (read.whole, read.either, read.anything))) == [int, float, float]


def test_a_forms_seconds_may_have_a_decimal_point_too() -> None:
    fields = {
        "purpose": ["batch"],
        "expires_after[anchor]": ["created_at"],
        "expires_after[seconds]": ["3600.0"],
    }
    form = read_form(fields)
    assert form.expires_after is not None
    assert form.expires_after.seconds == 3600
    with pytest.raises(Invalid, match=r"expires_after.seconds"):
        read_form(fields | {"expires_after[seconds]": ["3600.5"]})
