"""A scheduler that gives adapters time slices.

vLLM runs at most ``max_loras`` adapters in a step and never preempts one for another: with that
many long answers open, another tenant gets nothing until one of them ends (90 s were measured, at
any priority). Here an adapter that others wait for is preempted after its time slice: its requests
go back to the queue, keep what they have generated, and continue in their next slice. Their streams
pause. Nothing is sampled twice or lost, since this is vLLM's own preemption, which it uses when
memory runs short. A preemption costs the prompt blocks that are not whole in the prefix cache (one
block per request), so a slice should be long compared with that.

Chosen with ``--scheduler-cls server.engine.backends.vllm.plugin.lora_scheduler.scheduler``; the
slice's length comes with ``--additional-config '{"turn_seconds": 1.0}'``. Uses internals of vLLM
0.32; ``server.engine.backends.vllm.plugin.check_version`` refuses others.
"""

import time
from collections.abc import Iterable
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

DEFAULT_TURN_SECONDS = 1.0
# Slices of an adapter whose prompt is still being read: what it would lose is not cached yet.
PREFILL_TURNS = 4


class _TakingTurns(Scheduler):  # type: ignore[misc]  # vLLM has no types for us
    """Our part, as a base class before either of vLLM's schedulers."""

    def __init__(self, *, vllm_config: Any, **rest: Any) -> None:  # noqa: ANN401
        super().__init__(vllm_config=vllm_config, **rest)
        options = vllm_config.additional_config or {}
        self._turn_seconds = float(options.get("turn_seconds", DEFAULT_TURN_SECONDS))
        self._began: dict[int, float] = {}  # adapter -> when its slice began

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        """Plan one step, after preempting the adapters whose time slice is over."""
        if self.lora_config:
            self._make_room(time.monotonic())
        return super().schedule(throttle_prefills)

    def _make_room(self, now: float) -> None:
        running = _adapters(self.running)
        self._began = {adapter: self._began.get(adapter, now) for adapter in running}
        if not self.waiting or len(running) < self.lora_config.max_loras:
            return
        waiting = _adapters(self.waiting) - running
        by_age = sorted(running, key=lambda adapter: self._began[adapter])
        done = [adapter for adapter in by_age if self._had_its_turn(adapter, now)]
        for adapter in done[: len(waiting)]:
            self._yield_turn(adapter, now)

    def _had_its_turn(self, adapter: int, now: float) -> bool:
        reading = any(r.is_prefill_chunk for r in self.running if _adapter(r) == adapter)
        turn_seconds = self._turn_seconds * (PREFILL_TURNS if reading else 1)
        return bool(now - self._began[adapter] >= turn_seconds)

    def _yield_turn(self, adapter: int, now: float) -> None:
        for request in [r for r in self.running if _adapter(r) == adapter]:
            self.running.remove(request)
            self._preempt_request(request, now)  # puts it first in the queue; last is fair
            self.waiting.remove_request(request)
            self.waiting.add_request(request)
            # If it is resumed in this same step, it must count as interrupted all the same.
            self.prev_step_scheduled_req_ids.discard(request.request_id)
        del self._began[adapter]


class TakingTurns(_TakingTurns):
    """For engines that plan a step when the one before is done (on CPUs)."""


class TakingTurnsAsync(_TakingTurns, AsyncScheduler):  # type: ignore[misc]
    """For engines that plan the next step while one runs."""


def scheduler(*, vllm_config: Any, **rest: Any) -> Scheduler:  # noqa: ANN401
    """Make the scheduler that fits the engine's settings."""
    ahead = vllm_config.scheduler_config.async_scheduling
    return (TakingTurnsAsync if ahead else TakingTurns)(vllm_config=vllm_config, **rest)


def _adapter(request: Request) -> int:
    """The adapter's number; 0 for the base."""
    return request.lora_request.lora_int_id if request.lora_request else 0


def _adapters(requests: Iterable[Request]) -> set[int]:
    return {_adapter(request) for request in requests} - {0}
