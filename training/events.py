"""The events of a training run: one JSON object a line, on standard output and in a file.

The server, the console and the progress bars read these lines, and nothing else of the trainer's
output. Every line has ``event`` and ``at`` (seconds since the epoch).
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

Stage = Literal[
    "indexing", "loading", "estimating", "training", "evaluating", "writing", "searching", "done"
]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 75  # sysexits' EX_TEMPFAIL: state is saved, run again with --resume


class StageEvent(msgspec.Struct, frozen=True, tag_field="event", tag="stage"):
    """The run entered a stage."""

    at: float
    stage: Stage
    detail: str = ""


class EstimateEvent(msgspec.Struct, frozen=True, tag_field="event", tag="estimate"):
    """What the run will need, before it starts. ``basis`` says where the speed figure comes from."""

    at: float
    seconds: float
    memory_bytes: int
    train_tokens: int
    steps: int
    basis: str


class StepEvent(msgspec.Struct, frozen=True, tag_field="event", tag="step"):
    """One optimiser step.

    ``loss``: nats per assistant token; for ``dpo`` and ``kto`` the method's own, per pair or
    judgement. ``tokens`` and ``tokens_per_second`` count all trained tokens. ``accuracy``: share of
    assistant tokens that the model held most probable, in [0, 1]; for ``dpo`` and ``kto``, of the
    wanted replies. ``reward_margin`` (``dpo`` and ``kto`` only): how much more than at the start the
    model prefers wanted to unwanted replies (beta x nats); ``reward_accuracy``: in what share of
    comparisons it does. ``memory_bytes``: the most that the trainer's process had so far, on a CUDA
    device what torch had allocated there, else what was resident.
    """

    at: float
    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    tokens: int
    tokens_per_second: float
    eta_seconds: float
    accuracy: float | None = None
    reward_margin: float | None = None
    reward_accuracy: float | None = None
    memory_bytes: int | None = None


class ValidationEvent(msgspec.Struct, frozen=True, tag_field="event", tag="validation"):
    """Validation loss; ``best`` marks the lowest so far. Its figures are those of `StepEvent`."""

    at: float
    step: int
    loss: float
    best: bool
    accuracy: float | None = None
    reward_margin: float | None = None
    reward_accuracy: float | None = None


class CheckpointEvent(msgspec.Struct, frozen=True, tag_field="event", tag="checkpoint"):
    """A checkpoint is on disk, whole."""

    at: float
    step: int


class ResumedEvent(msgspec.Struct, frozen=True, tag_field="event", tag="resumed"):
    """The run continues from a checkpoint."""

    at: float
    step: int


class EvaluationEvent(msgspec.Struct, frozen=True, tag_field="event", tag="evaluation"):
    """Progress of the evaluation; ``subject`` is base, new, live or lookup, or names a control."""

    at: float
    subject: str
    done: int
    total: int


class ResultEvent(msgspec.Struct, frozen=True, tag_field="event", tag="result"):
    """The run ended well; ``adapter`` is the finished folder."""

    at: float
    adapter: str
    seconds: float


class ErrorEvent(msgspec.Struct, frozen=True, tag_field="event", tag="error"):
    """The run ended badly. ``code``: bad_input, out_of_memory, disk_full, interrupted, internal."""

    at: float
    code: str
    message: str


Event = (
    StageEvent
    | EstimateEvent
    | StepEvent
    | ValidationEvent
    | CheckpointEvent
    | ResumedEvent
    | EvaluationEvent
    | ResultEvent
    | ErrorEvent
)

_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def parse(line: str | bytes) -> Event | None:
    """Read one line; None where it is not an event (a library's own print, for example)."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class EventWriter:
    """Writes events to standard output, and appends them to the file at ``path``."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._file = path.open("ab", buffering=0)
        self._clock = clock

    def emit(self, kind: type[Any], **fields: Any) -> None:  # noqa: ANN401 - the struct checks
        """Write one event of the given struct, stamped now."""
        line = msgspec.json.encode(kind(at=self._clock(), **fields)) + b"\n"
        self._file.write(line)
        with contextlib.suppress(BrokenPipeError):  # the reader has gone: saving comes first
            print(line.decode(), end="", flush=True)  # noqa: T201 - the protocol is standard output

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def evaluation_reporter(
    progress: EventWriter | None, subject: str, *, total: int
) -> Callable[[int], None]:
    """A callback for the number of further items done; it writes `EvaluationEvent` with their sum."""
    done = 0

    def report(more: int) -> None:
        nonlocal done
        done += more
        if more and progress is not None:
            progress.emit(EvaluationEvent, subject=subject, done=done, total=total)

    return report
