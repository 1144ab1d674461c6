"""A chat request on its way: model, policy, engine, answer, usage.

Policy, for all doors alike:

* The adapter's own system prompt comes first, as in training, and the caller's after it, in one
  system message; what the adapter's ends with is not said twice. Without either the base gets a
  neutral one, since chat templates put in their own otherwise.
* What people write cannot be read as the end of their turn: such tokens are left out.
* Unless asked for otherwise, answers are greedy: that is how adapters are evaluated, and a small
  model that is sampled at temperature 1 wanders off. Several answers (``n``) are sampled at 0.7.
* Unless asked for otherwise, answers end after ``DEFAULT_MAX_TOKENS``, or where the context does.
* What may be called is told as the base's chat template tells it, or in the system message.
* Texts (``TextRequest``) are continued as they are, without any of the prompts.
* An answer in one piece is a streamed one, collected: both say the same, and what was generated is
  known wherever it ends.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec
import structlog

from connectors.control_tokens import has_control_token, without_control_tokens
from server.adapters import names
from server.adapters.schemas import ModelCard, Resolved
from server.auth.keys import Principal
from server.chat.aggregation import Collected, CollectedTexts
from server.chat.cache_salt import cache_salt, installation_secret
from server.chat.completions import TextChoice, TextCompletion, TextRequest, TextSampling
from server.chat.engine_errors import of_limit, of_schema, without_source
from server.chat.schemas import (
    CHARACTERS_PER_TOKEN,
    ChatMessage,
    ChatRequest,
    ChunkChoice,
    Completion,
    FieldNames,
    Sampling,
    ToolCall,
)
from server.chat.stream import ChatStreamDecoder, StreamDecoder, TextStreamDecoder
from server.chat.tools import as_calls, as_text, tool_fields
from server.chat.truncation import CLIENT_ERRORS, is_too_long, make_room
from server.db.session import Database
from server.db.versioned_cache import VersionedCache
from server.db.write_behind import WriteBehind
from server.engine.client import RETRY_AFTER_SECONDS
from server.engine.service import EngineService
from server.engine.tool_format import tool_format
from server.errors import (
    AdapterRefused,
    EngineRejected,
    EngineUnavailable,
    Invalid,
    ServerError,
    StreamBroken,
)
from server.limits.fair_scheduler import FairScheduler, Ticket
from server.limits.limiter import RateLimiter
from server.metrics import Metrics
from server.usage.engine_time import EngineTime
from server.usage.ledger import UsageLedger
from server.usage.schemas import Usage

log = structlog.get_logger(__name__)

NEUTRAL_SYSTEM_PROMPT = "You are a helpful assistant."
DEFAULT_MAX_TOKENS = 1024
SEVERAL_TEMPERATURE = 0.7
RESERVED_TOKENS = 256  # against limits on tokens, for an answer of which no length was asked for
_AnyRequest = ChatRequest | TextRequest
_Mode = Literal["stream", "whole"]
C = TypeVar("C", bound=ChunkChoice | TextChoice)


class _Counted(msgspec.Struct):
    usage: msgspec.Raw


class StreamedAnswer(Generic[C]):
    """An answer under way: iterate over what each chunk adds; ``usage`` is there at the end."""

    def __init__(
        self, payloads: AsyncIterator[bytes], progress: StreamDecoder[C], *, place: Ticket
    ) -> None:
        self._payloads = payloads
        self._progress = progress
        self._place = place

    async def __aiter__(self) -> AsyncIterator[list[C]]:
        """Parts of choices, as they come.

        Raises:
            StreamBroken: the answer ended before it was complete.
        """
        take, charge = self._progress.take, self._place.charge
        async for payload in self._payloads:
            if choices := take(payload):
                charge(len(choices))  # about a token each; set right when the engine has counted
                yield choices
        self._progress.finish()

    @property
    def usage(self) -> Usage | None:
        """What the engine counted."""
        return self._progress.usage


class ChatService:
    """Answers chats for all doors. ``base`` is the model that is served, by its public name.

    ``home`` keeps the installation's secret, ``adapters`` the folders that the engine loads,
    ``serving`` the base's tokenizer, with the chat template that says how the base calls tools.
    ``rows`` takes answers that are to be kept.
    """

    def __init__(
        self,
        *,
        engine: EngineService | None,
        database: Database,
        ledger: UsageLedger,
        metrics: Metrics,
        limiter: RateLimiter,
        queue: FairScheduler,
        base: str,
        home: Path,
        adapters: Path,
        serving: Path | None = None,
        rows: WriteBehind | None = None,
    ) -> None:
        self._engine_or_none = engine
        self.database = database
        self.rows = rows or WriteBehind(database)
        self._ledger = ledger
        self._metrics = metrics
        self._busy = EngineTime()
        self._limiter = limiter
        self._queue = queue
        self._base = base
        self._home = home
        self._adapters = adapters
        self._serving = serving

    async def resolve(self, tenant_id: str, model: str) -> Resolved:
        """What a model's name means for a tenant at this moment.

        One query, or none when nobody wrote to the database since it was last asked.

        Raises:
            ModelNotFound: nothing, or another tenant's.
            Conflict: an adapter of another base than the one that is served.
        """

        async def read() -> Resolved:
            async with self.database.reading() as session:
                return await names.resolve(
                    session, tenant_id, model, base=self._base, adapters=self._adapters
                )

        return await self._names.get((tenant_id, model), read)

    async def models(self, tenant_id: str) -> list[ModelCard]:
        """Every name that the tenant may ask for."""
        async with self.database.reading() as session:
            return await names.list_models(session, tenant_id, base=self._base)

    @asynccontextmanager
    async def stream(
        self, request: ChatRequest, resolved: Resolved, *, principal: Principal
    ) -> AsyncIterator[StreamedAnswer[ChunkChoice]]:
        """Begin an answer; entering waits for its first chunk, leaving early aborts generation.

        Raises:
            Invalid: the engine cannot do what is asked for (``context_length_exceeded`` included).
            TooMany: the tenant or the key is at a limit, or has too many requests waiting.
            EngineUnavailable: there is no engine for now.
            EngineBusy: no place became free.
            AdapterRefused: the engine would not load the adapter.
            StreamBroken: (while iterating) the answer ended before it was complete.
        """
        async with self._chat(request, resolved, principal, mode="stream") as answer:
            yield answer

    async def complete(
        self, request: ChatRequest, resolved: Resolved, *, principal: Principal
    ) -> Completion:
        """An answer in one piece. Cancelling aborts generation.

        Raises as ``stream``, and EngineUnavailable where the answer ended before it was complete.
        """
        collected = Collected()
        answering = self._chat(request, resolved, principal, mode="whole")
        usage = await _collect(answering, collected.add)
        return Completion(choices=collected.choices, usage=usage)

    @asynccontextmanager
    async def stream_texts(
        self, request: TextRequest, resolved: Resolved, *, principal: Principal
    ) -> AsyncIterator[StreamedAnswer[TextChoice]]:
        """Begin to continue texts; as ``stream`` otherwise."""
        async with self._texts(request, resolved, principal, mode="stream") as answer:
            yield answer

    async def complete_texts(
        self, request: TextRequest, resolved: Resolved, *, principal: Principal
    ) -> TextCompletion:
        """Texts, continued. Cancelling aborts generation. Raises as ``complete``."""
        collected = CollectedTexts()
        answering = self._texts(request, resolved, principal, mode="whole")
        usage = await _collect(answering, collected.add)
        return TextCompletion(choices=collected.choices, usage=usage)

    def prepare(self) -> None:
        """Make what answers need on the disk, so that none of them can fail for want of room.

        Raises:
            OSError: the installation's secret cannot be read or made.
        """
        _ = self._secret

    def close(self) -> None:
        """Let go of what is held open."""
        self._names.close()

    @cached_property
    def _names(self) -> VersionedCache[tuple[str, str], Resolved]:
        return VersionedCache(self.database)

    @cached_property
    def _secret(self) -> bytes:
        return installation_secret(self._home)

    @property
    def _engine(self) -> EngineService:
        if self._engine_or_none is None:
            raise EngineUnavailable("this server runs no engine", retry_after_seconds=60.0)
        return self._engine_or_none

    @cached_property
    def _tools_in_template(self) -> bool:
        return self._serving is not None and tool_format(self._serving).native

    def _body(self, request: ChatRequest, resolved: Resolved) -> dict[str, Any]:
        """The engine's request: what is asked for, in the frame of the policy."""
        if self._tools_in_template:
            request = msgspec.structs.replace(request, messages=as_calls(request.messages))
        else:
            request = as_text(request)
        said = without_control_tokens(request.system)
        if f"\n\n{resolved.system_prompt}".endswith(f"\n\n{said}"):
            said = ""  # OpenAI's users repeat the system message of their training files
        system = "\n\n".join(part for part in (resolved.system_prompt, said) if part)
        if not system and resolved.adapter is None:
            system = NEUTRAL_SYSTEM_PROMPT
        body = self._frame(request.sampling, resolved)
        if request.sampling.max_tokens is None:
            body["max_tokens"] = DEFAULT_MAX_TOKENS
        messages = [_plain(message) for message in request.messages]
        body["messages"] = [{"role": "system", "content": system}, *messages]
        if request.tools is not None:
            body |= tool_fields(request.tools)
        return body

    def _text_body(self, request: TextRequest, resolved: Resolved) -> dict[str, Any]:
        body = self._frame(request.sampling, resolved)
        body["prompt"] = request.prompts[0] if len(request.prompts) == 1 else request.prompts
        return body

    def _frame(self, sampling: Sampling | TextSampling, resolved: Resolved) -> dict[str, Any]:
        body: dict[str, Any] = msgspec.to_builtins(sampling, str_keys=True)
        if sampling.temperature is None:
            body["temperature"] = 0.0 if sampling.n == 1 else SEVERAL_TEMPERATURE
        body["cache_salt"] = cache_salt(self._secret, resolved.tenant_id)
        return body

    def _chat(
        self, request: ChatRequest, resolved: Resolved, principal: Principal, *, mode: _Mode
    ) -> AbstractAsyncContextManager[StreamedAnswer[ChunkChoice]]:
        progress = ChatStreamDecoder(
            request.choices, calls=request.tools is not None, stops=bool(request.sampling.stop)
        )
        body = self._body(request, resolved)
        return self._stream(body, request, resolved, principal, progress=progress, mode=mode)

    def _texts(
        self, request: TextRequest, resolved: Resolved, principal: Principal, *, mode: _Mode
    ) -> AbstractAsyncContextManager[StreamedAnswer[TextChoice]]:
        progress = TextStreamDecoder(
            request.choices,
            prompts=len(request.prompts),
            generates=request.sampling.max_tokens > 0,
        )
        body = self._text_body(request, resolved)
        return self._stream(body, request, resolved, principal, progress=progress, mode=mode)

    @asynccontextmanager
    async def _stream(
        self,
        body: dict[str, Any],
        request: _AnyRequest,
        resolved: Resolved,
        principal: Principal,
        *,
        progress: StreamDecoder[C],
        mode: _Mode,
    ) -> AsyncIterator[StreamedAnswer[C]]:
        began = time.monotonic()
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        async with (
            self._enter(request, resolved, principal, mode=mode, progress=progress) as place,
            AsyncExitStack() as stack,
        ):
            payloads = await self._open(stack, body, request, resolved, progress)
            if mode == "stream":
                waited = time.monotonic() - began
                self._metrics.first_token.labels(_kind(resolved)).observe(waited)
            yield StreamedAnswer(payloads, progress, place=place)

    async def _open(
        self,
        stack: AsyncExitStack,
        body: dict[str, Any],
        request: _AnyRequest,
        resolved: Resolved,
        progress: StreamDecoder[Any],
    ) -> AsyncIterator[bytes]:
        def begun() -> None:
            progress.begun = True

        def begin() -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
            if isinstance(request, TextRequest) and not request.streams:
                return self._in_one_piece(body, request, resolved)
            return self._engine.stream(
                body,
                tenant=resolved.slug,
                adapter=resolved.adapter,
                path=request.path,
                on_begun=begun,
            )

        try:
            while True:
                try:
                    return await stack.enter_async_context(begin())
                except EngineRejected as exc:
                    make_room(exc, body, request)
        except (EngineRejected, AdapterRefused) as exc:
            raise _explain(exc, request, resolved) from exc

    @asynccontextmanager
    async def _in_one_piece(
        self, body: dict[str, Any], request: TextRequest, resolved: Resolved
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """What the engine cannot stream, as a stream of one chunk and the counts."""
        asked = {name: value for name, value in body.items() if name != "stream_options"}
        data = await self._engine.complete(
            asked, tenant=resolved.slug, adapter=resolved.adapter, path=request.path
        )

        async def payloads() -> AsyncIterator[bytes]:
            yield data
            yield b'{"choices":[],"usage":%b}' % msgspec.json.decode(data, type=_Counted).usage

        yield payloads()

    @asynccontextmanager
    async def _enter(
        self,
        request: _AnyRequest,
        resolved: Resolved,
        principal: Principal,
        *,
        mode: _Mode,
        progress: StreamDecoder[Any],
    ) -> AsyncIterator[Ticket]:
        """Wait for this request's turn at the engine, and account for what it uses there.

        Raises:
            TooMany: the tenant or its key is at a limit, or too many of its requests wait.
            EngineBusy: too many requests wait, or this one has waited for too long.
        """
        answers = request.choices
        prompt = _prompt_tokens(request, resolved)
        most = prompt + answers * (request.sampling.max_tokens or RESERVED_TOKENS)
        async with (
            self._limiter.admit(principal, tokens=most) as admission,
            self._queue.place(resolved.tenant_id, prompt_tokens=prompt, answers=answers) as place,
        ):
            failed = False
            try:
                with self._account(request, resolved, principal, mode=mode, progress=progress):
                    yield place
            except ServerError:
                failed = True
                raise
            finally:
                used = _used(request, resolved, progress, failed=failed)
                # who leaves early pays for the prompt; what failed costs nobody one
                prompt = 0 if failed else used.prompt_tokens
                place.settle(prompt_tokens=prompt, answer_tokens=used.completion_tokens)
                admission.settle(prompt + used.completion_tokens)

    @contextmanager
    def _account(
        self,
        request: _AnyRequest,
        resolved: Resolved,
        principal: Principal,
        *,
        mode: _Mode,
        progress: StreamDecoder[Any],
    ) -> Iterator[None]:
        """Count the request however it ends, in memory."""
        outcome = "failed"
        in_flight = self._metrics.in_flight.labels(mode)
        in_flight.inc()
        entered = self._busy.enter()
        try:
            yield
            outcome = "answered"
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "abandoned"
            raise
        except Invalid:
            outcome = "refused"
            raise
        finally:
            in_flight.dec()
            failed = outcome in ("failed", "refused")
            usage = _used(request, resolved, progress, failed=failed)
            self._metrics.chats.labels(_kind(resolved), outcome).inc()
            self._metrics.tokens.labels("prompt").inc(usage.prompt_tokens)
            self._metrics.tokens.labels("cached").inc(usage.cached_tokens)
            self._metrics.tokens.labels("completion").inc(usage.completion_tokens)
            self._ledger.add(
                usage,
                tenant_id=resolved.tenant_id,
                key_id=principal.key_id,
                model=f"{resolved.slug}@{resolved.version}" if resolved.version else self._base,
                failed=failed,
                gpu_seconds=self._busy.leave(entered),
            )


def _kind(resolved: Resolved) -> str:
    return "adapter" if resolved.adapter else "base"


def _plain(message: ChatMessage) -> ChatMessage:
    """A message that cannot end its own turn and begin another's."""
    if calls := message.tool_calls:
        message = msgspec.structs.replace(message, tool_calls=tuple(map(_plain_call, calls)))
    if not has_control_token(message.content):
        return message
    return msgspec.structs.replace(message, content=without_control_tokens(message.content))


def _plain_call(call: ToolCall) -> ToolCall:
    said = without_control_tokens(call.function.arguments)
    function = msgspec.structs.replace(call.function, arguments=said)
    return msgspec.structs.replace(call, function=function)


def _prompt_tokens(request: _AnyRequest, resolved: Resolved) -> int:
    """About how many tokens the engine will read."""
    return (request.characters + len(resolved.system_prompt)) // CHARACTERS_PER_TOKEN


def _used(
    request: _AnyRequest, resolved: Resolved, progress: StreamDecoder[Any], *, failed: bool
) -> Usage:
    """What a request used, wherever it ended.

    The engine's own counts; without them, of a request that it had taken, an estimate.
    """
    if (counted := progress.counted) is not None:
        return counted
    tokens = progress.tokens
    if not tokens and (failed or not progress.begun):
        return Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
    prompt = _prompt_tokens(request, resolved)
    return Usage(prompt_tokens=prompt, completion_tokens=tokens, total_tokens=prompt + tokens)


async def _collect(
    answering: AbstractAsyncContextManager[StreamedAnswer[C]], add: Callable[[list[C]], None]
) -> Usage:
    """Put all of an answer together; what it used.

    Raises:
        EngineUnavailable: it ended before it was complete, or nothing was counted.
    """
    try:
        async with answering as answer:
            async for choices in answer:
                add(choices)
            usage = answer.usage
    except StreamBroken as exc:
        raise EngineUnavailable(exc.message, retry_after_seconds=RETRY_AFTER_SECONDS) from exc
    if usage is None:
        raise EngineUnavailable("the engine did not count the answer's tokens")
    return usage


def _explain(
    exc: EngineRejected | AdapterRefused, request: _AnyRequest, resolved: Resolved
) -> ServerError:
    """The engine's refusal in words for whoever called; what only the operator may see is logged."""
    if isinstance(exc, AdapterRefused):
        log.error("adapter was refused", model=resolved.model, reason=exc.message)
        return AdapterRefused(
            f"The model '{resolved.model}' cannot be loaded. The operator's log says why."
        )
    if is_too_long(exc):
        param = "messages" if isinstance(request, ChatRequest) else "prompt"
        return Invalid(exc.message, param=param, code="context_length_exceeded")
    if exc.status in CLIENT_ERRORS:
        named = of_limit(exc, request.fields if isinstance(request, ChatRequest) else FieldNames())
        if named is None and isinstance(request, ChatRequest):
            named = of_schema(exc, request)
        if named is not None:
            return named
        hidden = resolved.system_prompt[:40]
        message = without_source(exc.message)
        if len(message) > 1000 or (hidden and hidden in message):  # noqa: PLR2004
            message = "The engine refused the request."
        return Invalid(message, param=exc.param, code=exc.code)
    log.error("engine refused", model=resolved.model, status=exc.status, reason=exc.message)
    return EngineUnavailable("the engine does not know the model", retry_after_seconds=5.0)
