"""Clients that send too much or too slowly, over real connections."""

import asyncio
import json
import resource
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from server.api.protocol import MAX_HEAD_BYTES, BoundedProtocol, BoundedServer, raise_file_limit
from tests.server.serving import QUESTION, Serving, database_url, server, slow_server, until

__all__ = ["database_url", "server", "slow_server"]

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedProtocol, "patience_seconds", 0.5)


class Line:
    """A connection on which anything may be said."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> bytes:
        """Everything until the server hangs up."""
        try:
            return await self._reader.read()
        finally:
            self._writer.close()


async def connect(server: Serving) -> Line:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return Line(*await asyncio.open_connection(host, int(port)))


def refusal(answer: bytes) -> tuple[int, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


async def test_a_head_without_an_end_is_refused_before_it_costs_anything(server: Serving) -> None:
    line = await connect(server)
    await line.send(b"GET /health/live HTTP/1.1\r\nhost: x\r\nx-a: ")

    async def go_on() -> None:
        while True:
            await line.send(b"a" * MAX_HEAD_BYTES)

    async with asyncio.timeout(5):
        with pytest.raises(ConnectionError):
            await go_on()


async def test_a_head_that_is_too_long_is_refused_in_words(server: Serving) -> None:
    line = await connect(server)
    await line.send(b"GET /health/live HTTP/1.1\r\nhost: x\r\nx-a: ")
    await line.send(b"a" * (MAX_HEAD_BYTES + 1))
    assert refusal(await line.answer()) == (431, "request_header_fields_too_large")


async def test_a_long_head_within_bounds_is_read(server: Serving) -> None:
    line = await connect(server)
    await line.send(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-a: ")
    await line.send(b"a" * (MAX_HEAD_BYTES - 1000) + b"\r\n\r\n")
    assert (await line.answer()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("said", [b"", b"\r\n"], ids=["nothing", "an empty line"])
async def test_who_says_nothing_is_hung_up_on(server: Serving, said: bytes) -> None:
    line = await connect(server)
    await line.send(said)
    async with asyncio.timeout(5):
        assert b"200" not in await line.answer()


async def test_half_a_head_is_not_waited_for(server: Serving) -> None:
    line = await connect(server)
    await line.send(b"GET /health/live HTTP/1.1\r\n")
    async with asyncio.timeout(5):
        assert refusal(await line.answer()) == (408, "request_timeout")


async def test_half_a_body_is_not_waited_for(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    line = await connect(server)
    await line.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n"
        + f"authorization: Bearer {key}\r\n\r\n".encode()
        + b"{"
    )
    async with asyncio.timeout(5):
        assert refusal(await line.answer()) == (408, "request_timeout")


async def test_a_body_that_trickles_in_is_cut_off_and_a_slow_one_is_not(server: Serving) -> None:
    await server.tenant()
    key = await server.key()
    body = json.dumps({"model": "tiny-base", "messages": [QUESTION], "user": "x" * 500}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    head += f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"

    async def say(size: int) -> bytes:
        line = await connect(server)
        answer = asyncio.create_task(line.answer())
        await line.send(head.encode())
        for start in range(0, len(body), size):
            await line.send(body[start : start + size])
            await asyncio.wait([answer], timeout=0.1)
            if answer.done():
                break
        return await answer

    trickle, slow = await asyncio.gather(say(1), say(60))
    assert refusal(trickle) == (408, "request_timeout")
    assert slow.startswith((b"HTTP/1.1 200", b"HTTP/1.1 404")), slow[:200]


async def test_a_long_answer_is_not_cut_off(slow_server: Serving) -> None:
    await slow_server.tenant()
    client = slow_server.openai(await slow_server.key())
    stream = await client.chat.completions.create(
        model=slow_server.settings.base, messages=[QUESTION], stream=True, max_tokens=20
    )
    words = [chunk async for chunk in stream]
    assert len(words) >= 10  # in a second, twice what a client may take


async def test_a_connection_is_used_again_after_a_long_answer(server: Serving) -> None:
    for _ in range(3):
        async with server.session.get(f"{server.url}/health/live") as response:
            assert response.status == 200
        await asyncio.sleep(0.7)


UVICORN = "0.54"


def test_the_parts_of_uvicorn_that_it_does_not_document_were_looked_at_in_this_release() -> None:
    here = ".".join(uvicorn.__version__.split(".")[:2])
    assert here == UVICORN, (
        f"uvicorn {here} is installed, and server/api/protocol.py was checked against {UVICORN}. Look "
        "for options that replace it (its docstring says which), else at what changed in "
        "uvicorn/server.py and uvicorn/protocols/http/httptools_impl.py; then write the release here, "
        "in that docstring and in pyproject.toml."
    )


async def test_uvicorn_has_the_parts_that_it_does_not_document() -> None:
    config = uvicorn.Config(_nothing, log_config=None, http=BoundedProtocol)
    config.load()
    server = BoundedServer(config)
    protocol = BoundedProtocol(config=config, server_state=server.server_state, app_state={})
    cycle = RequestResponseCycle.__init__.__code__.co_names
    parts = {
        "HttpToolsProtocol": (
            (*vars(HttpToolsProtocol), *vars(protocol)),
            "app loop transport client flow cycle "
            "connection_made connection_lost data_received on_headers_complete on_message_complete",
        ),
        "FlowControl": (vars(FlowControl(asyncio.Transport())), "read_paused"),
        "RequestResponseCycle": (cycle, "response_started response_complete"),
        "Config": (vars(config), "http_protocol_class backlog"),
        "Server": (
            (*vars(uvicorn.Server), *vars(server)),
            "startup capture_signals server_state started should_exit",
        ),
        "Server.startup": (uvicorn.Server.startup.__code__.co_names, "lifespan servers"),
        "LifespanOn": (vars(LifespanOn(config)), "state"),
    }
    missing = [
        f"{owner}.{name}"
        for owner, (found, names) in parts.items()
        for name in names.split()
        if name not in found
    ]
    assert not missing, (
        f"uvicorn {uvicorn.__version__} has no {', '.join(missing)} any more: server/api/protocol.py "
        "and server/cli/up.py build on it; see the former's docstring"
    )


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    pass


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert raise_file_limit() == before[1] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest_asyncio.fixture
async def crowded(tmp_path: Path) -> AsyncIterator[int]:
    """The port of a server that may open a hundred files."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.server.api.crowded_server", str(tmp_path), "100"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    reading = asyncio.create_task(process.stdout.read())
    try:
        await until(lambda: answers(port), 20)  # it migrates its database first
        yield port
    finally:
        process.terminate()
        assert await process.wait() == -signal.SIGTERM  # uvicorn stops, and then says by what
        await reading


class Held:
    """A connection that asked, and stays."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.status = 0
        self.body = b""
        self.head = b""

    async def open(self, path: str = "/health/live") -> "Held":
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        await self._writer.drain()
        self.head = await reader.readuntil(b"\r\n\r\n")
        self.status = int(self.head.split()[1])
        if self.status == 503:
            self.body = await reader.read()
        return self

    def close(self) -> None:
        self._writer.close()


async def ask(port: int) -> int:
    try:
        held = await Held(port).open()
    except (OSError, asyncio.IncompleteReadError):
        return 0
    held.close()
    return held.status


async def answers(port: int) -> bool:
    return await ask(port) == 200


async def test_more_clients_than_descriptors_are_told_and_none_is_dropped(crowded: int) -> None:
    for clients in (300, 600):
        held = await asyncio.gather(
            *(Held(crowded).open("/v1/models" if n % 2 else "/health/live") for n in range(clients))
        )
        statuses = Counter(one.status for one in held)
        assert set(statuses) == {200, 401, 503}
        assert statuses[503] > clients - 100
        for one in held:
            if one.status == 503:
                assert b"retry-after: 1" in one.head
                assert b"x-request-id: " in one.head
                told = json.loads(one.body)
                assert told.get("error", told)["code"] == "too_many_connections"
        for one in held:
            one.close()
        await until(lambda: answers(crowded))
    assert [await ask(crowded) for _ in range(10)] == [200] * 10


async def test_those_who_say_nothing_do_not_keep_others_out(crowded: int) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", crowded) for _ in range(200)]
    async with asyncio.timeout(10):
        assert await ask(crowded) == 503  # in its turn
    for _, writer in silent:
        writer.close()
    await until(lambda: answers(crowded))
