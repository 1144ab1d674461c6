"""Training: the right loss, the best weights, and the same bytes however often it is killed."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.training.conftest import write_spec
from training.adapters.validation import check_weights
from training.compute_dtype import ComputeType
from training.config import TrainingSpec
from training.data.chat_template import TrainingSequence
from training.errors import BadInput, Interrupted, TrainingError
from training.events import (
    CheckpointEvent,
    EstimateEvent,
    Event,
    EventWriter,
    ResumedEvent,
    StepEvent,
    ValidationEvent,
    parse,
)

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

KILLED = Path(__file__).with_name("killed.py")


def events_of(out: Path, kind: type[Event]) -> list[Any]:
    lines = (out / "events.jsonl").read_bytes().splitlines()
    return [event for event in map(parse, lines) if isinstance(event, kind)]


def weights_of(out: Path) -> bytes:
    return (out / "trained" / "adapter_model.safetensors").read_bytes()


def never() -> bool:
    return False


def run(
    spec: TrainingSpec, out: Path, *, resume: bool = False, stop: Callable[[], bool] = never
) -> Any:
    from training.finetuning.qlora import train  # noqa: PLC0415 - loads torch

    out.mkdir(exist_ok=True)
    with closing(EventWriter(out / "events.jsonl")) as progress:
        return train(spec, out, progress, resume=resume, should_stop=stop)


def changed(spec: TrainingSpec, **recipe: Any) -> TrainingSpec:
    replaced = msgspec.structs.replace(spec.recipe, **recipe)
    return msgspec.structs.replace(spec, recipe=replaced)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, small_dataset: Any) -> Path:
    """One run from beginning to end, in another process."""
    from tests.training.conftest import TINY_RECIPE  # noqa: PLC0415

    out = tmp_path_factory.mktemp("finished")
    spec = TrainingSpec(
        label="loaf",
        base=str(tiny_base),
        dataset=str(small_dataset.folder),
        recipe=TINY_RECIPE,
    )
    live(write_spec(out, spec), out, "end")
    return out


def live(spec: Path, out: Path, *moments: str) -> None:
    here = Path(__file__).parents[3]
    argv = [sys.executable, str(KILLED), str(spec), str(out), *moments]
    done = subprocess.run(argv, check=False, cwd=here, env=_env(here), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def _env(here: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": str(here),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
    }


def test_it_learns_and_says_what_it_does(finished: Path) -> None:
    steps = events_of(finished, StepEvent)
    validations = events_of(finished, ValidationEvent)
    (estimate,) = events_of(finished, EstimateEvent)
    assert [e.step for e in steps] == list(range(1, len(steps) + 1))
    assert steps[-1].steps == len(steps) == estimate.steps
    assert steps[-1].tokens == estimate.train_tokens >= 12_000
    assert steps[-1].eta_seconds == 0
    assert all(e.tokens_per_second > 0 and e.learning_rate > 0 for e in steps)
    # torch alone takes more than this, and a peak never falls
    memory = [e.memory_bytes or 0 for e in steps]
    assert 200_000_000 < memory[0] <= memory[-1] < 1 << 40
    assert memory == sorted(memory)
    assert validations[-1].loss < validations[0].loss
    assert events_of(finished, CheckpointEvent)
    assert estimate.memory_bytes > 0


def test_a_budget_of_time_shortens_the_run_and_a_resumed_one_keeps_to_it(
    spec: TrainingSpec, tmp_path: Path
) -> None:
    hurried = changed(spec, train_minutes=1e-6, min_train_tokens=5_000)
    with pytest.raises(Interrupted):
        run(hurried, tmp_path, stop=lambda: True)
    run(hurried, tmp_path, resume=True)
    steps = events_of(tmp_path, StepEvent)
    first, second = events_of(tmp_path, EstimateEvent)
    assert "takes longer here than its 1e-06 minutes" in first.basis
    assert steps[-1].step == steps[0].steps == first.steps == second.steps
    assert 5_000 <= steps[-1].tokens == first.train_tokens < 7_000


def test_another_machine_goes_on_in_its_own_type(spec: TrainingSpec, tmp_path: Path) -> None:
    from training.compute_dtype import (  # noqa: PLC0415
        COMPUTE_FILE,
        TypeChoice,
        read_choices,
        save_choices,
    )

    auto = changed(spec, adapter_dtype="auto")
    with pytest.raises(Interrupted):
        run(changed(auto, compute_dtype="auto"), tmp_path, stop=lambda: True)
    before = read_choices(tmp_path / COMPUTE_FILE)
    assert before is not None
    was = before.choices["training"].type
    other: ComputeType = "bfloat16" if was == "float32" else "float32"
    moved = TypeChoice(type=other, reason="another machine")
    choices = {**before.choices, "training": moved}
    save_choices(tmp_path / COMPUTE_FILE, msgspec.structs.replace(before, choices=choices))
    trained = run(auto, tmp_path, resume=True)
    assert trained.summary.computed_in == (was, other)
    losses = [event.loss for event in events_of(tmp_path, StepEvent)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "moments",
    [("step:5", "end"), ("save:2", "step:1", "save:1", "end")],
    ids=["between checkpoints", "inside a checkpoint, twice, and between"],
)
def test_killed_and_resumed_it_ends_with_the_same_bytes(
    spec: TrainingSpec, finished: Path, tmp_path: Path, moments: tuple[str, ...]
) -> None:
    live(write_spec(tmp_path, spec), tmp_path, *moments)
    assert events_of(tmp_path, ResumedEvent)
    assert weights_of(tmp_path) == weights_of(finished)
    last = {e.step: e.loss for e in events_of(tmp_path, StepEvent)}
    assert last == {e.step: e.loss for e in events_of(finished, StepEvent)}


def test_stopped_it_saves_and_goes_on_from_there(
    spec: TrainingSpec, finished: Path, tmp_path: Path
) -> None:
    asked: list[None] = []

    def after_four() -> bool:
        asked.append(None)
        return len(asked) == 4

    with pytest.raises(Interrupted, match="step 4"):
        run(spec, tmp_path, stop=after_four)
    assert events_of(tmp_path, CheckpointEvent)[-1].step == 4
    run(spec, tmp_path, resume=True)
    assert events_of(tmp_path, ResumedEvent)[-1].step == 4
    assert weights_of(tmp_path) == weights_of(finished)


def test_a_run_of_slow_steps_saves_by_the_clock(
    spec: TrainingSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.finetuning import callback  # noqa: PLC0415 - loads torch

    monkeypatch.setattr(callback, "SAVE_SECONDS", 0.0)
    asked: list[None] = []

    def after_three() -> bool:
        asked.append(None)
        return len(asked) == 3

    with pytest.raises(Interrupted, match="step 3"):
        run(changed(spec, checkpoint_every=1000), tmp_path, stop=after_three)
    assert [event.step for event in events_of(tmp_path, CheckpointEvent)] == [1, 2, 3]


def test_a_checkpoint_of_another_run_is_refused(spec: TrainingSpec, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(spec, tmp_path, stop=lambda: True)
    with pytest.raises(BadInput, match="another recipe, base or dataset"):
        run(changed(spec, rank=8), tmp_path, resume=True)
    with pytest.raises(Interrupted):
        run(changed(spec, rank=8), tmp_path, resume=False, stop=lambda: True)


def test_the_weights_with_the_lowest_validation_loss_are_kept(
    spec: TrainingSpec, tmp_path: Path
) -> None:
    # A rate at which the loss soon rises again; constant, so that a shorter run is its beginning.
    flat = {"learning_rate": 0.05, "schedule": "constant", "warmup_ratio": 0.0}
    wild = changed(spec, **flat, validate_every=1, patience=2)
    trained = run(wild, tmp_path)
    validations = events_of(tmp_path, ValidationEvent)
    best = min(validations, key=lambda e: e.loss)
    assert "no better validation loss in 2 validations" in trained.summary.stopped
    assert trained.summary.validation_loss == best.loss
    assert validations[-1].step == best.step + 2 < events_of(tmp_path, EstimateEvent)[0].steps
    tokens = next(e.tokens for e in events_of(tmp_path, StepEvent) if e.step == best.step)
    shorter = tmp_path / "shorter"
    run(changed(wild, max_train_tokens=tokens), shorter)
    assert events_of(shorter, StepEvent)[-1].step == best.step
    assert weights_of(shorter) == weights_of(tmp_path)


def test_the_adapter_is_what_an_engine_accepts(
    spec: TrainingSpec, finished: Path, tiny_base: Path
) -> None:
    folder = finished / "trained"
    names = {p.name for p in folder.iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json", "training.json"}
    check_weights(folder, base_serving=tiny_base / "serving")
    config = msgspec.json.decode((folder / "adapter_config.json").read_bytes())
    assert config["r"] == spec.recipe.rank
    assert config["base_model_name_or_path"] == tiny_base.name
    assert config["target_modules"] == sorted(config["target_modules"])
    assert not [p for p in finished.rglob("trained/*") if p.suffix in {".bin", ".pt"}]


def test_a_loss_that_is_no_number_ends_the_run(spec: TrainingSpec, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="lower learning_rate"):
        run(changed(spec, learning_rate=1e30, max_grad_norm=0.0), tmp_path)


def test_the_loss_is_the_mean_over_learnt_tokens_whatever_the_batches(
    spec: TrainingSpec, tmp_path: Path
) -> None:
    """Against the plain loss: all logits, one sequence at a time, no padding, no packing."""
    import torch  # noqa: PLC0415
    from torch.nn import functional  # noqa: PLC0415
    from transformers import AutoTokenizer  # noqa: PLC0415

    from training.base_models.quantize import load_nf4  # noqa: PLC0415
    from training.data.chat_template import stop_token_ids  # noqa: PLC0415
    from training.finetuning.preparation import prepare  # noqa: PLC0415

    nf4 = Path(spec.base) / "nf4"
    model = load_nf4(nf4, device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(nf4)
    stops = stop_token_ids(tokenizer, model.generation_config)
    work = prepare(spec, tokenizer, stop_ids=stops)
    total, tokens = 0.0, 0
    for index in (i for batch in work.plan.steps[0] for i in batch):
        sequence = work.train[index]
        assert isinstance(sequence, TrainingSequence)
        ids = torch.tensor([sequence.token_ids])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1].float()
        learnt = torch.tensor(sequence.loss_mask[1:])
        nats = functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        total, tokens = total + nats[learnt].sum().item(), tokens + int(learnt.sum())

    with pytest.raises(Interrupted):  # LoRA begins as a no-op: the first loss is the base's
        run(spec, tmp_path, stop=lambda: True)
    assert events_of(tmp_path, StepEvent)[0].loss == pytest.approx(total / tokens, abs=2e-3)
