"""Reads a request's JSON into a struct, or raises an error worded as OpenAI's are."""

import re
from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import msgspec
from litestar import Request
from litestar.exceptions import HTTPException
from msgspec import inspect

from connectors.renamed import BothNamesGiven
from server.api.metadata import wrong_key
from server.errors import Invalid

T = TypeVar("T")
_SOME_KEY = "[...]"
_INTEGER_END = 1 << 63  # integers of JSON bodies have 64 bits with their sign
_WHERE = re.compile(r"(?s)(?P<what>.*) - at (?:`key` in )?`\$\.?(?P<path>.*)`")
_FIELD = re.compile(r"Object (?P<how>contains unknown|missing required) field `(?P<name>.*)`")


def missing(param: str) -> Invalid:
    """The error for a field that must be there, in OpenAI's words."""
    return Invalid(
        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


class Echoed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of an answer that clients send back; its unknown keys are ignored where null."""


class BodyReader(Generic[T]):
    """Decodes one kind of body. Build it once: the first use of a type is slow.

    Args:
        kind: the struct, an allow-list: with ``forbid_unknown_fields=True`` a field that it does not
            have is refused by name.
        unsupported: fields that OpenAI has and this server does not serve (of type None in
            ``kind``), with the reason.

    Example:
        reader = BodyReader(CompletionBody, unsupported={"audio": "only text is served"})
        body = reader.read(await request.body())  # or raises Invalid, which names the field
    """

    def __init__(self, kind: type[T], *, unsupported: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._unsupported = unsupported or {}
        self._decoder = msgspec.json.Decoder(kind)

    def read(self, data: bytes) -> T:
        """The body.

        Raises:
            Invalid: it is not JSON, or a field is missing, unknown, unsupported or out of bounds.
        """
        try:
            try:
                return self._decoder.decode(data)
            except msgspec.ValidationError as exc:
                if (coerced := self._coerced(data, str(exc))) is None:
                    raise
            return self._decoder.decode(coerced)
        except msgspec.ValidationError as exc:
            if isinstance(exc.__cause__, BothNamesGiven):
                raise Invalid(
                    f"{exc.__cause__}.", param=exc.__cause__.new, code="invalid_value"
                ) from exc
            raise self._explain(str(exc), data) from exc
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise Invalid(
                f"We could not parse the JSON body of your request: {exc}.", code="invalid_json"
            ) from exc

    def _coerced(self, data: bytes, text: str) -> bytes | None:
        """The body as OpenAI would have read it; None where that changes nothing.

        Null keys of ``Echoed`` parts are dropped, and ``5.0`` is taken for the integer 5.
        """
        if "unknown field" not in text and "got `float`" not in text:
            return None
        body = msgspec.json.decode(data)
        coerced = _coerce(body, inspect.type_info(self.kind))
        # compared as text: 5 and 5.0 are equal
        return (
            None if (again := msgspec.json.encode(coerced)) == msgspec.json.encode(body) else again
        )

    def _explain(self, text: str, data: bytes) -> Invalid:
        """An error of msgspec in OpenAI's words: a message, the field, a code."""
        match = _WHERE.fullmatch(text)
        what, path = (match["what"], match["path"]) if match else (text, "")
        if field := _FIELD.fullmatch(what):
            name = f"{path}.{field['name']}" if path else field["name"]
            if field["how"] == "missing required":
                return missing(name)
            return Invalid(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
        if path == f"metadata{_SOME_KEY}":  # msgspec does not say of which key the value is
            path = f"metadata.{wrong_key(msgspec.json.decode(data)['metadata'])}"
        root = re.split(r"[.\[]", path, maxsplit=1)[0]
        if root in self._unsupported:
            return Invalid(
                f"Unsupported parameter: '{root}': {self._unsupported[root]}.",
                param=root,
                code="unsupported_parameter",
            )
        code = "invalid_type" if ", got `" in what else "invalid_value"
        where = f" for '{path}'" if path else ""
        return Invalid(f"Invalid value{where}: {what}.", param=path or None, code=code)


def _coerce(value: Any, kind: inspect.Type) -> Any:  # noqa: ANN401 - any JSON
    """The value in a form that ``kind`` takes.

    Without the unknown keys of ``Echoed`` structs that are null; floats without a fraction as
    integers.
    """
    match kind:
        case inspect.Metadata():
            return _coerce(value, kind.type)
        case inspect.UnionType():
            if not (isinstance(value, float) and any(map(_takes_floats, kind.types))):
                for one in kind.types:
                    value = _coerce(value, one)
        case inspect.IntType() if isinstance(value, float):
            if value.is_integer() and abs(value) < _INTEGER_END:
                return int(value)
        case inspect.CollectionType() if isinstance(value, list):
            return [_coerce(item, kind.item_type) for item in value]
        case inspect.DictType() if isinstance(value, dict):
            return {name: _coerce(item, kind.value_type) for name, item in value.items()}
        case inspect.StructType() if isinstance(value, dict):
            fields = {field.encode_name: field.type for field in kind.fields}
            droppable = issubclass(kind.cls, Echoed)
            return {
                name: _coerce(item, fields[name]) if name in fields else item
                for name, item in value.items()
                if name in fields or item is not None or not droppable
            }
        case _:
            pass
    return value


def _takes_floats(kind: inspect.Type) -> bool:
    bare = kind.type if isinstance(kind, inspect.Metadata) else kind
    return isinstance(bare, inspect.FloatType | inspect.AnyType)


_readers: dict[Any, BodyReader[Any]] = {}


class StrictRequest(Request[Any, Any, Any]):
    """Reads the body of a handler that declares ``data``.

    Litestar would turn ``"1"`` into a number and 0 into false on the way to the handler, and name
    the fault less well.
    """

    def stream(self) -> AsyncGenerator[bytes]:
        """The body as it comes. A compressed one is refused: it would be taken for broken JSON."""
        encoding = self.headers.get("content-encoding", "").strip()
        if encoding.lower() not in ("", "identity"):
            raise HTTPException(
                detail=f"The body is encoded as '{encoding[:40]}', which is not read here: "
                "send it without Content-Encoding.",
                status_code=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            )
        return super().stream()

    async def json(self) -> Any:  # noqa: ANN401 - the handler's own type
        """The body as what the handler takes; raises as ``BodyReader.read``."""
        kind = self.route_handler.parsed_fn_signature.parameters["data"].annotation
        reader = _readers.get(kind)
        if reader is None:
            reader = _readers[kind] = BodyReader(kind)
        return reader.read(await self.body())
