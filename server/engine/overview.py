"""What an operator sees of the engine, in words and figures."""

from datetime import datetime
from typing import Literal

import msgspec

from server.engine.figures import Figures
from server.engine.process.command import Choice
from server.engine.process.supervisor import EngineStatus, State
from server.engine.service import EngineService

Tone = Literal["ok", "going", "warn", "bad"]


class EngineState(msgspec.Struct, frozen=True, kw_only=True):
    """What a state is called, and what it means for those who ask something."""

    word: str
    tone: Tone
    meaning: str


STATES: dict[State, EngineState] = {
    "ready": EngineState(word="Ready", tone="ok", meaning="Assistants answer."),
    "starting": EngineState(
        word="Starting", tone="going", meaning="Assistants answer as soon as it is ready."
    ),
    "restarting": EngineState(
        word="Starting again",
        tone="warn",
        meaning="Assistants do not answer until it is ready; it is started by itself.",
    ),
    "stopped": EngineState(word="Stopped", tone="bad", meaning="Assistants do not answer."),
    "failed": EngineState(
        word="Failed",
        tone="bad",
        meaning="Assistants do not answer. It ends again and again, so it is tried rarely.",
    ),
}
ABSENT = EngineState(
    word="None",
    tone="bad",
    meaning="This server runs no engine: everything but answering works.",
)
ELSEWHERE = EngineState(
    word="Failed",
    tone="bad",
    meaning="Assistants do not answer. It runs elsewhere, and has to be restarted there.",
)


class EngineView(msgspec.Struct, frozen=True, kw_only=True):
    """The engine at a moment.

    ``requests`` are at the engine or wait for their adapter (``waiting_for_adapter``). ``can_restart``:
    it is this server's, and there is something to end or to start.
    """

    state: EngineState
    status: EngineStatus
    base: str
    address: str
    requests: int
    places: int
    loaded: tuple[str, ...]
    in_use: int
    slots: int
    waiting_for_adapter: int
    checked_at: datetime | None
    figures: Figures
    can_restart: bool

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Its settings, with reasons."""
        return self.status.choices


def state_of(engine: EngineService | None) -> EngineState:
    """The engine's state in words."""
    if engine is None:
        return ABSENT
    if engine.status.state == "failed" and not engine.can_restart:
        return ELSEWHERE
    return STATES[engine.status.state]


async def overview(engine: EngineService) -> EngineView:
    """The engine as it is now; asks it for its figures where it is ready."""
    status = engine.status
    ready = status.state == "ready"
    return EngineView(
        state=state_of(engine),
        status=status,
        base=engine.base,
        address=engine.client.address,
        requests=engine.requests,
        places=engine.max_num_seqs,
        loaded=tuple(engine.adapters.loaded),
        in_use=len(engine.adapters.in_flight),
        slots=engine.adapters.max_loaded,
        waiting_for_adapter=engine.adapters.waiting,
        checked_at=engine.checked_at,
        figures=await engine.figures.read() if ready else Figures(),
        can_restart=engine.can_restart and status.state != "stopped" and not engine.draining,
    )
