"""Trackers for a run's figures: TensorBoard, MLflow, Weights & Biases.

None of them is installed with Tenantune, and none uses the network unless the operator sets
``MLFLOW_TRACKING_URI`` or ``WANDB_MODE`` in the environment: otherwise they write to the job's folder,
under ``trackers/``. transformers' own callbacks feed them.
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
"""Any of these packages will do; the first is the one to install."""


def what_to_install(trackers: Iterable[Tracker]) -> str | None:
    """Why these trackers cannot be used here, with the command that installs them; None if they can.

    Without the training stack on this machine, another one trains, and the answer is None.
    """
    if not _is_there("trl"):
        return None
    absent = [name for name in trackers if not any(map(_is_there, PACKAGES[name]))]
    if not absent:
        return None
    wanted = " ".join(PACKAGES[name][0] for name in dict.fromkeys(absent))
    return f"report_to: {', '.join(absent)} is not installed; run `pip install {wanted}`"


def keep_local(out: Path) -> None:
    """Let this process's trackers write into ``out``, unless the operator has set a place."""
    (out / TRACKERS).mkdir(exist_ok=True)
    os.environ.update(environment(out, os.environ))  # noqa: TID251 - theirs are not our settings


def environment(out: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables to add to a run's environment, so that its trackers stay on this machine.

    Variables that the operator has set are not among them.
    """
    folder = out / TRACKERS
    local = {
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"),
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_PROJECT": "tenantune",
        # a run that is killed and resumed keeps its name
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
