"""The encoder's own server: MessagePack over a unix socket that only our user can open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from aiohttp import web

from server.embeddings.encoder import Encoder
from server.embeddings.round_robin import EncodingService, TextTooLong
from server.embeddings.schemas import EmbedRequest

MAX_BODY_BYTES = 64 << 20
_encode = msgspec.msgpack.encode
_requests = msgspec.msgpack.Decoder(EmbedRequest)


@asynccontextmanager
async def serving(encoder: Encoder, uds: Path) -> AsyncIterator[None]:
    """Listen; a client that goes takes its request along."""
    desk = EncodingService(encoder)

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    async def embed(request: web.Request) -> web.Response:
        try:
            answer = await desk.embed(_requests.decode(await request.read()))
        except TextTooLong as exc:
            return web.Response(body=_encode(exc.where), status=422)
        return web.Response(body=_encode(answer))

    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.add_routes([web.get("/health", health), web.post("/embed", embed)])
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(uds)).start()
        yield
    finally:
        await runner.cleanup()
