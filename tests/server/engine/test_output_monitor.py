import asyncio
from typing import Any, cast

from server.engine.adapter_cache import AdapterCache
from server.engine.client import EngineClient
from server.engine.connection import EngineConnection
from server.engine.output_monitor import OutputMonitor
from server.engine.output_probe import OutputProbe
from server.engine.process.supervisor import EngineStatus, StatusFeed


class Probe:
    """Finds the engine's answers wrong."""

    def __init__(self) -> None:
        self.asked = 0

    async def problem(self) -> str:
        self.asked += 1
        return "wrong answers"


class Feed(StatusFeed):
    """Counts how often it is looked at."""

    looks = 0

    @property
    def status(self) -> EngineStatus:
        self.looks += 1
        assert self.looks < 100, "the monitor does not let other tasks run"
        return self._status

    @status.setter
    def status(self, status: EngineStatus) -> None:
        self._status = status


class Stage:
    """A monitor over an engine that is never started."""

    def __init__(self, tmp_path: Any, state: str, **seconds: float) -> None:
        client = EngineClient(uds=tmp_path / "engine.sock")
        self.probe = Probe()
        self.connection = EngineConnection(
            client,
            adapters=AdapterCache(client, max_active=1, max_loaded=1),
            probe=cast("OutputProbe", self.probe),
            max_num_seqs=1,
        )
        self.feed = Feed(EngineStatus(state=cast("Any", state)))
        self.reasons: list[str] = []
        self.monitor = OutputMonitor(
            self.connection,
            feed=self.feed,
            keeper=self,
            **{"probe_seconds": 0.02, "silent_seconds": 60.0, **seconds},
        )

    async def supervise(self) -> None:
        """Nothing: the test says what happens."""

    def recycle(self, reason: str) -> None:
        self.reasons.append(reason)
        self.feed.show(state="restarting")

    async def watch(self, seconds: float) -> None:
        """Let the monitor work for a while."""
        try:
            async with asyncio.timeout(seconds):
                await self.monitor.run()
        except TimeoutError:
            pass


async def test_the_first_use_of_an_adapter_is_followed_by_a_question(tmp_path):
    stage = Stage(tmp_path, "ready")
    stage.connection.adapters.new_adapter_used.set()
    await stage.watch(0.2)
    assert stage.reasons == ["wrong answers"]
    assert stage.probe.asked == 1


async def test_without_requests_nothing_is_asked_and_after_one_something_is(tmp_path):
    stage = Stage(tmp_path, "ready")
    await stage.watch(0.1)
    assert stage.probe.asked == 0
    with stage.connection.requests.counted():
        pass
    await stage.watch(0.2)
    assert stage.probe.asked == 1


async def test_silence_with_a_request_open_is_followed_by_a_question(tmp_path):
    stage = Stage(tmp_path, "ready", probe_seconds=60.0, silent_seconds=0.05)
    with stage.connection.requests.counted():
        await stage.watch(0.3)
    assert stage.reasons == ["wrong answers"]


async def test_a_new_adapter_before_the_engine_is_back_does_not_stop_all_other_work(tmp_path):
    stage = Stage(tmp_path, "restarting")
    stage.connection.adapters.new_adapter_used.set()
    await stage.watch(0.1)
    assert stage.probe.asked == 0
    stage.feed.show(state="ready")
    await stage.watch(0.2)
    assert stage.probe.asked == 1
