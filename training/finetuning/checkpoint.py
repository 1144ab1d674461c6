"""What a checkpoint remembers of a run, and which checkpoint to go on from. No torch here."""

from pathlib import Path

import msgspec

from training.errors import BadInput

STATE_FILE = "tenantune.json"


class CheckpointState(msgspec.Struct):
    """What a checkpoint remembers beside trl's own state.

    ``tokens``: what the run was shortened to by a budget of time (0: it was not); a faster or
    slower machine that goes on takes the same steps. ``types``: what it has computed in so far.
    ``reference``: log-probabilities of training sequences under the model that the run began
    with, by number, as far as the run has needed them (``dpo``, ``kto``).
    """

    fingerprint: str
    step: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    best_step: int = 0
    worse: int = 0
    train_loss: float | None = None
    tokens: int = 0
    types: list[str] = []
    reference: dict[int, float] = {}


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; halves have other names."""
    found = sorted(folder.glob("step-*"))
    return found[-1] if found else None


def read_state(checkpoint: Path, fingerprint: str) -> CheckpointState:
    """Read a checkpoint's state.

    Raises:
        BadInput: it belongs to another spec, base or dataset.
    """
    state = msgspec.json.decode((checkpoint / STATE_FILE).read_bytes(), type=CheckpointState)
    if state.fingerprint != fingerprint:
        raise BadInput(
            f"{checkpoint} belongs to a run with another recipe, base or dataset; "
            "give an empty output folder"
        )
    return state
