"""The web process's client of the encoder's process."""

import asyncio
from pathlib import Path

import aiohttp
import msgspec

from server.embeddings.schemas import (
    ClassifyRequest,
    Embedded,
    EmbedRequest,
    ImageRefused,
    Label,
    TooLong,
    UnusableImage,
)
from server.errors import Conflict, EngineUnavailable, Invalid, Unavailable

RETRY_AFTER_SECONDS = 2.0
REFUSED = 422
DAMAGED = 409
_GONE = (aiohttp.ClientError, ConnectionError, TimeoutError)
_answers = msgspec.msgpack.Decoder(Embedded)
_labels = msgspec.msgpack.Decoder(list[Label])
_refusals = msgspec.msgpack.Decoder(TooLong)
_unusable = msgspec.msgpack.Decoder(UnusableImage)


class EncoderClient:
    """Use on one event loop; ``close`` when done. ``whole_seconds``: longest wait for an answer."""

    def __init__(self, uds: Path, *, whole_seconds: float = 600.0) -> None:
        self._uds = uds
        self._whole = whole_seconds
        self._session_: aiohttp.ClientSession | None = None

    async def embed(self, request: EmbedRequest) -> Embedded:
        """Return the vectors of texts. Cancelling the call cancels the request.

        Raises:
            Invalid: a text is longer than the model reads (``context_length_exceeded``).
            Unavailable: the process stopped meanwhile, or does not answer.
        """
        status, data = await self._post("embed", request)
        if status == REFUSED:
            raise _too_long(_refusals.decode(data), len(request.texts))
        if status != 200:  # noqa: PLR2004
            raise _unreachable()
        return _answers.decode(data)

    async def classify(self, request: ClassifyRequest) -> list[Label]:
        """Return what a head says of texts or images. Cancelling the call cancels the request.

        Raises:
            Conflict: the head's folder is not there, or not as it was written.
            ImageRefused: an image cannot be read.
            Unavailable: the process stopped meanwhile, or does not answer.
        """
        status, data = await self._post("classify", request)
        if status == DAMAGED:
            raise Conflict(msgspec.msgpack.decode(data, type=str), code="head_damaged")
        if status == REFUSED:
            raise ImageRefused(_unusable.decode(data))
        if status != 200:  # noqa: PLR2004
            raise _unreachable()
        return _labels.decode(data)

    async def _post(self, path: str, request: EmbedRequest | ClassifyRequest) -> tuple[int, bytes]:
        data = msgspec.msgpack.encode(request)
        try:
            async with (
                asyncio.timeout(self._whole),
                self._session.post(f"http://encoder/{path}", data=data) as response,
            ):
                return response.status, await response.read()
        except _GONE as exc:
            raise _unreachable() from exc

    async def health(self, *, timeout_seconds: float) -> None:
        """Return when the process answers.

        Raises:
            EngineUnavailable: it does not answer within this time.
        """
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._session.get("http://encoder/health"),
            ):
                return
        except _GONE as exc:
            raise EngineUnavailable("the encoder does not answer") from exc

    async def close(self) -> None:
        """Close the connections."""
        if self._session_ is not None:
            await self._session_.close()
            self._session_ = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._session_ is None:
            self._session_ = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self._uds), limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session_


def _too_long(where: TooLong, texts: int) -> Invalid:
    which = f" (input[{where.index}])" if texts > 1 else ""
    return Invalid(
        f"This model's maximum context length is {where.limit} tokens, however you requested "
        f"{where.tokens} tokens{which}. Please reduce your prompt.",
        param="input",
        code="context_length_exceeded",
    )


def _unreachable() -> Unavailable:
    return Unavailable(
        "The embedding model stopped meanwhile and starts again. Try again in a moment.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )
