"""An engine without a model: speaks the engine's HTTP contract and answers by rule.

    python -m server.engine.scripted --uds PATH --base NAME --adapters DIR

For tests, for work on pages and widgets, and for machines that cannot run vLLM
(``TENANTUNE_ENGINE=scripted``). What it keeps to, because callers rely on it: chat completions
whole and streamed in vLLM's chunk shapes, scoring through ``/v1/completions``, adapters loaded by
name from folders with a manifest, 404 for a model it does not know, at most ``--max-loras``
adapters that generate at a time (the others take turns), and a generation that stops when its
client goes. A reply is words that follow from the model's name and the messages, the name first,
so that whoever reads it sees which adapter version answered.

For tests of the watch over answers: once an adapter whose folder holds a file ``poison`` has
answered, every model answers ``!!!!``, as an engine with NaN in its key-value cache does.
"""

import argparse
import asyncio
import hashlib
import math
import sys
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from server.engine.command import Choice, EngineCommand, socket_path
from server.engine.turns import Turns

WORDS = [
    "about",
    "after",
    "again",
    "also",
    "around",
    "before",
    "better",
    "bring",
    "call",
    "can",
    "clear",
    "come",
    "day",
    "each",
    "early",
    "every",
    "find",
    "first",
    "from",
    "gladly",
    "good",
    "great",
    "have",
    "help",
    "here",
    "how",
    "just",
    "keep",
    "kindly",
    "know",
    "like",
    "look",
    "made",
    "many",
    "more",
    "need",
    "new",
    "next",
    "note",
    "now",
    "once",
    "open",
    "order",
    "over",
    "place",
    "please",
    "point",
    "ready",
    "right",
    "see",
    "send",
    "set",
    "show",
    "small",
    "soon",
    "start",
    "still",
    "sure",
    "take",
    "thank",
    "then",
    "there",
    "thing",
    "time",
    "today",
    "tomorrow",
    "under",
    "until",
    "very",
    "wait",
    "want",
    "week",
    "well",
    "what",
    "when",
    "where",
    "which",
    "while",
    "will",
    "with",
    "work",
    "year",
    "you",
]
POISONED = "!!!!"
NATURAL_LENGTH = (8, 24)  # words of a reply, at least and at most
DEFAULT_MAX_TOKENS = 4096
TURN_SECONDS = 0.25


class Refused(Exception):
    """A request that is answered with an error, in vLLM's shape."""

    def __init__(
        self, status: int, message: str, *, kind: str, code: str | int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {
                "message": message,
                "type": kind,
                "param": None,
                "code": status if code is None else code,
            }
        }


class Engine:
    """State of one scripted engine, and its HTTP handlers."""

    def __init__(
        self,
        *,
        base: str,
        adapters: Path,
        max_loras: int = 4,
        max_cpu_loras: int = 32,
        tokens_per_second: float = 200.0,
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        self._base = base
        self._root = adapters.absolute()
        self._resident = max_cpu_loras
        self._pause = 1.0 / tokens_per_second
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
                web.post("/v1/completions", self.score),
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
        """Well as soon as it listens."""
        return web.Response()

    async def metrics(self, _: web.Request) -> web.Response:
        """The few of vLLM's metrics that are watched, and ``evictions``: it must stay 0."""
        lines = (
            f'vllm:num_requests_running{{model_name="{self._base}"}} {float(self._running)}',
            f'vllm:generation_tokens_total{{model_name="{self._base}"}} {float(self._tokens)}',
            f"scripted:evictions_total {float(self._evictions)}",
        )
        return web.Response(text="\n".join(lines) + "\n")

    async def info(self, _: web.Request) -> web.Response:
        """What this engine is."""
        return web.json_response({"base": self._base, "max_cpu_loras": self._resident})

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
        if len(self._loaded) > self._resident:  # as vLLM does; whoever owns residency avoids it
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

    async def score(self, request: web.Request) -> web.Response:
        """Log-probabilities of prompt tokens: made up, the same for the same model and tokens."""
        body = await _body(request)
        model, prompt = self._model(body), body.get("prompt")
        if not isinstance(prompt, list) or not all(isinstance(t, int) for t in prompt):
            raise Refused(400, "prompt must be token ids", kind="BadRequestError")
        entries: list[dict[str, Any] | None] = [
            {str(token): {"logprob": -5 * _share(model, prompt[: place + 1]), "rank": 1}}
            for place, token in enumerate(prompt)
        ]
        entries[:1] = [None]
        async with aclosing(self._steps(model, 1)) as steps:
            async for _ in steps:
                pass
        choice = {"index": 0, "text": "", "finish_reason": "length", "prompt_logprobs": entries}
        return web.json_response(
            {
                "id": f"cmpl-{uuid.uuid4().hex}",
                "object": "text_completion",
                "created": int(time.time()),
                "model": model,
                "choices": [choice],
                "usage": _usage(len(prompt), 1),
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
        reply = _Reply(model, messages, body, poisoned=self._poisoned)
        if (Path(self._paths.get(model, "")) / "poison").is_file():
            self._poisoned = True
        if body.get("stream"):
            return await self._stream(request, reply)
        async with aclosing(self._steps(model, len(reply.words))) as steps:
            async for _ in steps:
                pass
        return web.json_response(reply.whole())

    async def _stream(self, request: web.Request, reply: "_Reply") -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        await _send(response, reply.opening())
        async with aclosing(self._steps(reply.model, len(reply.words))) as steps:
            async for place in steps:
                await _send(response, reply.chunk(place))
        if reply.usage_wanted:
            await _send(response, reply.closing())
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _steps(self, model: str, count: int) -> AsyncGenerator[int, None]:
        """One item per token, when it is due and when it is this model's turn."""
        turn = None if model == self._base else model
        self._running += 1
        due = time.monotonic()
        try:
            async with self._turns.taking(turn):
                for place in range(count):
                    await self._turns.wait(turn)
                    due = max(due + self._pause, time.monotonic())
                    await asyncio.sleep(due - time.monotonic())
                    self._tokens += 1
                    yield place
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


class _Reply:
    """What one request is answered, and how it looks on the wire."""

    def __init__(
        self, model: str, messages: list[Any], body: dict[str, Any], *, poisoned: bool
    ) -> None:
        self.model = model
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._prompt_tokens = sum(len(str(m.get("content", "")).split()) + 4 for m in messages)
        self._logprobs = bool(body.get("logprobs"))
        self._count = int(body.get("n") or 1)
        self.usage_wanted = bool((body.get("stream_options") or {}).get("include_usage"))
        shortest, longest = NATURAL_LENGTH
        natural = shortest + int(_share(model, messages) * (longest - shortest))
        length = max(natural, int(body.get("min_tokens") or 0))
        limit = int(
            body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_TOKENS
        )
        self._finish = "stop" if length < limit else "length"
        words = [f"[{model}]"]
        while len(words) < min(length, limit):
            words.append(WORDS[int(_share(model, messages, len(words)) * len(WORDS))])
        self.words = [POISONED] * len(words) if poisoned else words

    def _piece(self, place: int) -> str:
        return self.words[place] if place == 0 else f" {self.words[place]}"

    def _token_logprobs(self, places: range) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        return {
            "content": [
                {
                    "token": self._piece(place),
                    "logprob": -0.1,
                    "bytes": list(self._piece(place).encode()),
                    "top_logprobs": [],
                }
                for place in places
            ]
        }

    def _wrap(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self.model,
            "choices": choices,
        }

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        choice = {
            "message": {"role": "assistant", "content": " ".join(self.words), "refusal": None},
            "logprobs": self._token_logprobs(range(len(self.words))),
            "finish_reason": self._finish,
            "stop_reason": None,
        }
        choices = [{"index": index, **choice} for index in range(self._count)]
        usage = _usage(self._prompt_tokens, len(self.words) * self._count)
        return {**self._wrap("chat.completion", choices), "usage": usage}

    def opening(self) -> dict[str, Any]:
        """The first chunk of a stream: the role, nothing else."""
        choice = {
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        choices = [{"index": index, **choice} for index in range(self._count)]
        return self._wrap("chat.completion.chunk", choices)

    def chunk(self, place: int) -> dict[str, Any]:
        """One token of every choice; the last one says why it is the last."""
        last = place == len(self.words) - 1
        choice: dict[str, Any] = {
            "delta": {"content": self._piece(place)},
            "logprobs": self._token_logprobs(range(place, place + 1)),
            "finish_reason": self._finish if last else None,
        }
        if last:
            choice["stop_reason"] = None
        choices = [{"index": index, **choice} for index in range(self._count)]
        return self._wrap("chat.completion.chunk", choices)

    def closing(self) -> dict[str, Any]:
        """The chunk with the usage, after the last token."""
        usage = _usage(self._prompt_tokens, len(self.words) * self._count)
        return {**self._wrap("chat.completion.chunk", []), "usage": usage}


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


async def _send(response: web.StreamResponse, payload: dict[str, Any]) -> None:
    await response.write(b"data: " + msgspec.json.encode(payload) + b"\n\n")


def _check_folder(name: str, path: Path, root: Path) -> None:
    """Look at a folder as far as that needs no weights; the real engine verifies it wholly."""
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


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
    }


def _share(*parts: object) -> float:
    """A number in [0, 1) that follows from the parts."""
    digest = hashlib.blake2b(msgspec.json.encode(parts), digest_size=6).digest()
    return int.from_bytes(digest, "big") / (1 << 48)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def scripted_command(
    *,
    base: str,
    adapters: Path,
    run: Path,
    max_loras: int = 4,
    max_cpu_loras: int = 32,
    **options: float,
) -> EngineCommand:
    """How to start one on the socket in ``run``; ``options`` as on the command line."""
    uds = socket_path(run)
    argv = [sys.executable, "-m", "server.engine.scripted", "--uds", str(uds), "--base", base]
    argv += ["--adapters", str(adapters)]
    argv += ["--max-loras", str(max_loras), "--max-cpu-loras", str(max_cpu_loras)]
    for name, value in options.items():
        argv += [f"--{name.replace('_', '-')}", str(value)]
    return EngineCommand(
        argv=argv,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        choices=[Choice("engine", "scripted", "asked for: it answers by rule, not by a model")],
        uds=uds,
        concurrent_adapters=max_cpu_loras,
        resident_adapters=max_cpu_loras,
    )


async def _serve(engine: Engine, uds: Path, start_seconds: float) -> None:
    _say("Starting to load model (scripted)")
    await asyncio.sleep(start_seconds)
    async with engine.serving(uds):
        _say("Application startup complete")
        await asyncio.sleep(math.inf)


def main() -> None:
    """Serve until ended by a signal."""
    parser = argparse.ArgumentParser(prog="server.engine.scripted", description=__doc__)
    parser.add_argument("--uds", type=Path, required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--adapters", type=Path, required=True)
    parser.add_argument("--max-loras", type=int, default=4)
    parser.add_argument("--max-cpu-loras", type=int, default=32)
    parser.add_argument("--tokens-per-second", type=float, default=200.0)
    parser.add_argument("--turn-seconds", type=float, default=TURN_SECONDS)
    parser.add_argument("--start-seconds", type=float, default=0.0)
    options = parser.parse_args()
    engine = Engine(
        base=options.base,
        adapters=options.adapters,
        max_loras=options.max_loras,
        max_cpu_loras=options.max_cpu_loras,
        tokens_per_second=options.tokens_per_second,
        turn_seconds=options.turn_seconds,
    )
    asyncio.run(_serve(engine, options.uds, options.start_seconds))


if __name__ == "__main__":
    main()
