"""OpenAI's metadata: up to sixteen pairs of text on an object, by which it can be found."""

import re
from typing import Annotated, Any

from litestar import Request
from msgspec import Meta

from server.errors import Invalid

MAX_PAIRS = 16
MAX_KEY = 64
MAX_VALUE = 512

Metadata = Annotated[
    dict[
        Annotated[str, Meta(max_length=MAX_KEY)],
        Annotated[str, Meta(max_length=MAX_VALUE)],
    ],
    Meta(max_length=MAX_PAIRS),
]
# of lists, for the OpenAPI document
METADATA_PARAMETER = {
    "name": "metadata",
    "in": "query",
    "required": False,
    "style": "deepObject",
    "explode": True,
    "description": "Only objects with these pairs, as `metadata[key]=value`.",
    "schema": {
        "type": "object",
        "maxProperties": MAX_PAIRS,
        "propertyNames": {"maxLength": MAX_KEY},
        "additionalProperties": {"type": "string", "maxLength": MAX_VALUE},
    },
}
RETRIEVAL = "retrieval"
_PARAMETER = re.compile(r"metadata\[(?P<key>.*)\]", re.DOTALL)


def wrong_key(pairs: dict[str, Any]) -> str:
    """The first key whose value is not a text of the right length."""
    wrong = (k for k, v in pairs.items() if not isinstance(v, str) or len(v) > MAX_VALUE)
    return next(wrong, "")


def wants_retrieval(metadata: dict[str, str] | None) -> bool:
    """Whether an answer may be shown what others were answered: not with ``retrieval`` ``off``.

    Raises:
        Invalid: another word than ``on`` or ``off``.
    """
    word = (metadata or {}).get(RETRIEVAL, "on")
    if word not in ("on", "off"):
        raise Invalid(
            f"'metadata.{RETRIEVAL}' switches retrieval 'on' or 'off'; '{word[:20]}' is neither.",
            param=f"metadata.{RETRIEVAL}",
        )
    return word == "on"


def metadata_filter(request: Request[Any, Any, Any]) -> dict[str, str]:
    """The pairs of ``metadata[key]=value`` in a request's query.

    Raises:
        Invalid: more pairs, or longer ones, than an object can have.
    """
    pairs: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if match := _PARAMETER.fullmatch(name):
            key = match["key"]
            if len(key) > MAX_KEY or len(value) > MAX_VALUE:
                raise Invalid(
                    f"A key of 'metadata' has at most {MAX_KEY} characters, a value {MAX_VALUE}.",
                    param="metadata",
                )
            pairs[key] = value
    if len(pairs) > MAX_PAIRS:
        raise Invalid(f"'metadata' has at most {MAX_PAIRS} pairs.", param="metadata")
    return pairs
