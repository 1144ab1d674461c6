"""Who goes to the engine next, and what becomes of those that cannot."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server.errors import EngineBusy, TooMany
from server.limits.fair_scheduler import ANSWER_WEIGHT, PROMPT_WEIGHT, FairScheduler, Ticket


def line(sequences: int = 9, **options: Any) -> FairScheduler:
    return FairScheduler(max_num_seqs=lambda: sequences, **options)


async def wait_idle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


class Requests:
    """Requests that hold their places until they are told to end."""

    def __init__(self, queue: FairScheduler, group: asyncio.TaskGroup) -> None:
        self.queue = queue
        self.entered: list[str] = []
        self.places: dict[str, Ticket] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}
        self._group = group

    async def send(self, name: str, *, prompt: int = 1, answers: int = 1) -> None:
        """A request named ``<tenant><number>``."""
        self._ends[name] = asyncio.Event()
        self.tasks[name] = self._group.create_task(self._run(name, prompt, answers))
        await wait_idle()

    async def _run(self, name: str, prompt: int, answers: int) -> None:
        async with self.queue.place(name[0], prompt_tokens=prompt, answers=answers) as place:
            self.entered.append(name)
            self.places[name] = place
            await self._ends[name].wait()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await wait_idle()

    async def end_all(self) -> None:
        for event in self._ends.values():
            event.set()
        await wait_idle()


@asynccontextmanager
async def requests(sequences: int = 9, **options: Any) -> AsyncIterator[Requests]:
    async with asyncio.TaskGroup() as group:
        made = Requests(line(sequences, **options), group)
        yield made
        await made.end_all()
    assert made.queue.waiting == 0
    assert made.queue._free == made.queue._open_to_all
    assert not made.queue._running


class Engine:
    """Generates a token of every request at each step, in no time."""

    def __init__(self) -> None:
        self.served: Counter[str] = Counter()
        self._waiting: list[asyncio.Future[None]] = []

    async def answer(self, queue: FairScheduler, tenant: str, prompt: int, tokens: int) -> None:
        async with queue.place(tenant, prompt_tokens=prompt) as place:
            self.served[tenant] += PROMPT_WEIGHT * prompt
            for _ in range(tokens):
                turn = asyncio.get_running_loop().create_future()
                self._waiting.append(turn)
                await turn
                place.charge(1)
                self.served[tenant] += ANSWER_WEIGHT

    async def step(self) -> None:
        await wait_idle()
        turns, self._waiting = self._waiting, []
        for turn in turns:
            turn.set_result(None)


async def test_two_greedy_tenants_are_served_alike_whatever_they_send():
    queue, engine = line(8, per_tenant=1000), Engine()
    slots, prompts, answers = 7, {"a": 5, "b": 60}, {"a": 50, "b": 7}
    most = 2 * max(PROMPT_WEIGHT * 60, ANSWER_WEIGHT * slots * 50)  # the paper's bound, theorem 4.4
    furthest = 0
    async with asyncio.TaskGroup() as group:
        for number in range(300):  # a is first, and sends three times as many
            tenant = "b" if number >= 225 else "a"
            group.create_task(
                engine.answer(queue, tenant, prompts[tenant], answers[tenant]), name=tenant
            )
        while set(queue._lines) != {"b"}:
            await engine.step()
            if set(queue._lines) == {"a", "b"}:
                furthest = max(furthest, abs(engine.served["a"] - engine.served["b"]))
            elif engine.served["b"]:
                break
        for task in asyncio.all_tasks():
            if task.get_name() in ("a", "b"):
                task.cancel()
    assert engine.served["b"] > 3_000  # both had requests in line for long
    assert furthest <= most
    assert furthest < 0.25 * engine.served["b"]


async def test_being_idle_saves_nothing_up():
    async with requests(1) as asked:
        await asked.send("a1")
        asked.places["a1"].charge(1000)
        await asked.send("a2")
        await asked.send("b1")
        assert asked.queue.counters["b"] == asked.queue.counters["a"] > 1000


async def test_who_comes_to_an_empty_line_is_lifted_to_who_was_served_last():
    async with requests(9) as asked:
        await asked.send("a1")
        asked.places["a1"].charge(500)
        await asked.send("b1", prompt=3)
        assert asked.queue.counters["b"] == asked.queue.counters["a"] + 3


async def test_the_tenant_that_was_served_least_is_next_and_answers_weigh_double():
    async with requests(1) as asked:
        await asked.send("c1")
        await asked.send("a1", prompt=100)
        await asked.send("b1", prompt=10)
        await asked.end("c1")  # both stand at the same count: the first that came
        assert asked.entered[-1] == "a1"
        await asked.send("a2", prompt=100)
        await asked.end("a1")
        assert asked.entered[-1] == "b1"
        asked.places["b1"].charge(46)  # 10 + 2 * 46 is more than 100
        await asked.send("b2", prompt=10)
        await asked.end("b1")
        assert asked.entered[-1] == "a2"


async def test_what_the_engine_counted_takes_the_place_of_the_estimate():
    async with requests(9) as asked:
        await asked.send("a1", prompt=10)
        place = asked.places["a1"]
        place.charge(3)
        place.reconcile(prompt_tokens=25, answer_tokens=5)
        assert asked.queue.counters["a"] == 25 + 2 * 5
        place.reconcile(prompt_tokens=25, answer_tokens=5)
        assert asked.queue.counters["a"] == 25 + 2 * 5


async def test_a_greedy_tenant_leaves_places_to_those_that_have_none():
    async with requests(18) as asked:
        for number in range(20):
            await asked.send(f"a{number}")
        assert (len(asked.entered), asked.queue.waiting) == (16, 4)
        for name in ("b1", "b2", "c1", "d1"):
            await asked.send(name)
        assert asked.entered[16:] == ["b1", "c1"]  # the second of b is greedy too; d has no room
        await asked.end("b1")
        assert asked.entered[18:] == ["d1"]
        await asked.end("a0")
        assert len(asked.entered) == 20
        assert asked.entered[19][0] in "ab"  # an ordinary place


async def test_a_small_engine_keeps_no_place_free():
    async with requests(3) as asked:
        for number in range(4):
            await asked.send(f"a{number}")
        assert len(asked.entered) == 3


async def test_several_answers_take_as_many_places_and_are_not_overtaken():
    async with requests(9) as asked:
        for number in range(7):
            await asked.send(f"a{number}")
        await asked.send("a7", answers=4)
        await asked.send("a8")
        assert len(asked.entered) == 7
        for number in range(3):
            await asked.end(f"a{number}")
        assert asked.entered[7:] == ["a7"]


async def test_more_answers_than_places_take_all_there_are():
    async with requests(2) as asked:
        await asked.send("a1", answers=8)
        assert asked.entered == ["a1"]
        await asked.send("a2")
        assert asked.entered == ["a1"]


async def test_a_free_place_is_taken_without_waiting_for_anything():
    entering = line().place("a", prompt_tokens=1)
    step = entering.__aenter__()
    with pytest.raises(StopIteration) as entered:
        step.send(None)
    await entering.__aexit__(None, None, None)
    assert isinstance(entered.value.value, Ticket)


async def test_one_tenants_line_has_an_end():
    async with requests(1, per_tenant=2) as asked:
        for name in ("a1", "a2", "a3"):
            await asked.send(name)
        with pytest.raises(TooMany) as refused:
            async with asked.queue.place("a", prompt_tokens=1):
                pass
        assert refused.value.code == "tenant_queue_full"
        assert refused.value.retry_after_seconds
        await asked.send("b1")
        assert asked.queue.waiting == 3


async def test_the_whole_line_has_an_end():
    async with requests(1, total=2) as asked:
        for name in ("a1", "a2", "b1"):
            await asked.send(name)
        with pytest.raises(EngineBusy) as refused:
            async with asked.queue.place("c", prompt_tokens=1):
                pass
        assert refused.value.retry_after_seconds


async def test_nobody_waits_for_longer_than_allowed():
    async with requests(1, wait_seconds=0.01) as asked:
        await asked.send("a1")
        with pytest.raises(EngineBusy):
            async with asked.queue.place("b", prompt_tokens=1):
                pass
        assert asked.queue.waiting == 0


async def test_who_goes_while_waiting_leaves_the_line():
    async with requests(1) as asked:
        for name in ("a1", "b1", "c1"):
            await asked.send(name)
        asked.tasks["b1"].cancel()
        await wait_idle()
        assert asked.queue.waiting == 1
        await asked.end("a1")
        assert asked.entered == ["a1", "c1"]


@pytest.mark.parametrize("first", ["client", "place"])
async def test_who_goes_in_the_moment_of_its_turn_gives_the_place_back(first):
    async with requests(1) as asked:
        for name in ("a1", "b1", "c1"):
            await asked.send(name)
        if first == "client":  # and its task has not noticed yet
            asked.tasks["b1"].cancel()
            asked.queue._leave(asked.places["a1"])
        else:
            asked.queue._leave(asked.places["a1"])
            asked.tasks["b1"].cancel()
        await wait_idle()
        assert asked.entered == ["a1", "c1"]
        asked.queue._enter(asked.places["a1"])  # a1 leaves in earnest at the end


async def test_waiting_is_measured():
    waits: list[float] = []
    async with requests(1, waited=waits.append) as asked:
        await asked.send("a1")
        await asked.send("a2")
        assert waits == [0.0]
        await asked.end("a1")
        assert len(waits) == 2
        assert waits[1] > 0
