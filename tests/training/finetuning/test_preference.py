"""DPO and KTO: trl's losses over a step of the plan; margins grow, and kills change nothing."""

# ruff: noqa: PLC0415 - torch is loaded only when these tests run

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.training.conftest import TINY_RECIPE, write_spec
from tests.training.finetuning.test_qlora import changed, events_of, live, run, weights_of
from training.config import Method, TrainingSpec, method_recipe
from training.data.dataset import Dataset
from training.errors import BadInput, Interrupted
from training.events import (
    EstimateEvent,
    ResumedEvent,
    StepEvent,
    ValidationEvent,
)

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

RECIPE = msgspec.structs.replace(
    TINY_RECIPE, preference_rate_scale=0.5, max_train_tokens=12_000, batch_tokens=1000
)


@pytest.fixture(scope="module")
def specs(
    tiny_base: Path, preference_datasets: dict[Method, Dataset]
) -> dict[Method, TrainingSpec]:
    return {
        method: TrainingSpec(
            label="loaf",
            base=str(tiny_base),
            dataset=str(dataset.folder),
            recipe=RECIPE,
            method=method,
        )
        for method, dataset in preference_datasets.items()
    }


@pytest.fixture(scope="module")
def finished(
    specs: dict[Method, TrainingSpec], tmp_path_factory: pytest.TempPathFactory
) -> dict[Method, Path]:
    """One run of each method from beginning to end."""
    outs: dict[Method, Path] = {}
    for method, spec in specs.items():
        outs[method] = tmp_path_factory.mktemp(method)
        run(spec, outs[method])
    return outs


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_wanted_replies_gain_on_unwanted_ones(finished: dict[Method, Path], method: Method) -> None:
    steps = events_of(finished[method], StepEvent)
    validations = events_of(finished[method], ValidationEvent)
    (estimate,) = events_of(finished[method], EstimateEvent)
    # Before the first step the model is its own reference: log 2 is -log sigmoid(0).
    assert steps[0].loss == pytest.approx(math.log(2) if method == "dpo" else 0.5, rel=0.25)
    assert steps[0].reward_margin in (0.0, None)
    assert steps[-1].loss < steps[0].loss
    late = [e for e in steps[-4:] if e.reward_margin is not None]
    assert all(e.reward_margin > 0.05 for e in late)
    assert sum(e.reward_accuracy for e in late) / len(late) > 0.8
    assert validations[-1].reward_margin > validations[0].reward_margin > 0
    assert all(0 <= e.accuracy <= 1 for e in (*steps, *validations) if e.accuracy is not None)
    assert steps[-1].steps == len(steps) == estimate.steps
    assert steps[-1].tokens == estimate.train_tokens >= 12_000


def test_dpo_begins_at_exactly_no_preference(finished: dict[Method, Path]) -> None:
    first = events_of(finished["dpo"], StepEvent)[0]
    assert first.loss == pytest.approx(math.log(2), abs=1e-6)
    assert (first.reward_margin, first.reward_accuracy) == (0.0, 0.5)
    rate = RECIPE.learning_rate * RECIPE.preference_rate_scale
    assert max(e.learning_rate for e in events_of(finished["dpo"], StepEvent)) <= rate


@pytest.mark.parametrize(("method", "second"), [("dpo", 5), ("kto", 4)])
def test_stopped_and_resumed_it_ends_with_the_same_bytes(
    specs: dict[Method, TrainingSpec],
    finished: dict[Method, Path],
    tmp_path: Path,
    method: Method,
    second: int,
) -> None:
    asked: list[None] = []

    def soon() -> bool:
        asked.append(None)
        return len(asked) == second

    with pytest.raises(Interrupted, match=f"step {second}"):
        run(specs[method], tmp_path, stop=soon)
    run(specs[method], tmp_path, resume=True)
    assert events_of(tmp_path, ResumedEvent)[-1].step == second
    assert weights_of(tmp_path) == weights_of(finished[method])


def test_killed_it_ends_with_the_same_bytes(
    specs: dict[Method, TrainingSpec], finished: dict[Method, Path], tmp_path: Path
) -> None:
    live(write_spec(tmp_path, specs["dpo"]), tmp_path, "step:5", "end")
    assert events_of(tmp_path, ResumedEvent)
    assert weights_of(tmp_path) == weights_of(finished["dpo"])
    last = {e.step: e.loss for e in events_of(tmp_path, StepEvent)}
    assert last == {e.step: e.loss for e in events_of(finished["dpo"], StepEvent)}


def test_it_starts_from_an_adapter_and_is_held_to_that(
    specs: dict[Method, TrainingSpec],
    spec: TrainingSpec,
    finished: dict[Method, Path],
    tiny_base: Path,
    tmp_path: Path,
) -> None:
    from tests.training.adapters.sample_manifest import MANIFEST
    from training.adapters.package import BaseRef, LoraShape, write_manifest
    from training.base_models.manifest import load_base

    start = tmp_path / "start"
    trained = run(changed(spec, rank=8, alpha=4, max_train_tokens=2_000), tmp_path / "supervised")
    Path(trained.folder).rename(start)
    (start / "training.json").unlink()
    base = load_base(tiny_base)
    manifest = msgspec.structs.replace(
        MANIFEST,
        base=BaseRef(name=base.name, serving_sha256=base.serving_sha256),
        lora=LoraShape(rank=trained.rank, alpha=trained.alpha, targets=trained.targets),
    )
    write_manifest(start, manifest)
    begun = msgspec.structs.replace(specs["dpo"], start_adapter=str(start))
    after = run(begun, tmp_path / "dpo")
    first = events_of(tmp_path / "dpo", StepEvent)[0]
    assert first.loss == pytest.approx(math.log(2), abs=1e-6)  # as near to its start as can be
    assert first.accuracy != events_of(finished["dpo"], StepEvent)[0].accuracy
    assert (after.rank, after.alpha) == (8, 4)
    assert weights_of(tmp_path / "dpo") != weights_of(finished["dpo"])

    with pytest.raises(Interrupted):  # its reference is the start, also after a pause
        run(begun, tmp_path / "paused", stop=lambda: True)
    run(begun, tmp_path / "paused", resume=True)
    assert weights_of(tmp_path / "paused") == weights_of(tmp_path / "dpo")

    other = msgspec.structs.replace(manifest, base=BaseRef(name="other", serving_sha256="f" * 64))
    write_manifest(start, other)
    with pytest.raises(BadInput, match="another base, 'other'"):
        run(begun, tmp_path / "wrong")


class Side:
    """One of our trainers on float32 weights, with an adapter that has already moved."""

    def __init__(self, spec: TrainingSpec, out: Path) -> None:
        import torch
        from peft import LoraConfig
        from transformers import AutoTokenizer

        from training.data.chat_template import stop_token_ids
        from training.finetuning.checkpoint import CheckpointState
        from training.finetuning.preparation import prepare
        from training.finetuning.qlora import TRAINERS

        self.serving = Path(spec.base) / "serving"
        self.tokenizer = AutoTokenizer.from_pretrained(self.serving)
        self.lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
        model = self.fresh()
        stops = stop_token_ids(self.tokenizer, model.generation_config)
        self.data: Any = prepare(spec, self.tokenizer, stop_ids=stops)
        self.recipe = method_recipe(spec)
        self.trainer: Any = TRAINERS[spec.method](
            model,
            lora=self.lora,
            start=None,
            recipe=self.recipe,
            tokenizer=self.tokenizer,
            data=self.data,
            state=CheckpointState(fingerprint=""),
            out=out,
            seed=1,
            adapter_dtype=torch.float32,
        )
        torch.manual_seed(2)
        self.weights = {name: torch.randn_like(p) * 0.3 for name, p in self.adapter().items()}
        for name, weight in self.adapter().items():
            weight.data.copy_(self.weights[name])

    def adapter(self) -> dict[str, Any]:
        return self.trainer.weights()  # type: ignore[no-any-return]

    def fresh(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.serving, dtype=torch.float32)

    def gradients(self) -> dict[str, Any]:
        return {name: p.grad for name, p in self.adapter().items()}

    def first_step(self) -> list[Any]:
        found = [self.data.train[i] for batch in self.data.plan.steps[0] for i in batch]
        assert len(found) > 2
        return found

    def check(self, theirs: Any, batch: dict[str, Any]) -> None:
        """Same loss, same gradients, same rewards."""
        import torch

        for name, parameter in theirs.model.named_parameters():
            if parameter.requires_grad:
                parameter.data.copy_(self.weights[name])
        theirs.model.train()
        expected = theirs.compute_loss(theirs.model, batch)
        expected.backward()
        measured = self.trainer.train_step(self.data.plan.steps[0])
        assert measured.loss == pytest.approx(expected.item(), rel=1e-5)
        assert abs(measured.reward_margin) > 0.01
        metrics = theirs._metrics["train"]
        assert measured.reward_margin == pytest.approx(metrics["rewards/margins"][0], abs=1e-4)
        for name, parameter in theirs.model.named_parameters():
            if parameter.requires_grad:
                torch.testing.assert_close(
                    self.gradients()[name], parameter.grad, rtol=1e-3, atol=1e-5
                )


def split(sequence: Any) -> tuple[list[int], list[int]]:
    """(prompt, completion), without what the template writes after the reply's end."""
    start, end = sequence.loss_mask.index(True), len(sequence.loss_mask)
    while not sequence.loss_mask[end - 1]:
        end -= 1
    return sequence.token_ids[:start], sequence.token_ids[start:end]


def theirs_options(side: Side, config: Any, out: Path, **options: Any) -> dict[str, Any]:
    args = config(
        output_dir=str(out),
        bf16=False,
        use_cpu=True,
        report_to="none",
        gradient_checkpointing=False,
        beta=side.recipe.beta,
        **options,
    )
    return {
        "model": side.fresh(),
        "args": args,
        "processing_class": side.tokenizer,
        "peft_config": side.lora,
    }


TALK = [{"role": "user", "content": "hello"}], [{"role": "assistant", "content": "hi"}]


def test_the_loss_of_pairs_is_trls(specs: dict[Method, TrainingSpec], tmp_path: Path) -> None:
    from datasets import Dataset as Table
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    side = Side(changed(specs["dpo"], batch_tokens=2000), tmp_path)
    examples = []
    for pair in side.first_step():
        (prompt, chosen), (_, rejected) = split(pair.chosen), split(pair.rejected)
        examples.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    row = {"prompt": [TALK[0]], "chosen": [TALK[1]], "rejected": [TALK[1]]}
    theirs = DPOTrainer(
        train_dataset=Table.from_dict(row), **theirs_options(side, DPOConfig, tmp_path)
    )
    side.check(theirs, DataCollatorForPreference(side.tokenizer.pad_token_id)(examples))


def test_the_loss_of_judgements_is_trls(specs: dict[Method, TrainingSpec], tmp_path: Path) -> None:
    from datasets import Dataset as Table
    from trl import KTOConfig, KTOTrainer
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

    side = Side(changed(specs["kto"], batch_tokens=2000), tmp_path)
    items = side.first_step()
    assert {item.desirable for item in items} == {True, False}
    examples = []
    for number, item in enumerate(items):
        prompt, completion = split(item.reply)
        other = split(items[number - 1].reply)[1]
        examples.append(
            {
                "prompt_ids": prompt,
                "completion_ids": completion,
                "KL_completion_ids": other,
                "label": item.desirable,
            }
        )
    args = side.trainer.args
    yes, no = args.desirable_weight, args.undesirable_weight
    assert yes * sum(i.desirable for i in side.data.train) == pytest.approx(
        no * sum(not i.desirable for i in side.data.train)
    )
    options = theirs_options(side, KTOConfig, tmp_path, desirable_weight=yes, undesirable_weight=no)
    row = {"prompt": [TALK[0]] * 2, "completion": [TALK[1]] * 2, "label": [True, False]}
    theirs = KTOTrainer(train_dataset=Table.from_dict(row), **options)
    side.check(theirs, DataCollatorForUnpairedPreference(side.tokenizer.pad_token_id)(examples))
    assert theirs._metrics["train"]["kl"][0] > 0.1  # else the reference point would be untested


def test_both_replies_of_a_pair_follow_the_same_tokens(
    specs: dict[Method, TrainingSpec], tmp_path: Path
) -> None:
    tight = changed(specs["dpo"], max_length=130)
    side = Side(tight, tmp_path)
    whole = Side(specs["dpo"], tmp_path)
    pairs, long_ones = side.data.train, whole.data.train
    assert 0 < len(pairs) <= len(long_ones)
    for pair in pairs:
        (one, chosen), (other, rejected) = split(pair.chosen), split(pair.rejected)
        assert one == other
        assert chosen[-1] == rejected[-1] == side.tokenizer.eos_token_id
        assert max(len(pair.chosen.token_ids), len(pair.rejected.token_ids)) <= 130
    shortened = {tuple(pair.chosen.token_ids) for pair in pairs}
    assert not shortened <= {tuple(pair.chosen.token_ids) for pair in long_ones}
