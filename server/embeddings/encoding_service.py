"""Answers requests with one encoder, batch by batch."""

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from server.embeddings.encoders import Encoder, shorten
from server.embeddings.round_robin import RoundRobinQueue
from server.embeddings.schemas import (
    ClassifyRequest,
    Embedded,
    EmbedRequest,
    ImageRefused,
    Label,
    TooLong,
    UnusableImage,
)
from training.data.batching import length_batches
from training.evaluation.metrics import Vectors
from training.heads.config import IMAGE_ENCODERS, EncoderName
from training.heads.encoders import Encode, load_encoder
from training.heads.images import BadImage, Pixels, read_picture
from training.heads.package import Head, HeadManifest, check_encoder, read_manifest

P = ParamSpec("P")
R = TypeVar("R")

BATCH_TOKENS = 1024  # about 0.4 s of one core; twice as much is not quicker in all
BATCH_TEXTS = 64
MAX_HEADS = 8  # kept loaded; one whose encoder was tuned takes 90 MB
COUNTED_TEXTS = 256  # tokenised together, some milliseconds each


class TextTooLong(Exception):
    """A text has more tokens than the model reads. ``where`` says which text."""

    def __init__(self, where: TooLong) -> None:
        super().__init__(f"text {where.index} has {where.tokens} tokens")
        self.where = where


class EncodingService:
    """Answers requests with one encoder, in one thread: its tokenizer is not safe in two.

    The backbone for images is loaded with the first head that needs it.

    Tenants take turns, batch by batch.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._queue = RoundRobinQueue()
        self._heads: OrderedDict[str, Head] = OrderedDict()
        self._backbones: dict[EncoderName, Encode] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")

    async def embed(self, request: EmbedRequest) -> Embedded:
        """Return the vectors of all texts of a request. Cancelling stops after the current batch.

        Raises:
            TextTooLong: one of them is longer than the model reads; nothing was encoded then.
        """
        if len(request.texts) <= BATCH_TEXTS:  # the common case waits for its turn only once
            lengths, rows = await self._in_turn(request, self._both, request)
            if rows is not None:
                return Embedded(vectors=rows, tokens=sum(lengths))
        else:
            lengths = []
            for start in range(0, len(request.texts), COUNTED_TEXTS):
                texts = request.texts[start : start + COUNTED_TEXTS]
                lengths += await self._in_turn(
                    request, self._count, texts, start, truncate=request.truncate
                )
        vectors: list[bytes] = [b""] * len(request.texts)
        for batch in length_batches(lengths, max_tokens=BATCH_TOKENS):
            texts = [request.texts[i] for i in batch]
            rows = await self._in_turn(request, self._encode, texts, request.dimensions)
            for i, row in zip(batch, rows, strict=True):
                vectors[i] = row
        return Embedded(vectors=vectors, tokens=sum(lengths))

    async def classify(self, request: ClassifyRequest) -> list[Label]:
        """Return what a head says of each text or image; of a long text it reads the beginning.

        Raises:
            ArtifactError: there is no such head, or not as it was written.
            ImageRefused: an image cannot be read.
        """
        labels: list[Label] = []
        for start in range(0, len(request.texts), BATCH_TEXTS // 4):
            texts = request.texts[start : start + BATCH_TEXTS // 4]
            labels += await self._in_turn(request, self._classify, request.folder, texts)
        for index, image in enumerate(request.images):
            labels += await self._in_turn(
                request, self._classify_image, request.folder, image, index
            )
        return labels

    def _classify_image(self, folder: str, image: bytes, index: int) -> list[Label]:
        """One at a time: to unpack a large one takes a second."""
        try:
            picture = read_picture(image)
        except BadImage as exc:
            what = UnusableImage(index=index, reason=exc.reason, detail=str(exc))
            raise ImageRefused(what) from exc
        return self._classify(folder, [picture])

    def _classify(self, folder: str, items: Sequence[str] | Sequence[Pixels]) -> list[Label]:
        head = self._heads.get(folder)
        if head is None:
            path = Path(folder)
            head = self._heads[folder] = Head(path, encode=self._shared(read_manifest(path)))
            if len(self._heads) > MAX_HEADS:
                self._heads.popitem(last=False)
        self._heads.move_to_end(folder)
        return [
            Label(label=said.label, probability=said.probability, probabilities=said.probabilities)
            for said in head.classify(items)
        ]

    def _shared(self, head: HeadManifest) -> Encode | None:
        """The encoder that a head shares with others; None where it has its own."""
        name = head.encoder.name
        if name in IMAGE_ENCODERS:
            check_encoder(head)
            if name not in self._backbones:
                self._backbones[name] = load_encoder(name)
            return self._backbones[name]
        return self._vectors if head.method == "frozen" and name == self._encoder.name else None

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        return np.asarray([np.asarray(row) for row in self._encoder.encode(texts)], np.float32)

    def _both(self, request: EmbedRequest) -> tuple[list[int], list[bytes] | None]:
        """Lengths, and the vectors too where all texts are one batch."""
        lengths = self._count(request.texts, 0, truncate=request.truncate)
        if max(lengths) * len(lengths) > BATCH_TOKENS:
            return lengths, None
        return lengths, self._encode(request.texts, request.dimensions)

    def _count(self, texts: Sequence[str], first: int, *, truncate: bool) -> list[int]:
        """Tokens that are read of each text; ``first`` is the number of the first of them."""
        lengths = self._encoder.count(texts)
        limit = self._encoder.max_tokens
        if truncate:
            return [min(tokens, limit) for tokens in lengths]
        for index, tokens in enumerate(lengths, first):
            if tokens > limit:
                raise TextTooLong(TooLong(index=index, tokens=tokens, limit=limit))
        return lengths

    def _encode(self, texts: Sequence[str], dimensions: int) -> list[bytes]:
        found: list[array[float]] = self._encoder.encode(texts)
        return [shorten(vector, dimensions) for vector in found]

    async def _in_turn(
        self,
        request: EmbedRequest | ClassifyRequest,
        work: Callable[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        def start() -> Awaitable[R]:
            return asyncio.wrap_future(self._thread.submit(work, *args, **kwargs))

        return await self._queue.turn(request.tenant, start)
