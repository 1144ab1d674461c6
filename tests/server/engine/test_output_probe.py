import asyncio
from time import monotonic
from typing import Any

import msgspec
import pytest

from server.engine.output_probe import OutputProbe
from server.errors import EngineUnavailable

TRUE = "one, two, three, four, five"


class Engine:
    """Gives the next of some answers; an exception is raised, None never comes."""

    def __init__(self, *answers: str | Exception | None) -> None:
        self.heard_at = monotonic()
        self.bodies: list[dict[str, Any]] = []
        self._answers = list(answers)

    async def complete(self, body: dict[str, Any]) -> bytes:
        self.bodies.append(body)
        answer = self._answers.pop(0)
        if answer is None:
            await asyncio.sleep(60)
        if isinstance(answer, Exception):
            raise answer
        return msgspec.json.encode({"choices": [{"message": {"content": answer}}]})


async def probe_of(*answers: str | Exception | None) -> tuple[OutputProbe, Engine]:
    """A probe whose engine gave the right answer when it was new."""
    engine = Engine(TRUE, *answers)
    probe = OutputProbe(engine, base="base", silent_seconds=0.05)
    await probe.record()
    return probe, engine


async def test_an_engine_that_answers_as_before_has_no_problem():
    probe, engine = await probe_of(TRUE)
    assert await probe.problem() is None
    assert {body["model"] for body in engine.bodies} == {"base"}
    assert len({body["cache_salt"] for body in engine.bodies}) == 2


async def test_an_answer_that_drifts_late_is_the_same_one():
    probe, _ = await probe_of("one, two, three and so on")
    assert await probe.problem() is None


async def test_only_an_answer_that_stays_wrong_is_a_problem():
    probe, engine = await probe_of("!!!!", "!!!!", TRUE)
    assert await probe.problem() is None
    assert len(engine.bodies) == 4
    probe, _ = await probe_of("!!!!", "!!!!", "!!!!")
    assert "changed from 'one, two, three, four, five' to '!!!!'" in (await probe.problem() or "")


async def test_a_silent_engine_is_hung_unless_it_answers_others():
    probe, engine = await probe_of(None, None)
    assert "said nothing" in (await probe.problem() or "")

    async def answer_another() -> None:
        await asyncio.sleep(0.01)
        engine.heard_at = monotonic()

    async with asyncio.TaskGroup() as group:
        group.create_task(answer_another())
        slow = group.create_task(probe.problem())
    assert slow.result() is None


async def test_an_engine_that_cannot_be_asked_is_left_to_the_health_checks():
    probe, _ = await probe_of(EngineUnavailable("gone"))
    assert await probe.problem() is None


async def test_a_new_engine_must_say_something():
    with pytest.raises(EngineUnavailable, match="empty"):
        await OutputProbe(Engine(""), base="base", silent_seconds=1).record()
