"""An engine behind HTTP, on a unix socket or at a URL: the implementation of ``EngineBackend``.

On aiohttp, because it passes a token on for a third of httpx's CPU time. Nothing is added to a
body, and no header is sent beyond what HTTP needs: callers decide what a tenant may ask for.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from server.engine.backend import CHAT, TEXT, EngineInfo
from server.errors import (
    AdapterRefused,
    EngineBusy,
    EngineRejected,
    EngineUnavailable,
    ServerError,
    StreamBroken,
)

RETRY_AFTER_SECONDS = 2.0
_CONNECT_SECONDS = 5.0
_T = TypeVar("_T")
_GONE = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError)


class _Error(msgspec.Struct):
    message: str = ""
    param: str | None = None
    code: str | int | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error


class _Logprob(msgspec.Struct):
    logprob: float


class _ScoredChoice(msgspec.Struct):
    prompt_logprobs: list[dict[str, _Logprob] | None]


class _Scored(msgspec.Struct):
    choices: list[_ScoredChoice]


class _Loaded(msgspec.Struct):
    loaded_ms: float


class EngineClient:
    """One engine; ``EngineBackend`` describes the methods. ``close`` it when done.

    Args:
        uds: the engine's unix socket, or
        url: its address: ``http://``, ``https://`` or ``unix:PATH``.
        idle_seconds: longest silence between two chunks of a stream.
        first_seconds: longest wait for a stream's first chunk: the engine's queue, a long prompt.
        whole_seconds: longest wait for an answer that comes in one piece.
    """

    def __init__(
        self,
        *,
        uds: Path | None = None,
        url: str = "",
        idle_seconds: float = 60.0,
        first_seconds: float = 300.0,
        whole_seconds: float = 1800.0,
    ) -> None:
        if (uds is None) == (not url):
            raise ValueError("give either uds or url")
        if url.startswith("unix:"):
            uds, url = Path(url.removeprefix("unix:").removeprefix("//")), ""
        self._uds = uds
        self._root = url.rstrip("/") or "http://engine"
        self._idle = idle_seconds
        self._first = first_seconds
        self._whole = whole_seconds
        self._session_: aiohttp.ClientSession | None = None
        self._open: set[aiohttp.ClientResponse] = set()
        self.heard_at = time.monotonic()

    @property
    def address(self) -> str:
        """Where the engine listens: ``unix:PATH``, or a URL without its user and password."""
        if self._uds is not None:
            return f"unix:{self._uds}"
        parts = urlsplit(self._root)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._session_ is None:
            connector = (
                aiohttp.UnixConnector(str(self._uds), limit=0)
                if self._uds
                else aiohttp.TCPConnector(limit=0)
            )
            self._session_ = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            )
        return self._session_

    async def close(self) -> None:
        """Break what is open and close the connections."""
        self.break_streams("the server is stopping")
        if self._session_ is not None:
            await self._session_.close()
            self._session_ = None

    def break_streams(self, message: str) -> None:
        """End every open stream with StreamBroken: a dying engine leaves its clients hanging."""
        for response in list(self._open):
            response.content.set_exception(StreamBroken(message))
            response.close()

    @asynccontextmanager
    async def stream(
        self, body: dict[str, Any], *, path: str = CHAT
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream a completion: the payload of each ``data:`` line, without the last [DONE]."""
        async with self._post(path, body) as response:
            silence = _Silence(response, first=self._first, idle=self._idle)
            self._open.add(response)
            try:
                yield self._payloads(response, silence)
            finally:
                silence.end()
                self._open.discard(response)

    async def complete(self, body: dict[str, Any], *, path: str = CHAT) -> bytes:
        """Return a completion in one piece."""
        return await self._call(path, body)

    async def score(self, model: str, token_ids: list[int]) -> list[float | None]:
        """Return the log-probability of each token given those before it; None for the first."""
        body = {
            "model": model,
            "prompt": token_ids,
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
        }
        answer = _decode(await self._call(TEXT, body), _Scored)
        entries = answer.choices[0].prompt_logprobs
        return [
            None if entry is None else entry[str(token)].logprob
            for token, entry in zip(token_ids, entries, strict=True)
        ]

    async def ensure_adapter(self, name: str, path: str) -> float:
        """Load an adapter, unless it is loaded. Returns the milliseconds that it took."""
        try:
            data = await self._call("/tenantune/adapters/ensure", {"name": name, "path": path})
        except EngineRejected as exc:
            raise AdapterRefused(exc.message, code=exc.code) from exc
        return _decode(data, _Loaded).loaded_ms

    async def drop_adapter(self, name: str) -> None:
        """Unload an adapter. Does nothing if it is not loaded."""
        await self._call("/tenantune/adapters/drop", {"name": name})

    async def info(self) -> EngineInfo:
        """Return the engine's limits and settings."""
        return _decode(await self._get("/tenantune/info", self._first), EngineInfo)

    async def metrics(self, *, timeout_seconds: float) -> str:
        """Return the engine's own figures, as Prometheus text; raises EngineUnavailable."""
        return (await self._get("/metrics", timeout_seconds)).decode(errors="replace")

    async def health(self, *, timeout_seconds: float) -> None:
        """Return when the engine says that it is well; raises EngineUnavailable."""
        await self._get("/health", timeout_seconds)

    async def _payloads(
        self, response: aiohttp.ClientResponse, silence: "_Silence"
    ) -> AsyncIterator[bytes]:
        """Split server-sent events; each of ours is one line and ends in an empty one."""
        content = response.content
        rest = b""
        while True:
            silence.since = time.monotonic()
            try:
                data = await content.readany()
            except _GONE as exc:
                raise StreamBroken("the engine stopped in the middle of the answer") from exc
            if not data:
                raise StreamBroken("the engine ended the answer before it was complete")
            silence.heard()
            self.heard_at = time.monotonic()
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                payload = event[6:]
                if payload == b"[DONE]":
                    return
                if not event.startswith(b"data: "):
                    continue  # a comment
                if payload.startswith(b'{"error"'):
                    raise StreamBroken(_error(payload).message or "the engine reported an error")
                yield payload

    @asynccontextmanager
    async def _post(self, path: str, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request. Yields a response of status 200, which is released at the end."""
        try:
            async with asyncio.timeout(self._whole):
                response = await self._session.post(
                    self._root + path, data=msgspec.json.encode(body)
                )
        except TimeoutError as exc:
            raise EngineUnavailable(
                f"the engine did not answer for {self._whole:.0f} seconds",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            ) from exc
        except _GONE as exc:
            raise _unreachable() from exc
        try:
            if response.status != 200:  # noqa: PLR2004
                raise _refusal(response, await self._read(response))
            yield response
        finally:
            response.release()  # a response that was not read to its end is cut off

    async def _call(self, path: str, body: dict[str, Any]) -> bytes:
        async with self._post(path, body) as response:
            data = await self._read(response)
        self.heard_at = time.monotonic()
        return data

    async def _get(self, path: str, timeout_seconds: float) -> bytes:
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._session.get(self._root + path) as response,
            ):
                data = await self._read(response)
        except (TimeoutError, *_GONE) as exc:
            raise _unreachable() from exc
        if response.status != 200:  # noqa: PLR2004
            raise _refusal(response, data)
        return data

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            return await response.read()
        except _GONE as exc:
            raise _unreachable() from exc


class _Silence:
    """Breaks a stream whose engine sends nothing for ``first`` seconds, and later for ``idle``.

    ``since`` is when the server began to wait for the engine; None while it does not wait, because
    a client that reads slowly is not the engine's fault. There is one timer a stream: a timeout
    around each chunk costs a tenth of all that the server does for a token.
    """

    def __init__(self, response: aiohttp.ClientResponse, *, first: float, idle: float) -> None:
        self.since: float | None = None
        self._response = response
        self._limit, self._idle = first, idle
        self._later = asyncio.get_running_loop().call_later
        self._timer = self._later(idle, self._look)

    def heard(self) -> None:
        """The engine sent something."""
        self.since = None
        self._limit = self._idle

    def end(self) -> None:
        """The stream is over."""
        self._timer.cancel()

    def _look(self) -> None:
        silent = 0.0 if self.since is None else time.monotonic() - self.since
        if silent < self._limit:
            self._timer = self._later(min(self._limit - silent, self._idle), self._look)
            return
        broken = StreamBroken(f"the engine said nothing for {self._limit:.0f} seconds")
        self._response.content.set_exception(broken)
        self._response.close()


def _unreachable() -> EngineUnavailable:
    return EngineUnavailable("the engine is not reachable", retry_after_seconds=RETRY_AFTER_SECONDS)


def _error(data: bytes) -> _Error:
    try:
        return msgspec.json.decode(data, type=_ErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Error()


def _refusal(response: aiohttp.ClientResponse, data: bytes) -> ServerError:
    """What a status other than 200 means."""
    error = _error(data)
    message = error.message or f"the engine answered with status {response.status}"
    if response.status == 429:  # noqa: PLR2004
        return EngineBusy(message, retry_after_seconds=RETRY_AFTER_SECONDS)
    if response.status >= 500:  # noqa: PLR2004
        # also in its first moments, before the engine behind the API is up
        return EngineUnavailable(message, retry_after_seconds=RETRY_AFTER_SECONDS)
    code = error.code if isinstance(error.code, str) else None  # vLLM puts the status here
    return EngineRejected(message, status=response.status, param=error.param, code=code)


def _decode(data: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as exc:
        raise EngineUnavailable(f"the engine's answer makes no sense: {exc}") from exc
