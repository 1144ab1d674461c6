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
    """Texts or images (files) of one tenant, for the head in a folder, which is for one of both.

    Of a long text the beginning is read.
    """

    tenant: str
    texts: list[str] = []
    images: list[bytes] = []
    folder: str


class UnusableImage(msgspec.Struct, frozen=True, kw_only=True):
    """The image number ``index`` cannot be read, and why: in a word (``reason``), and in a sentence."""

    index: int
    reason: str
    detail: str


class ImageRefused(Exception):
    """An image cannot be read. ``what`` says which, and why."""

    def __init__(self, what: UnusableImage) -> None:
        super().__init__(f"image {what.index}: {what.detail}")
        self.what = what


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a head says of a text or image: a label, how probable it is, and every label's probability."""

    label: str
    probability: float
    probabilities: dict[str, float]


class TooLong(msgspec.Struct, frozen=True, kw_only=True):
    """The text number ``index`` has more tokens than the model reads."""

    index: int
    tokens: int
    limit: int
