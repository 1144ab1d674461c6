"""What a run needs, and what of it fits into a budget of time."""

import pytest

from tests.tiny import TINY
from training.compute_dtype import ComputeType
from training.config import load_recipe
from training.finetuning.estimate import Estimate, Footprint, memory_bytes, tokens_in


def needing(seconds: float) -> Estimate:
    return Estimate(
        seconds=seconds,
        memory_bytes=0,
        disk_bytes=0,
        train_tokens=20_000,
        steps=10,
        basis="measured",
    )


@pytest.mark.parametrize(
    ("minutes", "seconds", "tokens"),
    [
        (0.0, 9_999.0, 0),  # no budget
        (3.0, 179.0, 0),  # all of it fits
        (3.0, 360.0, 10_000),  # half of it does
        (3.0, 3_600.0, 5_000),  # never less than the least
    ],
)
def test_a_budget_of_time_sets_the_tokens_between_bounds(
    minutes: float, seconds: float, tokens: int
) -> None:
    assert tokens_in(minutes, least=5_000, estimated=needing(seconds)) == tokens


def test_a_short_run_is_not_made_longer_by_the_least() -> None:
    assert tokens_in(1.0, least=50_000, estimated=needing(3_600.0)) == 20_000


@pytest.mark.parametrize("unpacked", [False, True])
def test_memory_follows_the_type(*, unpacked: bool) -> None:
    recipe = load_recipe("cpu-demo")

    def needed(kind: ComputeType) -> int:
        footprint = Footprint(type=kind, unpacked=unpacked, adapter_bytes=10**6)
        return memory_bytes(500, recipe=recipe, base=TINY, footprint=footprint)

    activations = 500 * TINY.hidden_size * TINY.layers * 45 * 2
    more = needed("float32") - needed("bfloat16")
    weights = 2 * TINY.parameters if unpacked else 0
    assert more == activations + weights + 250 * TINY.vocab_size * 2
