import asyncio
from array import array
from collections.abc import Sequence
from functools import partial

import pytest

from server.embeddings.encoder import FakeEncoder
from server.embeddings.round_robin import EncodingService, RoundRobinQueue
from server.embeddings.schemas import EmbedRequest


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Stage:
    """Runs work in a line, one piece at a time, as the test says."""

    def __init__(self) -> None:
        self.line = RoundRobinQueue()
        self.done: list[str] = []
        self._go = asyncio.Semaphore(0)

    async def pieces(self, tenant: str, name: str, count: int) -> None:
        for piece in range(count):
            await self.line.turn(tenant, partial(self._work, f"{name}{piece}"))

    async def _work(self, name: str) -> None:
        await self._go.acquire()
        self.done.append(name)

    def let_all(self) -> None:
        for _ in range(100):
            self._go.release()


async def test_a_tenant_with_much_does_not_hold_up_one_with_little():
    stage = Stage()
    async with asyncio.TaskGroup() as group:
        group.create_task(stage.pieces("greedy", "a", 3))
        group.create_task(stage.pieces("greedy", "b", 3))
        await settle()
        group.create_task(stage.pieces("quiet", "q", 2))
        await settle()
        stage.let_all()
    assert stage.done == ["a0", "q0", "b0", "q1", "a1", "b1", "a2", "b2"]


async def test_who_leaves_while_waiting_or_when_called_holds_nobody_up():
    stage = Stage()
    async with asyncio.TaskGroup() as group:
        group.create_task(stage.pieces("a", "a", 1))
        await settle()
        waiting = group.create_task(stage.pieces("b", "b", 1))
        group.create_task(stage.pieces("c", "c", 1))
        await settle()
        waiting.cancel()
        await settle()
        stage.let_all()
    assert stage.done == ["a0", "c0"]


async def test_who_is_cancelled_in_the_moment_of_its_turn_passes_it_on():
    line, release = RoundRobinQueue(), asyncio.Event()
    done = []

    async def note() -> None:
        done.append("c")

    async with asyncio.TaskGroup() as group:
        group.create_task(line.turn("a", release.wait))
        await settle()
        second = group.create_task(line.turn("b", note))
        group.create_task(line.turn("c", note))
        await settle()
        release.set()
        await asyncio.sleep(0)  # a's work ends in this step, and b is called
        second.cancel()
        await settle()
    assert done == ["c"]


class _Counting(FakeEncoder):
    """Notes how many positions each batch computes."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode(self, texts: Sequence[str]) -> list["array[float]"]:
        self.batches.append(len(texts) * max(self.count(texts)))
        return super().encode(texts)


async def test_batches_are_bounded_and_rows_come_back_in_order():
    encoder = _Counting()
    desk = EncodingService(encoder)
    texts = [f"word{n} " * (1 + n * 37 % 250) for n in range(120)]
    answer = await desk.embed(EmbedRequest(tenant="acme", texts=texts, dimensions=384))
    assert max(encoder.batches) <= 1024
    assert len(encoder.batches) > 1
    for row, vector in zip(answer.vectors, encoder.encode(texts), strict=True):
        assert list(array("f", row)) == pytest.approx(list(vector), abs=1e-6)
    assert answer.tokens == sum(encoder.count(texts))
