"""Trackers write into the job's folder unless the operator says otherwise."""

from pathlib import Path

import pytest

from training.finetuning import trackers
from training.finetuning.trackers import environment, what_to_install

OUT = Path("/home/jobs/job-1")


def test_nothing_leaves_the_machine_unless_it_was_said() -> None:
    added = environment(OUT, {})
    assert added["WANDB_MODE"] == "offline"
    assert added["MLFLOW_TRACKING_URI"].startswith("sqlite:////home/jobs/job-1/")
    assert added["TENSORBOARD_LOGGING_DIR"].startswith("/home/jobs/job-1/")
    assert added["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_what_the_operator_has_set_stays() -> None:
    given = {"WANDB_MODE": "online", "MLFLOW_TRACKING_URI": "http://tracker:5000"}
    added = environment(OUT, given)
    assert not added.keys() & given.keys()
    assert added["WANDB_RUN_ID"] == "job-1"


def test_what_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"trl", "tensorboardX"}
    monkeypatch.setattr(trackers, "_is_there", lambda name: name in there)
    assert what_to_install(()) is None
    assert what_to_install(("tensorboard",)) is None
    absent = what_to_install(("wandb", "tensorboard", "mlflow"))
    assert absent is not None
    assert "wandb, mlflow is not installed" in absent
    assert "pip install wandb mlflow" in absent
    there.clear()
    assert what_to_install(("wandb",)) is None
