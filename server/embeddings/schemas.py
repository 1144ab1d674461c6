"""Messages between the web process and the encoder's process, as MessagePack."""

import msgspec

MODEL = "all-minilm-l6-v2"
MODEL_CREATED = 1_630_281_600  # 30 August 2021, when it was published
DIMENSIONS = 384
FLOAT_BYTES = 4


class EmbedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts of one tenant. ``dimensions``: how many numbers of each vector to keep.

    ``truncate``: of a text that is longer than the model reads, encode its beginning.
    """

    tenant: str
    texts: list[str]
    dimensions: int
    truncate: bool = False


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """One unit vector for each text, in order, as little-endian float32. ``tokens``: of all."""

    vectors: list[bytes]
    tokens: int


class ClassifyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Texts of one tenant, for the head in a folder. What the encoder cannot read is cut off."""

    tenant: str
    texts: list[str]
    folder: str


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a head says of a text: a label, how probable it is, and every label's probability."""

    label: str
    probability: float
    probabilities: dict[str, float]


class TooLong(msgspec.Struct, frozen=True, kw_only=True):
    """The text number ``index`` has more tokens than the model reads."""

    index: int
    tokens: int
    limit: int
