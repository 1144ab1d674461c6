"""State of one fake engine, and its HTTP handlers."""

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from server.engine.backends.fake.completion import Completion
from server.engine.backends.fake.concurrency import Seats, Turns
from server.engine.backends.fake.instance import SchemaError
from server.engine.backends.fake.reply import Reply, share, usage

TURN_SECONDS = 0.25


class Refused(Exception):
    """A request that is answered with an error, in vLLM's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str,
        code: str | int | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {
                "message": message,
                "type": kind,
                "param": param,
                "code": status if code is None else code,
            }
        }


class Engine:
    """One fake engine. The package says what it does; its options are those of ``__main__``."""

    def __init__(
        self,
        *,
        base: str,
        adapters: Path,
        max_loras: int = 4,
        max_cpu_loras: int = 32,
        max_num_seqs: int = 256,
        tokens_per_second: float = 200.0,
        turn_seconds: float = TURN_SECONDS,
        words: int = 0,
        max_model_len: int = 0,
    ) -> None:
        self._base = base
        self._root = adapters.absolute()
        self._max_cpu_loras = max_cpu_loras
        self._pause = 1.0 / tokens_per_second
        self._max_num_seqs = max_num_seqs
        self._words = words
        self._max_model_len = max_model_len
        self._seats = Seats(max_num_seqs)
        self._turns = Turns(max_loras, turn_seconds)
        self._paths: dict[str, str] = {}
        self._loaded: OrderedDict[str, None] = OrderedDict()
        self._running = 0
        self._tokens = 0
        self._evictions = 0
        self._poisoned = False

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[_errors], client_max_size=64 << 20)
        app.add_routes(
            [
                web.get("/health", self.health),
                web.get("/metrics", self.metrics),
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/completions", self.text),
                web.get("/tenantune/info", self.info),
                web.get("/tenantune/adapters", self.list_adapters),
                web.post("/tenantune/adapters/ensure", self.ensure),
                web.post("/tenantune/adapters/drop", self.drop),
            ]
        )
        return app

    @asynccontextmanager
    async def serving(self, uds: Path) -> AsyncIterator[None]:
        """Listen on a unix socket."""
        runner = web.AppRunner(
            self.app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
        await runner.setup()
        try:
            await web.UnixSite(runner, str(uds)).start()
            yield
        finally:
            await runner.cleanup()

    async def health(self, _: web.Request) -> web.Response:
        """The engine is well as soon as it listens."""
        return web.Response()

    async def metrics(self, _: web.Request) -> web.Response:
        """Those of vLLM's metrics that the server and tests read, and ``evictions``, which must stay 0."""
        cache = self._running / self._max_num_seqs
        lines = (
            f'vllm:num_requests_running{{model_name="{self._base}"}} {float(self._running)}',
            f'vllm:num_requests_waiting{{model_name="{self._base}"}} {float(self._seats.waiting)}',
            f'vllm:kv_cache_usage_perc{{model_name="{self._base}"}} {cache}',
            f'vllm:generation_tokens_total{{model_name="{self._base}"}} {float(self._tokens)}',
            f"fake:evictions_total {float(self._evictions)}",
        )
        return web.Response(text="\n".join(lines) + "\n")

    async def info(self, _: web.Request) -> web.Response:
        """What this engine is."""
        settings = {"max_num_seqs": self._max_num_seqs}
        return web.json_response(
            {"base": self._base, "max_cpu_loras": self._max_cpu_loras, "settings": settings}
        )

    async def ensure(self, request: web.Request) -> web.Response:
        """Load an adapter from its folder."""
        body = await _body(request)
        name, path = str(body.get("name")), str(body.get("path"))
        if self._paths.get(name, path) != path:
            raise Refused(
                409, f"{name} was loaded from another folder", kind="Conflict", code="name_in_use"
            )
        started = time.perf_counter()
        if name not in self._loaded:
            _check_folder(name, Path(path), self._root)
            self._load(name, path)
        elapsed = (time.perf_counter() - started) * 1000
        return web.json_response({"name": name, "loaded_ms": elapsed})

    def _load(self, name: str, path: str) -> None:
        self._paths[name] = path
        self._loaded[name] = None
        if len(self._loaded) > self._max_cpu_loras:  # as vLLM does; the server never lets it
            self._loaded.popitem(last=False)
            self._evictions += 1

    async def drop(self, request: web.Request) -> web.Response:
        """Unload an adapter; nothing happens when it is not loaded."""
        name = str((await _body(request)).get("name"))
        self._loaded.pop(name, None)
        return web.json_response({"name": name})

    async def list_adapters(self, _: web.Request) -> web.Response:
        """Names of the loaded adapters."""
        return web.json_response({"adapters": list(self._loaded)})

    async def text(self, request: web.Request) -> web.StreamResponse:
        """A completion, whole or streamed, or the log-probabilities of a prompt."""
        body = await _body(request)
        model = self._model(body)
        if "prompt_logprobs" in body:
            return await self._score(model, body)
        prompt = body.get("prompt")
        if not isinstance(prompt, str | list) or not prompt:
            raise Refused(400, "there must be a prompt", kind="BadRequestError")
        reply = Completion(model, body, poisoned=self._poisoned)
        self._catch_poison(model)
        if body.get("stream"):
            return await self._stream(request, reply, reply.steps)
        await self._wait(model, reply.steps, reply.count)
        return web.json_response(reply.whole())

    async def _score(self, model: str, body: dict[str, Any]) -> web.Response:
        """Log-probabilities of prompt tokens: made up, but always the same for the same input."""
        prompt = body.get("prompt")
        if not isinstance(prompt, list) or not all(isinstance(t, int) for t in prompt):
            raise Refused(400, "prompt must be token ids", kind="BadRequestError")
        entries: list[dict[str, Any] | None] = [
            {str(token): {"logprob": -5 * share(model, prompt[: position + 1]), "rank": 1}}
            for position, token in enumerate(prompt)
        ]
        entries[:1] = [None]
        await self._wait(model, 1)
        choice = {"index": 0, "text": "", "finish_reason": "length", "prompt_logprobs": entries}
        return web.json_response(
            {
                "id": f"cmpl-{uuid.uuid4().hex}",
                "object": "text_completion",
                "created": int(time.time()),
                "model": model,
                "choices": [choice],
                "usage": usage(len(prompt), 1),
            }
        )

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """A chat completion, whole or streamed."""
        body = await _body(request)
        model, messages = self._model(body), body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise Refused(
                400, "messages must be a list with something in it", kind="BadRequestError"
            )
        try:
            reply = Reply(model, messages, body, shortest=self._words, poisoned=self._poisoned)
        except SchemaError as exc:
            raise Refused(400, str(exc), kind="BadRequestError") from exc
        self._check_length(reply.prompt_tokens, int(body.get("max_tokens") or 1))
        self._catch_poison(model)
        if body.get("stream"):
            return await self._stream(request, reply, len(reply.words))
        await self._wait(model, len(reply.words), reply.count)
        return web.json_response(reply.whole())

    def _check_length(self, prompt: int, wanted: int) -> None:
        tokens = prompt + wanted
        if 0 < self._max_model_len < wanted:
            raise Refused(
                400,
                f"max_tokens={wanted} cannot be greater than max_model_len={self._max_model_len}. "
                "Please request fewer output tokens.",
                kind="BadRequestError",
                param="max_tokens",
            )
        if 0 < self._max_model_len < tokens:
            raise Refused(
                400,
                f"This model's maximum context length is {self._max_model_len} tokens. However, "
                f"you requested {tokens} tokens. Please reduce the length of the input prompt.",
                kind="BadRequestError",
            )

    def _catch_poison(self, model: str) -> None:
        if (Path(self._paths.get(model, "")) / "poison").is_file():
            self._poisoned = True

    async def _wait(self, model: str, count: int, answers: int = 1) -> None:
        """Return when ``count`` tokens of each of the answers have been generated."""
        async with aclosing(self._steps(model, count, answers)) as steps:
            async for _ in steps:
                pass

    async def _stream(
        self, request: web.Request, reply: Reply | Completion, count: int
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        async with aclosing(self._steps(reply.model, count, reply.count)) as steps:
            async for position in steps:
                if position >= 0:
                    await _send(response, *reply.chunks(position))
                elif isinstance(reply, Reply):
                    await _send(response, *reply.opening())
        if reply.usage_wanted:
            await _send(response, reply.closing())
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _steps(self, model: str, count: int, answers: int = 1) -> AsyncGenerator[int, None]:
        """Yield -1 when generation begins, then the index of each token when it is due.

        Generation begins when there are seats for all answers, and pauses until it is this model's
        turn.
        """
        turn = None if model == self._base else model
        async with self._seats.taking(answers):
            self._running += 1
            due = time.monotonic()
            try:
                yield -1
                async with self._turns.taking(turn):
                    for position in range(count):
                        await self._turns.wait(turn)
                        due = max(due + self._pause, time.monotonic())
                        await asyncio.sleep(due - time.monotonic())
                        self._tokens += 1
                        yield position
            finally:
                self._running -= 1

    def _model(self, body: dict[str, Any]) -> str:
        """The model that is asked for, loaded."""
        name = str(body.get("model"))
        if name == self._base:
            return name
        if name not in self._loaded:
            folder = self._root / name
            if "/" in name or name.startswith(".") or not folder.is_dir():
                raise Refused(404, f"The model `{name}` does not exist.", kind="NotFoundError")
            _check_folder(name, folder, self._root)
            self._load(name, str(folder))
        self._loaded.move_to_end(name)
        return name


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:  # noqa: ANN401
    try:
        response: web.StreamResponse = await handler(request)
    except Refused as exc:
        return web.json_response(exc.body, status=exc.status)
    return response


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        return msgspec.json.decode(await request.read(), type=dict[str, Any])
    except msgspec.DecodeError as exc:
        raise Refused(400, f"not a JSON object: {exc}", kind="BadRequestError") from exc


async def _send(response: web.StreamResponse, *payloads: dict[str, Any]) -> None:
    for payload in payloads:
        await response.write(b"data: " + msgspec.json.encode(payload) + b"\n\n")


def _check_folder(name: str, path: Path, root: Path) -> None:
    """Check a folder without its weights; the real engine verifies all of it."""
    if path.resolve().parent != root.resolve() or not path.is_dir():
        raise Refused(
            404, f"there is no adapter folder {path}", kind="NotFoundError", code="adapter_missing"
        )
    try:
        msgspec.json.decode((path / "manifest.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as exc:
        raise Refused(
            422,
            f"adapter {name}: no usable manifest: {exc}",
            kind="Refused",
            code="adapter_refused",
        ) from exc
