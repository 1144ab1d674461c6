"""The encoder's process: MessagePack over HTTP, on a unix socket that only its owner can open."""

import argparse
import asyncio
import math
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from aiohttp import web

from server import embeddings
from server.embeddings.encoders import Encoder, FakeEncoder, SentenceEncoder
from server.embeddings.encoding_service import EncodingService, TextTooLong
from server.embeddings.schemas import ClassifyRequest, EmbedRequest, ImageRefused
from training.errors import ArtifactError

MAX_BODY_BYTES = 64 << 20
_encode = msgspec.msgpack.encode
_requests = msgspec.msgpack.Decoder(EmbedRequest)
_classifications = msgspec.msgpack.Decoder(ClassifyRequest)


@asynccontextmanager
async def serving(encoder: Encoder, uds: Path) -> AsyncIterator[None]:
    """Listen on the socket. A client that disconnects cancels its request."""
    service = EncodingService(encoder)

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    async def embed(request: web.Request) -> web.Response:
        try:
            answer = await service.embed(_requests.decode(await request.read()))
        except TextTooLong as exc:
            return web.Response(body=_encode(exc.where), status=422)
        return web.Response(body=_encode(answer))

    async def classify(request: web.Request) -> web.Response:
        try:
            answer = await service.classify(_classifications.decode(await request.read()))
        except ArtifactError as exc:
            return web.Response(body=_encode(str(exc)), status=409)
        except ImageRefused as exc:
            return web.Response(body=_encode(exc.what), status=422)
        return web.Response(body=_encode(answer))

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.add_routes(
        [web.get("/health", health), web.post("/embed", embed), web.post("/classify", classify)]
    )
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(uds)).start()
        yield
    finally:
        await runner.cleanup()


async def _serve(encoder: Encoder, uds: Path, start_seconds: float) -> None:
    await asyncio.sleep(start_seconds)
    async with serving(encoder, uds):
        sys.stderr.write("ready\n")
        await asyncio.sleep(math.inf)


def main() -> None:
    """Serve until ended by a signal. The socket appears when the model is ready."""
    parser = argparse.ArgumentParser(prog="server.embeddings", description=embeddings.__doc__)
    parser.add_argument("--uds", type=Path, required=True)
    parser.add_argument("--encoder", choices=("sentence", "fake"), default="sentence")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start-seconds", type=float, default=0.0, help="for tests: a slow start")
    parser.add_argument("--nice", type=int, default=0, help="how far others come first")
    options = parser.parse_args()
    os.nice(options.nice)
    fake = options.encoder == "fake"
    encoder = FakeEncoder() if fake else SentenceEncoder(threads=options.threads)
    asyncio.run(_serve(encoder, options.uds, options.start_seconds))


if __name__ == "__main__":
    main()
