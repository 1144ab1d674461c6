"""What the trainer adds to trl's: the output head, the schedule, the reference of a started adapter."""

# ruff: noqa: PLC0415 - torch is loaded only when these tests run

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.training.conftest import TINY_RECIPE
from tests.training.finetuning.test_preference import Side
from training.config import Recipe, TrainingSpec

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]


def test_the_output_head_gives_what_trls_gives(spec: TrainingSpec, tmp_path: Path) -> None:
    import torch

    from training.finetuning.trainer import labels_of

    side = Side(spec, tmp_path)
    rows = side.first_step()
    assert len({len(row.token_ids) for row in rows}) > 1  # else padding would be untested
    inputs = side.trainer.inputs(rows)
    read = {"input_ids": inputs["input_ids"], "labels": labels_of(inputs)}
    grads: list[dict[str, Any]] = []
    outputs = []
    for head in (side.trainer.score, side.trainer.model):
        output = head(**read, attention_mask=inputs["attention_mask"], fused_lm_head=True)
        output.log_probs.sum().backward()
        grads.append({name: p.grad.clone() for name, p in side.adapter().items()})
        side.trainer.model.zero_grad()
        outputs.append(output)
    ours, theirs = outputs
    assert ours.label_mask.sum() == sum(sum(row.loss_mask) for row in rows) > 0
    assert torch.equal(ours.label_mask, theirs.label_mask)
    assert torch.equal(ours.is_top1, theirs.is_top1)
    torch.testing.assert_close(ours.log_probs, theirs.log_probs, rtol=1e-4, atol=1e-4)
    for name, gradient in grads[0].items():
        torch.testing.assert_close(gradient, grads[1][name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup_ratio", [0.0, 0.1])
def test_the_schedule_is_transformers_without_its_first_step(
    schedule: str, warmup_ratio: float
) -> None:
    """Theirs over one step more, from its second step on: the first has rate 0."""
    import torch
    from transformers import get_scheduler

    from training.finetuning.trainer import rate_factor

    recipe: Recipe = msgspec.structs.replace(
        TINY_RECIPE,
        schedule=schedule,
        warmup_ratio=warmup_ratio,
    )
    steps = 40
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = get_scheduler(
        "constant_with_warmup" if schedule == "constant" else schedule,
        optimizer,
        num_warmup_steps=round(steps * warmup_ratio) + 1,
        num_training_steps=steps + 1,
    )
    assert optimizer.param_groups[0]["lr"] == 0.0
    for step in range(steps):
        optimizer.step()
        theirs.step()
        expected = optimizer.param_groups[0]["lr"]
        assert rate_factor(recipe, steps=steps, step=step) == pytest.approx(expected, abs=1e-12)
