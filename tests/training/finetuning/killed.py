"""Runs the trainer in forked children that kill themselves; for ``test_qlora.py``.

    python tests/training/finetuning/killed.py SPEC OUT MOMENT [MOMENT ...]

Each moment is one life of the run in ``OUT``: ``step:5`` dies by SIGKILL after the fifth step of
this life, ``save:2`` in the middle of writing its second checkpoint, ``end`` runs to the end. One
process has imported torch and forks, which is seconds quicker than as many new ones.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from training.config import load_spec
from training.events import EventWriter
from training.finetuning import qlora, trainer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment: str) -> None:
    """Make the process die at the given moment."""
    kind, _, number = moment.partition(":")
    left = int(number or 0)

    def counting(original: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and kind == "save":
                die()
            result = original(*args, **kwargs)
            if left == 0:
                die()
            return result

        return wrapped

    if kind == "step":
        steps = counting(trainer.PlanTrainer.training_step)
        trainer.PlanTrainer.training_step = steps  # type: ignore[method-assign]
    elif kind == "save":  # weights and optimiser are written, our own state is not
        trainer.write_atomically = counting(trainer.write_atomically)  # type: ignore[attr-defined]


def live(spec_path: Path, out: Path, moment: str) -> int:
    """One life; the status of its process."""
    child = os.fork()
    if child == 0:
        arm(moment)
        out.mkdir(parents=True, exist_ok=True)
        progress = EventWriter(out / "events.jsonl")
        qlora.train(load_spec(spec_path), out, progress, resume=True, should_stop=lambda: False)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for moment in sys.argv[3:]:
        status = live(Path(sys.argv[1]), Path(sys.argv[2]), moment)
        expected = 0 if moment == "end" else -signal.SIGKILL
        if status != expected:
            sys.exit(f"{moment}: ended with {status}, not {expected}")
