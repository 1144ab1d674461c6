"""Who goes to the engine next: the tenant that was served least, by the virtual token counter.

From "Fairness in Serving Large Language Models" (arXiv 2401.00588, algorithm 2). The engine answers in
the order of arrival, so a tenant that sends many requests fills it for everybody. Therefore no more
requests are let to it than it generates at once, and the others wait here. When a place becomes free,
the tenant with the smallest counter gets it. Counters grow with the prompt's tokens (weight 1) when a
request is let in, cached ones included, and with the answer's (weight 2) as they come. A tenant whose
first request joins the line is lifted to the smallest counter in the line, to that of the last tenant
that was served where nobody is in line: being idle saves nothing up.

Answers are not interrupted, so a tenant may hold every place until its answers end. Against that a few
places are kept for tenants that have nothing at the engine: whoever was quiet enters at once. What it
costs: a tenant that is alone cannot use them. The engine is started with so many places more than one
tenant should have (``server/engine/backends/vllm/launch.py``).

What is not kept in bounds here, and waits inside the engine in the order of arrival: prompts that fill
its memory before its places are taken, the part of one request's answers that are more than there are
places, and what other copies of the server send to the same engine.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from server.errors import EngineBusy, TooMany

PROMPT_WEIGHT = 1
ANSWER_WEIGHT = 2
RETRY_SECONDS = 5.0
_RESERVE = 9  # one place of so many is kept
_FEW = 4  # where there are fewer, none is


class Ticket:
    """A place at the engine. Say what it generates, so that its tenant's counter grows."""

    def __init__(
        self, queue: "FairScheduler", tenant: str, *, prompt_tokens: int, width: int
    ) -> None:
        self._queue = queue
        self.tenant = tenant
        self.prompt_tokens = prompt_tokens
        self.width = width
        self.reserved = False
        self._answered = 0

    def charge(self, tokens: int) -> None:
        """So many tokens of the answer have come."""
        self._answered += tokens
        self._queue.counters[self.tenant] += ANSWER_WEIGHT * tokens

    def settle(self, *, prompt_tokens: int, answer_tokens: int) -> None:
        """What the engine counted in the end, instead of what was charged."""
        self._queue.counters[self.tenant] += PROMPT_WEIGHT * (prompt_tokens - self.prompt_tokens)
        self.charge(answer_tokens - self._answered)
        self.prompt_tokens = prompt_tokens


@dataclass(slots=True, eq=False)
class _Waiting:
    place: Ticket
    turn: asyncio.Future[None]


class FairScheduler:
    """The line before the engine. Use on one event loop.

    ``sequences`` tells how many answers the engine generates at once. At most ``total`` requests wait,
    ``per_tenant`` of one tenant, and none for longer than ``wait_seconds``. ``waited`` is told each
    request's seconds in line.
    """

    def __init__(
        self,
        *,
        sequences: Callable[[], int],
        per_tenant: int = 128,
        total: int = 1024,
        wait_seconds: float = 60.0,
        waited: Callable[[float], object] = lambda _: None,
    ) -> None:
        self._sequences = sequences
        self._per_tenant = per_tenant
        self._total = total
        self._wait_seconds = wait_seconds
        self._waited = waited
        self._lines: dict[str, deque[_Waiting]] = {}
        self._running: dict[str, int] = {}
        self._taken = 0
        self._taken_reserve = 0
        self._last = ""
        self.counters: dict[str, float] = {}
        self.waiting = 0

    @asynccontextmanager
    async def place(
        self, tenant: str, *, prompt_tokens: int, answers: int = 1
    ) -> AsyncIterator[Ticket]:
        """Hold a place at the engine, of as many as there are ``answers``.

        With a free place and nobody in line nothing is waited for.

        Raises:
            TooMany: so many of this tenant's requests wait already.
            EngineBusy: so many of all tenants' wait already, or this one has waited long enough.
        """
        width = min(answers, self._open_to_all)
        place = Ticket(self, tenant, prompt_tokens=prompt_tokens, width=width)
        self._lift(tenant)
        if not self._lines and self._free >= width:
            self._enter(place)
            self._waited(0.0)
        else:
            await self._wait(place)
        try:
            yield place
        finally:
            self._leave(place)

    @property
    def _reserve(self) -> int:
        """Places that are kept for tenants that have none."""
        sequences = self._sequences()
        return max(1, sequences // _RESERVE) if sequences >= _FEW else 0

    @property
    def _open_to_all(self) -> int:
        return max(1, self._sequences() - self._reserve)

    @property
    def _free(self) -> int:
        return self._open_to_all - self._taken

    def _lift(self, tenant: str) -> None:
        """Take away what a tenant would have saved up by not being in line."""
        counter = self.counters.get(tenant, 0.0)
        if tenant not in self._lines:
            if self._lines:
                counter = max(counter, min(self.counters[other] for other in self._lines))
            else:
                counter = max(counter, self.counters.get(self._last, 0.0))
        self.counters[tenant] = counter

    async def _wait(self, place: Ticket) -> None:
        line = self._lines.get(place.tenant, ())
        if len(line) >= self._per_tenant:
            raise TooMany(
                f"{len(line)} of your requests wait for the model already. Send fewer at a time.",
                retry_after_seconds=RETRY_SECONDS,
                code="tenant_queue_full",
            )
        if self.waiting >= self._total:
            raise EngineBusy("Too many requests wait already.", retry_after_seconds=RETRY_SECONDS)
        loop = asyncio.get_running_loop()
        began = loop.time()
        mine = _Waiting(place, loop.create_future())
        self._lines.setdefault(place.tenant, deque()).append(mine)
        self.waiting += 1
        self._admit()
        try:
            if not mine.turn.done():
                async with asyncio.timeout(self._wait_seconds):
                    await mine.turn
        except BaseException as exc:
            if mine.turn.done() and not mine.turn.cancelled():
                self._leave(place)  # it was given in the very moment
            else:
                self._remove(mine)
                self._admit()  # it may have stood before somebody that needs less
            if isinstance(exc, TimeoutError):
                raise EngineBusy(
                    f"No place became free within {self._wait_seconds:.0f} seconds.",
                    retry_after_seconds=RETRY_SECONDS,
                ) from exc
            raise
        self._waited(loop.time() - began)

    def _admit(self) -> None:
        """Let in whoever may enter now."""
        while (found := self._next()) is not None:
            mine, reserved = found
            self._remove(mine)
            if not mine.turn.done():  # else its client went just now
                self._enter(mine.place, reserved=reserved)
                mine.turn.set_result(None)

    def _next(self) -> tuple[_Waiting, bool] | None:
        """Who is next, and whether into the reserve; None when nobody may enter."""
        if not self._lines:
            return None

        def served(tenant: str) -> tuple[float, int]:
            return self.counters[tenant], self._running.get(tenant, 0)

        first = self._lines[min(self._lines, key=served)][0]
        if first.place.width <= self._free:
            return first, False
        room = self._reserve - self._taken_reserve
        quiet = [
            tenant
            for tenant, line in self._lines.items()
            if tenant not in self._running and line[0].place.width <= room
        ]
        return (self._lines[min(quiet, key=served)][0], True) if quiet else None

    def _enter(self, place: Ticket, *, reserved: bool = False) -> None:
        place.reserved = reserved
        if reserved:
            self._taken_reserve += place.width
        else:
            self._taken += place.width
        self._running[place.tenant] = self._running.get(place.tenant, 0) + 1
        self.counters[place.tenant] += PROMPT_WEIGHT * place.prompt_tokens
        self._last = place.tenant

    def _leave(self, place: Ticket) -> None:
        if place.reserved:
            self._taken_reserve -= place.width
        else:
            self._taken -= place.width
        self._running[place.tenant] -= 1
        if not self._running[place.tenant]:
            del self._running[place.tenant]
        self._admit()

    def _remove(self, mine: _Waiting) -> None:
        line = self._lines.get(mine.place.tenant)
        if line is not None and mine in line:
            line.remove(mine)
            self.waiting -= 1
            if not line:
                del self._lines[mine.place.tenant]
