import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from server.engine.client import EngineClient
from server.engine.process.command import socket_path
from server.errors import (
    AdapterRefused,
    EngineBusy,
    EngineRejected,
    EngineUnavailable,
    StreamBroken,
)

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}


@asynccontextmanager
async def serving(
    folder: Path, chat: Callable[[web.Request], Awaitable[web.StreamResponse]], **options
) -> AsyncIterator[EngineClient]:
    """A client of a server whose chat endpoint is the given function."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post("/tenantune/adapters/ensure", chat)
    app.router.add_get("/health", chat)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    uds = socket_path(folder)
    await web.UnixSite(runner, str(uds)).start()
    client = EngineClient(uds=uds, **options)
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def answering(*pieces: bytes, then: float = 0.0):
    async def chat(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0.005)
        await asyncio.sleep(then)
        return response

    return chat


def refusing(status: int, body: object = None):
    async def chat(_: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    return chat


async def collect(client: EngineClient) -> list[bytes]:
    async with client.stream(BODY) as payloads:
        return [payload async for payload in payloads]


async def test_events_are_split_wherever_the_chunks_end(tmp_path):
    pieces = (b'data: {"a"', b':1}\n\ndata: {"b":2}\n', b"\n: ping\n\n", b"data: [DONE]\n\n")
    async with serving(tmp_path, answering(*pieces)) as client:
        assert await collect(client) == [b'{"a":1}', b'{"b":2}']


async def test_a_stream_that_ends_without_done_is_broken(tmp_path):
    async with serving(tmp_path, answering(b"data: {}\n\n")) as client:
        with pytest.raises(StreamBroken, match="before it was complete"):
            await collect(client)


async def test_an_error_in_the_stream_breaks_it_with_the_engines_words(tmp_path):
    event = b'data: {"error":{"message":"EngineCore died","code":500}}\n\ndata: [DONE]\n\n'
    async with serving(tmp_path, answering(b"data: {}\n\n", event)) as client:
        with pytest.raises(StreamBroken, match="EngineCore died"):
            await collect(client)


async def test_silence_between_chunks_breaks_the_stream(tmp_path):
    chat = answering(b"data: {}\n\n", then=5)
    async with serving(tmp_path, chat, idle_seconds=0.1) as client:
        with pytest.raises(StreamBroken, match="said nothing"):
            await collect(client)


async def test_open_streams_can_be_broken_from_outside(tmp_path):
    async with serving(tmp_path, answering(b"data: {}\n\n", then=5)) as client:
        asyncio.get_running_loop().call_later(0.1, client.break_streams, "stopping")
        with pytest.raises(StreamBroken, match="stopping"):
            await collect(client)


async def test_leaving_a_stream_early_ends_it_at_the_engine(tmp_path):
    ended = asyncio.Event()

    async def chat(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"data: {}\n\n")
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    async with serving(tmp_path, chat) as client:
        async with client.stream(BODY) as payloads:
            await anext(payloads)
        async with asyncio.timeout(2):
            await ended.wait()


async def test_cancelling_a_whole_answer_ends_it_at_the_engine(tmp_path):
    ended = asyncio.Event()

    async def chat(_: web.Request) -> web.StreamResponse:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return web.Response()

    async with serving(tmp_path, chat) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.complete(BODY)
        async with asyncio.timeout(2):
            await ended.wait()


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, {"message": "bad temperature", "param": "temperature", "code": 400}, EngineRejected),
        (404, {"message": "no such model", "param": None, "code": 404}, EngineRejected),
        (429, {"message": "slow down"}, EngineBusy),
        (500, {"message": "not up yet"}, EngineUnavailable),
        (503, None, EngineUnavailable),
    ],
)
async def test_a_refusal_becomes_our_error(tmp_path, status, error, expected):
    async with serving(tmp_path, refusing(status, error and {"error": error})) as client:
        with pytest.raises(expected) as caught:
            await collect(client)
    if error:
        assert caught.value.message == error["message"]
    if isinstance(caught.value, EngineRejected):
        assert caught.value.status == status
        assert caught.value.param == error["param"]
        assert caught.value.code is None


async def test_a_refused_adapter_says_why(tmp_path):
    error = {"message": "weights are not finite", "code": "adapter_refused"}
    async with serving(tmp_path, refusing(422, {"error": error})) as client:
        with pytest.raises(AdapterRefused, match="not finite"):
            await client.ensure_adapter("a", "/a")


async def test_an_engine_that_is_not_there_is_unavailable(tmp_path):
    client = EngineClient(uds=tmp_path / "nobody.sock")
    with pytest.raises(EngineUnavailable):
        await client.health(timeout_seconds=1)
    with pytest.raises(EngineUnavailable) as caught:
        await collect(client)
    assert caught.value.retry_after_seconds > 0
    await client.close()


async def test_no_header_steers_the_engine(tmp_path):
    seen: dict[str, str] = {}

    async def chat(request: web.Request) -> web.StreamResponse:
        seen.update(request.headers)
        return web.Response(body=await request.read())

    async with serving(tmp_path, chat) as client:
        assert msgspec.json.decode(await client.complete(BODY)) == BODY
    assert not [name for name in seen if name.lower().startswith("x-")]
