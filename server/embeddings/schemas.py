"""What passes between the web process and the encoder's, as MessagePack."""

import msgspec

MODEL = "all-minilm-l6-v2"
MODEL_CREATED = 1_630_281_600  # 30 August 2021, when it was published
DIMENSIONS = 384
FLOAT_BYTES = 4


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts of one tenant. ``dimensions``: how many numbers to keep of each vector."""

    tenant: str
    texts: list[str]
    dimensions: int


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """One unit vector a text, in its order, as little-endian float32; ``tokens`` that were read."""

    vectors: list[bytes]
    tokens: int


class TooLong(msgspec.Struct, frozen=True, kw_only=True):
    """The text number ``index`` has more tokens than the model reads."""

    index: int
    tokens: int
    limit: int
