"""Answers chats and continues texts: admission, the engine's stream, accounting.

An answer in one piece is a streamed one, collected: both say the same, and what was generated is
known wherever it ends. What the engine is asked is decided in ``prompt.py``.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Generic

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from server.adapters import canary
from server.adapters.catalog import ModelCatalog
from server.adapters.schemas import Resolved
from server.auth.keys import Principal
from server.chat.accounting import Accounting, Admission, C, Generation, Mode
from server.chat.aggregation import Collected, CollectedTexts
from server.chat.citations import Citations
from server.chat.completions import TextChoice, TextCompletion, TextRequest
from server.chat.engine_errors import for_caller
from server.chat.grounding import Grounded, ground, with_quote, without_references
from server.chat.images import ImageTriage
from server.chat.prompt import PolicyFiles
from server.chat.quoting import Quoting, quoting_of
from server.chat.schemas import ChatRequest, ChunkChoice, Completion
from server.chat.stream import ChatStreamDecoder, StreamDecoder, TextStreamDecoder
from server.chat.truncation import is_too_long, shorten
from server.db.write_behind import WriteBehind
from server.engine.client import RETRY_AFTER_SECONDS
from server.engine.service import EngineService
from server.errors import (
    AdapterRefused,
    EngineRejected,
    EngineUnavailable,
    StreamBroken,
    TooMany,
    Unavailable,
)
from server.limits.fair_scheduler import Ticket
from server.retrieval import receipts
from server.retrieval.schemas import Grounding, Source, sources_of
from server.retrieval.service import RetrievalService
from server.usage.schemas import Usage
from training.references import Reference

log = structlog.get_logger(__name__)


class _Counted(msgspec.Struct):
    usage: msgspec.Raw


class StreamedAnswer(Generic[C]):
    """An answer under way: iterate over what each chunk adds; ``usage`` is there at the end.

    ``resolved`` is who answers, ``grounding`` what the answer is shown, and ``sources`` the articles of that
    which the caller may be told.
    """

    def __init__(
        self,
        payloads: AsyncIterator[bytes],
        decoder: StreamDecoder[C],
        *,
        ticket: Ticket,
        resolved: Resolved,
        grounding: Grounding | None,
        quoting: Quoting | None = None,
    ) -> None:
        self.resolved = resolved
        self.grounding = grounding
        self.sources: tuple[Source, ...] = ()
        if grounding is not None and resolved.show_sources:
            self.sources = sources_of(grounding.references)
        self._payloads = payloads
        self._decoder = decoder
        self._ticket = ticket
        self._quoting = quoting

    async def __aiter__(self) -> AsyncIterator[list[C]]:
        """Parts of choices, as they come.

        Raises:
            StreamBroken: the answer ended before it was complete.
        """
        take, charge = self._decoder.take, self._ticket.charge
        citations = Citations(self.sources)
        async for payload in self._payloads:
            if choices := take(payload):
                charge(len(choices))  # about a token each; corrected when the engine has counted
                if self._quoting is not None and not (choices := await self._quoting.take(choices)):
                    continue
                citations.add(choices)
                yield choices
        self._decoder.finish()

    @property
    def supported(self) -> bool | None:
        """Whether something supports it; None where nothing was looked up."""
        return None if self.grounding is None else self.grounding.supported

    @property
    def usage(self) -> Usage | None:
        """The engine's final count; None before the end."""
        return self._decoder.usage


class ChatService:
    """Answers chats and continues texts, for every API.

    Args:
        engine: generates; None on a server without one, where every answer is refused.
        models: what the names of models mean.
        prompts: the policy's files: the installation's secret and the base's chat template.
        admission: limits and the queue in front of the engine.
        accounting: metrics and the usage ledger.
        retrieval: what chats are shown of the past; None: nothing, and they have no receipts.
        images: says what images are, for those who read a request's messages.
        write_behind: writes the answers that clients asked to keep, and that a canary was refused; the
            application runs it.

    Example:
        resolved = await chat.models.resolve(principal.require_tenant(), "acme")
        answer = await chat.complete(request, resolved, principal=principal)

        async with chat.stream(request, resolved, principal=principal) as answer:
            async for choices in answer:
                ...  # what each chunk adds, as a list of ChunkChoice
            usage = answer.usage
    """

    def __init__(
        self,
        *,
        engine: EngineService | None,
        models: ModelCatalog,
        prompts: PolicyFiles,
        admission: Admission,
        accounting: Accounting,
        write_behind: WriteBehind,
        images: ImageTriage,
        retrieval: RetrievalService | None = None,
    ) -> None:
        self._retrieval = retrieval
        self.images = images
        self.models = models
        self.write_behind = write_behind
        self._engine_or_none = engine
        self._prompts = prompts
        self._admission = admission
        self._accounting = accounting

    @asynccontextmanager
    async def stream(
        self,
        request: ChatRequest,
        resolved: Resolved,
        *,
        principal: Principal,
        answer_id: str | None = None,
    ) -> AsyncIterator[StreamedAnswer[ChunkChoice]]:
        """Begin an answer; entering waits for its first chunk, leaving early aborts generation.

        With an ``answer_id``, the receipt of what it rests on is kept by that.

        Raises:
            Invalid: the engine cannot do what is asked for (``context_length_exceeded`` included).
            TooMany: the tenant or the key is at a limit, or has too many requests waiting.
            EngineUnavailable: there is no engine for now.
            EngineBusy: no place became free.
            AdapterRefused: the engine would not load the adapter.
            StreamBroken: (while iterating) the answer ended before it was complete.
        """
        generation = _chat(request, resolved, principal, "stream")
        async with self._generate(generation, answer_id) as answer:
            yield answer

    async def complete(
        self,
        request: ChatRequest,
        resolved: Resolved,
        *,
        principal: Principal,
        answer_id: str | None = None,
    ) -> Completion:
        """An answer in one piece. Cancelling aborts generation.

        Raises as ``stream``, and EngineUnavailable where the answer ended before it was complete.
        """
        collected = Collected()
        generation = _chat(request, resolved, principal, "whole")
        usage = await _collect(self._generate(generation, answer_id), collected.add)
        shown = generation.grounding
        return Completion(
            choices=collected.choices, usage=usage, supported=shown.supported if shown else None
        )

    @asynccontextmanager
    async def stream_texts(
        self, request: TextRequest, resolved: Resolved, *, principal: Principal
    ) -> AsyncIterator[StreamedAnswer[TextChoice]]:
        """Begin to continue texts; as ``stream`` otherwise."""
        async with self._generate(_texts(request, resolved, principal, "stream")) as answer:
            yield answer

    async def complete_texts(
        self, request: TextRequest, resolved: Resolved, *, principal: Principal
    ) -> TextCompletion:
        """Texts, continued. Cancelling aborts generation. Raises as ``complete``."""
        collected = CollectedTexts()
        answering = self._generate(_texts(request, resolved, principal, "whole"))
        usage = await _collect(answering, collected.add)
        return TextCompletion(choices=collected.choices, usage=usage)

    def prepare(self) -> None:
        """Make the files that answers need, so that none of them can fail for lack of disk space.

        Raises:
            OSError: the installation's secret cannot be read or made.
        """
        self._prompts.prepare()

    def close(self) -> None:
        """Close what is held open."""
        self.models.close()

    @property
    def _engine(self) -> EngineService:
        if self._engine_or_none is None:
            raise EngineUnavailable("this server runs no engine", retry_after_seconds=60.0)
        return self._engine_or_none

    @asynccontextmanager
    async def _generate(
        self, generation: Generation[C], answer_id: str | None = None
    ) -> AsyncIterator[StreamedAnswer[C]]:
        """One answer from the first to the last: the same for chats and texts, streamed or not."""
        began = time.monotonic()
        # before the queue: a place at the engine is not held while the encoder works
        generation.grounded = await self._ground(generation)
        async with AsyncExitStack() as stack:
            try:
                ticket = await stack.enter_async_context(self._admission.enter(generation))
            except TooMany:
                self._accounting.refuse(generation)
                raise
            stack.enter_context(self._accounting.count(generation))
            payloads = await self._open(stack, generation)
            if answer_id is not None:
                self._keep_receipt(answer_id, generation)
            if generation.mode == "stream":
                self._accounting.first_token(generation, time.monotonic() - began)
            yield StreamedAnswer(
                payloads,
                generation.decoder,
                ticket=ticket,
                resolved=generation.resolved,
                grounding=generation.grounding,
                quoting=self._quoting(generation, answer_id),
            )

    def _quoting(self, generation: Generation[Any], answer_id: str | None) -> Quoting | None:
        """What holds an answer back that may be a quote, and notes on its receipt which."""
        grounded = generation.grounded
        if grounded is None:
            return None

        def note(quoted: Reference) -> None:
            generation.grounded = with_quote(grounded, quoted)
            if answer_id is not None:
                self._keep_receipt(answer_id, generation)

        return quoting_of(grounded, on_quoted=note)

    async def _ground(self, generation: Generation[Any]) -> Grounded | None:
        """What a chat is shown; None of texts, which are continued as they are."""
        request = generation.request
        if not isinstance(request, ChatRequest) or self._retrieval is None:
            return None
        return await ground(self._retrieval, request, generation.resolved)

    def _body(self, generation: Generation[Any]) -> dict[str, Any]:
        """The engine's request."""
        shown = generation.grounded
        request = generation.request if shown is None else shown.request
        return self._prompts.policy.body(request, generation.resolved)

    def _keep_receipt(self, answer_id: str, generation: Generation[Any]) -> None:
        """The answer does not wait for its receipt, and does not fail for want of it."""
        grounded, resolved = generation.grounded, generation.resolved
        if grounded is None:
            return

        async def work(session: AsyncSession) -> None:
            await receipts.keep(
                session,
                resolved.tenant_id,
                answer_id,
                model=resolved.model,
                version=resolved.version,
                dataset=grounded.dataset,
                grounding=grounded.grounding,
            )

        try:
            _ = self.write_behind.add(receipts.row(answer_id), work)
        except Unavailable as exc:
            log.warning("a receipt was not kept", answer=answer_id, error=exc.message)

    async def _open(
        self, stack: AsyncExitStack, generation: Generation[Any]
    ) -> AsyncIterator[bytes]:
        """Begin to generate: with a canary that the engine refuses, by what answers beside it."""
        try:
            try:
                return await self._open_shortened(stack, generation)
            except AdapterRefused as exc:
                refused = generation.resolved
                if refused.fallback is None:
                    raise
                await self._stop_canary(refused, exc)
                generation.resolved = refused.fallback
                generation.grounded = await self._ground(generation)
                return await self._open_shortened(stack, generation)
        except (EngineRejected, AdapterRefused) as exc:
            raise for_caller(exc, generation.request, generation.resolved) from exc

    async def _open_shortened(
        self, stack: AsyncExitStack, generation: Generation[Any]
    ) -> AsyncIterator[bytes]:
        """Begin to generate, with a smaller request each time that the context is too short.

        References go first: what fits without them is never shortened or refused on their account.
        """
        body = self._body(generation)
        while True:
            try:
                return await stack.enter_async_context(self._begin(body, generation))
            except EngineRejected as exc:
                bare = None
                if generation.grounded is not None and is_too_long(exc):
                    bare = without_references(generation.grounded)
                if bare is None:
                    shorten(exc, body, generation.request)
                else:
                    generation.grounded = bare
                    body = self._body(generation)

    async def _stop_canary(self, refused: Resolved, why: AdapterRefused) -> None:
        """Note that a canary cannot answer: who asks next asks what is live. The answer does not wait."""
        arm = refused.arm
        if arm is None:
            return
        log.error("canary was refused", tenant=refused.slug, reason=why.message)

        async def work(session: AsyncSession) -> None:
            await canary.end_refused(session, refused.tenant_id, revision=arm.revision)

        try:
            await self.write_behind.put(f"canary {refused.slug} {arm.revision}", work)
        except Unavailable as exc:  # the next request that meets it tries again
            log.warning("canary could not be stopped yet", tenant=refused.slug, error=exc.message)

    def _begin(
        self, body: dict[str, Any], generation: Generation[Any]
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        request, resolved = generation.request, generation.resolved
        if isinstance(request, TextRequest) and not request.streams:
            return self._in_one_piece(body, request, resolved)
        return self._engine.stream(
            body,
            tenant=resolved.slug,
            adapter=resolved.adapter,
            path=request.path,
            on_begun=generation.decoder.begin,
        )

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


def _chat(
    request: ChatRequest, resolved: Resolved, principal: Principal, mode: Mode
) -> Generation[ChunkChoice]:
    decoder = ChatStreamDecoder(
        request.choices, calls=request.tools is not None, stops=bool(request.sampling.stop)
    )
    return Generation(request, resolved, principal, mode, decoder)


def _texts(
    request: TextRequest, resolved: Resolved, principal: Principal, mode: Mode
) -> Generation[TextChoice]:
    decoder = TextStreamDecoder(
        request.choices,
        prompts=len(request.prompts),
        generates=request.sampling.max_tokens > 0,
    )
    return Generation(request, resolved, principal, mode, decoder)


async def _collect(
    answering: AbstractAsyncContextManager[StreamedAnswer[C]], add: Callable[[list[C]], None]
) -> Usage:
    """Put all of an answer together; returns what it used.

    Raises:
        EngineUnavailable: it ended before it was complete, or the engine did not count its tokens.
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
