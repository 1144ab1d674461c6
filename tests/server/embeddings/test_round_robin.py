import asyncio
from functools import partial

from server.embeddings.round_robin import RoundRobinQueue


async def wait_idle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Stage:
    """Runs work in a queue, one piece at a time, as the test says."""

    def __init__(self) -> None:
        self.queue = RoundRobinQueue()
        self.done: list[str] = []
        self._go = asyncio.Semaphore(0)

    async def pieces(self, tenant: str, name: str, count: int) -> None:
        for piece in range(count):
            await self.queue.turn(tenant, partial(self._work, f"{name}{piece}"))

    async def _work(self, name: str) -> None:
        await self._go.acquire()
        self.done.append(name)

    def let_all(self) -> None:
        for _ in range(100):
            self._go.release()


async def test_a_tenant_with_many_batches_does_not_hold_up_one_with_few():
    stage = Stage()
    async with asyncio.TaskGroup() as group:
        group.create_task(stage.pieces("greedy", "a", 3))
        group.create_task(stage.pieces("greedy", "b", 3))
        await wait_idle()
        group.create_task(stage.pieces("quiet", "q", 2))
        await wait_idle()
        stage.let_all()
    assert stage.done == ["a0", "q0", "b0", "q1", "a1", "b1", "a2", "b2"]


async def test_a_request_that_leaves_while_waiting_holds_no_other_up():
    stage = Stage()
    async with asyncio.TaskGroup() as group:
        group.create_task(stage.pieces("a", "a", 1))
        await wait_idle()
        waiting = group.create_task(stage.pieces("b", "b", 1))
        group.create_task(stage.pieces("c", "c", 1))
        await wait_idle()
        waiting.cancel()
        await wait_idle()
        stage.let_all()
    assert stage.done == ["a0", "c0"]


async def test_a_request_cancelled_at_its_turn_passes_the_turn_on():
    queue, release = RoundRobinQueue(), asyncio.Event()
    done = []

    async def note() -> None:
        done.append("c")

    async with asyncio.TaskGroup() as group:
        group.create_task(queue.turn("a", release.wait))
        await wait_idle()
        second = group.create_task(queue.turn("b", note))
        group.create_task(queue.turn("c", note))
        await wait_idle()
        release.set()
        await asyncio.sleep(0)  # a's work ends in this step, and b is called
        second.cancel()
        await wait_idle()
    assert done == ["c"]
