"""Lets requests in, and counts what they use.

A request passes the limits of its tenant and key, then waits for its turn in the fair queue.
However it ends, what it used goes to the metrics, the usage ledger, the limits and the queue. All of
that is in memory: no answer waits for the database here.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from server.adapters.schemas import Resolved
from server.auth.keys import Principal
from server.chat.completions import TextChoice
from server.chat.grounding import Grounded
from server.chat.prompt import AnyRequest, estimate_prompt_tokens, estimate_tokens
from server.chat.schemas import ChunkChoice
from server.chat.stream import StreamDecoder
from server.errors import Invalid, ServerError
from server.limits.fair_scheduler import FairScheduler, Ticket
from server.limits.limiter import RateLimiter
from server.metrics import Metrics
from server.retrieval.schemas import Grounding
from server.usage.engine_time import EngineTime
from server.usage.ledger import UsageLedger
from server.usage.schemas import Usage

Mode = Literal["stream", "whole"]
C = TypeVar("C", bound=ChunkChoice | TextChoice)


@dataclass(slots=True)
class Generation(Generic[C]):
    """One request under way: what is asked, of which model, by whom, and what has come back.

    Args:
        resolved: who answers; another one from when the engine has refused a canary.
        mode: how the caller gets the answer; the engine streams it in either case.
        decoder: has seen all of the answer so far.
        grounded: the request as the model reads it, and what it is shown; None of texts.
    """

    request: AnyRequest
    resolved: Resolved
    principal: Principal
    mode: Mode
    decoder: StreamDecoder[C]
    grounded: Grounded | None = None

    @property
    def grounding(self) -> Grounding | None:
        """What it is shown; None of texts."""
        return None if self.grounded is None else self.grounded.grounding

    @property
    def model_kind(self) -> str:
        """The metrics' word for the model: its name would have no bound."""
        return "adapter" if self.resolved.adapter else "base"

    def usage(self, *, failed: bool) -> Usage:
        """What was used, wherever the answer ended.

        The engine's own counts; where there are none and the engine had begun, an estimate.
        """
        if (counted := self.decoder.counted) is not None:
            return counted
        answered = self.decoder.tokens
        if not answered and (failed or not self.decoder.begun):
            return Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
        prompt = estimate_prompt_tokens(self.request, self.resolved)
        return Usage(
            prompt_tokens=prompt, completion_tokens=answered, total_tokens=prompt + answered
        )


class Admission:
    """The way to the engine: first the limits, then the queue."""

    def __init__(self, limiter: RateLimiter, queue: FairScheduler) -> None:
        self._limiter = limiter
        self._queue = queue

    @asynccontextmanager
    async def enter(self, generation: Generation[C]) -> AsyncIterator[Ticket]:
        """Wait for a place at the engine; leaving gives it back and reconciles the estimate.

        Raises:
            TooMany: the tenant or its key is at a limit, or too many of its requests wait.
            EngineBusy: too many requests wait, or this one has waited for too long.
        """
        request, resolved = generation.request, generation.resolved
        estimate = estimate_tokens(request, resolved)
        prompt = estimate_prompt_tokens(request, resolved)
        async with (
            self._limiter.admit(generation.principal, tokens=estimate) as admission,
            self._queue.place(
                resolved.tenant_id, prompt_tokens=prompt, answers=request.choices
            ) as ticket,
        ):
            failed = False
            try:
                yield ticket
            except ServerError:
                failed = True
                raise
            finally:
                usage = generation.usage(failed=failed)
                # a client that leaves early pays for the prompt; a request that failed does not
                prompt = 0 if failed else usage.prompt_tokens
                ticket.reconcile(prompt_tokens=prompt, answer_tokens=usage.completion_tokens)
                admission.reconcile(prompt + usage.completion_tokens)


class Accounting:
    """Counts requests for the operator's metrics and for the tenants' usage.

    Args:
        base: the public name of the base, under which the ledger counts what no adapter answered.
    """

    def __init__(self, ledger: UsageLedger, metrics: Metrics, *, base: str) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._base = base
        self._engine_time = EngineTime()

    @contextmanager
    def count(self, generation: Generation[C]) -> Iterator[None]:
        """Count a request that has its place at the engine, however it ends."""
        outcome = "failed"
        in_flight = self._metrics.in_flight.labels(generation.mode)
        in_flight.inc()
        entered = self._engine_time.enter()
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
            self._add(generation, outcome, gpu_seconds=self._engine_time.leave(entered))

    def refuse(self, generation: Generation[C]) -> None:
        """Count a request that a limit turned away."""
        resolved = generation.resolved
        self._ledger.refuse(
            tenant_id=resolved.tenant_id,
            key_id=generation.principal.key_id,
            model=self._name(resolved),
        )

    def first_token(self, generation: Generation[C], seconds: float) -> None:
        """Note how long a request waited for the first chunk of its answer."""
        self._metrics.first_token.labels(generation.model_kind).observe(seconds)

    def _add(self, generation: Generation[C], outcome: str, *, gpu_seconds: float) -> None:
        resolved = generation.resolved
        failed = outcome in ("failed", "refused")
        usage = generation.usage(failed=failed)
        self._metrics.chats.labels(generation.model_kind, outcome).inc()
        self._metrics.tokens.labels("prompt").inc(usage.prompt_tokens)
        self._metrics.tokens.labels("cached").inc(usage.cached_tokens)
        self._metrics.tokens.labels("completion").inc(usage.completion_tokens)
        self._ledger.add(
            usage,
            tenant_id=resolved.tenant_id,
            key_id=generation.principal.key_id,
            model=self._name(resolved),
            failed=failed,
            gpu_seconds=gpu_seconds,
            arm=(resolved.arm.revision, resolved.arm.is_canary) if resolved.arm else None,
        )

    def _name(self, resolved: Resolved) -> str:
        return f"{resolved.slug}@{resolved.version}" if resolved.version else self._base
