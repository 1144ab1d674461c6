"""Trackers that a run may tell its figures: TensorBoard, MLflow, Weights & Biases.

None of them is installed with Tenantune, and none reaches the network unless the operator has said
so: without ``MLFLOW_TRACKING_URI`` and ``WANDB_MODE`` in the environment, what they write stays in the
job's folder, under ``trackers/``. transformers' own callbacks speak to them.
"""

import importlib.util
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from training.config import Tracker

TRACKERS = "trackers"
PACKAGES: dict[Tracker, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
}
"""What may be installed, the first being what to install."""


def what_to_install(trackers: Iterable[Tracker]) -> str | None:
    """Why these cannot be used where training runs, with the command that mends it; None if they can.

    Where nothing of the training stack is installed, another machine trains, and nothing is known.
    """
    if not _is_there("trl"):
        return None
    absent = [name for name in trackers if not any(map(_is_there, PACKAGES[name]))]
    if not absent:
        return None
    wanted = " ".join(PACKAGES[name][0] for name in dict.fromkeys(absent))
    return f"report_to: {', '.join(absent)} is not installed; run `pip install {wanted}`"


def keep_local(out: Path) -> None:
    """Let the trackers of this process write into ``out``, but where the operator has said where."""
    (out / TRACKERS).mkdir(exist_ok=True)
    os.environ.update(environment(out, os.environ))  # noqa: TID251 - theirs are not our settings


def environment(out: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment of a run in ``out``, so that it stays on this machine.

    What the operator has set is left as it is.
    """
    folder = out / TRACKERS
    local = {
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"),
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_PROJECT": "tenantune",
        # the run goes on under the same name where the trainer is killed and resumes
        "WANDB_RUN_ID": out.name,
        "WANDB_RESUME": "allow",
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_EXPERIMENT_NAME": "tenantune",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    return {name: value for name, value in local.items() if name not in environ}


def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
