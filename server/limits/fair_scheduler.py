"""A fair queue before the engine: the tenant with the smallest virtual token counter is next.

From "Fairness in Serving Large Language Models" (arXiv 2401.00588, algorithm 2). The engine answers in
the order of arrival, so a tenant with many requests would delay all others. Therefore the engine gets
no more requests than it generates at once, and the rest wait here. When a place becomes free, the tenant
with the smallest counter gets it. A counter grows by the prompt's tokens (weight 1), cached ones
included, when a request enters, and by the answer's (weight 2) as they come. When a tenant joins the
queue, its counter is raised to the smallest one in the queue, or to that of the tenant that was served
last if the queue is empty: idle time earns no credit.

Answers are not interrupted, so one tenant could hold every place until its answers end. Therefore a few
places are reserved for tenants that have no request at the engine; those enter at once. The cost: a
tenant that is alone cannot use the reserve. The engine is started with as many more places as are
reserved (``server/engine/backends/vllm/launch.py``).

Three things are not bounded here and wait inside the engine in the order of arrival: prompts that fill
its memory before all places are taken, answers of one request beyond the number of places, and the
requests of other copies of the server.
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
_RESERVE = 9  # one place of nine is reserved
_FEW = 4  # with fewer places, none is


class Ticket:
    """A request's places at the engine; ``charge`` its tokens, so that its tenant's counter grows."""

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
        """Count tokens of the answer as they come."""
        self._answered += tokens
        self._queue.counters[self.tenant] += ANSWER_WEIGHT * tokens

    def reconcile(self, *, prompt_tokens: int, answer_tokens: int) -> None:
        """Replace what was charged by the engine's own counts."""
        self._queue.counters[self.tenant] += PROMPT_WEIGHT * (prompt_tokens - self.prompt_tokens)
        self.charge(answer_tokens - self._answered)
        self.prompt_tokens = prompt_tokens


@dataclass(slots=True, eq=False)
class _Waiting:
    place: Ticket
    turn: asyncio.Future[None]


class FairScheduler:
    """The fair queue before the engine. Use on one event loop.

    Args:
        max_num_seqs: returns how many answers the engine generates at once.
        per_tenant: how many requests of one tenant may wait.
        total: how many requests may wait.
        wait_seconds: how long a request may wait.
        waited: called with the seconds that each request waited.

    Example:
        async with scheduler.place(tenant_id, prompt_tokens=120) as ticket:
            async for tokens in answer:
                ticket.charge(len(tokens))
    """

    def __init__(
        self,
        *,
        max_num_seqs: Callable[[], int],
        per_tenant: int = 128,
        total: int = 1024,
        wait_seconds: float = 60.0,
        waited: Callable[[float], object] = lambda _: None,
    ) -> None:
        self._max_num_seqs = max_num_seqs
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
        """Hold a place at the engine for each of the request's ``answers``, as far as there are enough.

        It does not wait where there are free places and an empty queue.

        Raises:
            TooMany: ``per_tenant`` requests of this tenant wait already.
            EngineBusy: ``total`` requests wait already, or this one has waited ``wait_seconds``.
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
    def running_of(self) -> dict[str, int]:
        """Requests at the engine by tenant; of those that have none there is no entry."""
        return dict(self._running)

    @property
    def waiting_of(self) -> dict[str, int]:
        """Requests that wait by tenant; of those that have none there is no entry."""
        return {tenant: len(line) for tenant, line in self._lines.items()}

    @property
    def _reserve(self) -> int:
        """Places reserved for tenants that have none."""
        sequences = self._max_num_seqs()
        return max(1, sequences // _RESERVE) if sequences >= _FEW else 0

    @property
    def _open_to_all(self) -> int:
        return max(1, self._max_num_seqs() - self._reserve)

    @property
    def _free(self) -> int:
        return self._open_to_all - self._taken

    def _lift(self, tenant: str) -> None:
        """Raise the counter of a tenant that joins the queue, so that idle time earns no credit."""
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
                self._leave(place)  # it got its place at this moment
            else:
                self._remove(mine)
                self._admit()  # a request behind it may need fewer places
            if isinstance(exc, TimeoutError):
                raise EngineBusy(
                    f"No place became free within {self._wait_seconds:.0f} seconds.",
                    retry_after_seconds=RETRY_SECONDS,
                ) from exc
            raise
        self._waited(loop.time() - began)

    def _admit(self) -> None:
        """Let in the requests that may enter now."""
        while (found := self._next()) is not None:
            mine, reserved = found
            self._remove(mine)
            if not mine.turn.done():  # else its client has just gone
                self._enter(mine.place, reserved=reserved)
                mine.turn.set_result(None)

    def _next(self) -> tuple[_Waiting, bool] | None:
        """The next request, and whether it takes reserved places; None where none may enter."""
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
