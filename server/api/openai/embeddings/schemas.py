"""OpenAI's embedding objects."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from server.embeddings.schemas import DIMENSIONS

MAX_TEXTS = 2048
MAX_TEXT_CHARACTERS = 32_768  # no text of the model's length has more
MAX_CHARACTERS = 1_500_000  # of all texts together
_Short = Annotated[str, Meta(max_length=512)]


class EmbeddingBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/embeddings``. Token ids are read in order to be refused with the reason."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=DIMENSIONS)] | None = None
    user: _Short | None = None


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    """One text's vector: numbers, or their little-endian float32 bytes in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: one vector a text, in the order of the input."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
