"""Plans of steps: every conversation once an epoch, hardly any padding, always the same."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.config import load_recipe
from training.data.batching import (
    MAX_PADDING,
    BatchPlan,
    length_batches,
    plan_run,
    positions,
    truncate_plan,
)
from training.finetuning.preparation import step_tokens

LENGTHS = st.lists(st.integers(2, 600), min_size=1, max_size=120)


def planned(
    lengths: list[int], *, seed: int = 1, epochs: float = 1.0, tokens: int = 0
) -> BatchPlan:
    return plan_run(
        lengths,
        seed=seed,
        epochs=epochs,
        step_tokens=1024,
        batch_tokens=512,
        max_train_tokens=tokens,
    )


@given(LENGTHS, st.integers(0, 5))
def test_an_epoch_reads_every_sequence_once(lengths: list[int], seed: int) -> None:
    plan = planned(lengths, seed=seed)
    read = [i for step in plan.steps for batch in step for i in batch]
    assert sorted(read) == list(range(len(lengths)))
    assert sum(plan.tokens) == sum(lengths)
    assert plan.epochs[-1] == 1.0


@given(LENGTHS)
def test_padding_stays_under_a_twentieth(lengths: list[int]) -> None:
    for batch in length_batches(lengths, max_tokens=512):
        real = sum(lengths[i] for i in batch)
        assert real >= (1 - MAX_PADDING) * positions(lengths, batch)
    assert planned(lengths).padding <= MAX_PADDING


@given(LENGTHS)
def test_batches_and_steps_stay_within_their_tokens(lengths: list[int]) -> None:
    plan = planned(lengths)
    for step, padded in zip(plan.steps, plan.padded, strict=True):
        assert padded <= 1024 or len(step) == 1
        for batch in step:
            assert positions(lengths, batch) <= 512 or len(batch) == 1


@given(LENGTHS, st.floats(0.1, 4.0))
def test_a_plan_is_a_function_of_its_seed(lengths: list[int], epochs: float) -> None:
    assert planned(lengths, epochs=epochs) == planned(lengths, epochs=epochs)


def test_epochs_differ_in_their_order_and_their_batches() -> None:
    lengths = [100 + i % 7 for i in range(60)]
    plan = planned(lengths, epochs=2.0)
    half = len(plan.steps) // 2
    first = {tuple(sorted(b)) for step in plan.steps[:half] for b in step}
    second = {tuple(sorted(b)) for step in plan.steps[half:] for b in step}
    assert len(first & second) < len(first) / 2


def test_a_run_ends_with_the_step_that_reaches_its_tokens() -> None:
    plan = planned([100] * 200, epochs=9.0, tokens=3000)
    assert sum(plan.tokens) >= 3000 > sum(plan.tokens[:-1])


def test_real_lengths_leave_no_more_than_two_percent_padding() -> None:
    lengths = [40 + (i * 37) % 480 for i in range(300)]  # spread as chats are, 40 to 520 tokens
    assert plan_run(lengths, seed=1, epochs=3, step_tokens=1024, batch_tokens=1024).padding < 0.02


def test_a_number_of_examples_becomes_the_tokens_of_as_many_average_ones() -> None:
    lengths = [40 + (i * 37) % 480 for i in range(300)]
    recipe = load_recipe("cpu-small")
    assert step_tokens(recipe, lengths) == recipe.batch_tokens
    for wanted in (1, 4, 16):
        asked = msgspec.structs.replace(recipe, batch_examples=wanted)
        tokens = step_tokens(asked, lengths)
        plan = plan_run(lengths, seed=1, epochs=2, step_tokens=tokens, batch_tokens=1024)
        mean = 2 * len(lengths) / len(plan.steps)
        assert 0.6 * wanted <= mean <= 1.6 * wanted


def test_more_epochs_of_as_many_tokens_are_passes_over_fewer_items() -> None:
    lengths = [100 + i % 7 for i in range(60)]  # 6,177 in all

    def items(least: float) -> tuple[list[int], BatchPlan]:
        plan = plan_run(
            lengths,
            seed=1,
            epochs=9.0,
            step_tokens=300,
            batch_tokens=300,
            min_epochs=least,
            max_train_tokens=4_000,
        )
        return [i for step in plan.steps for batch in step for i in batch], plan

    all_read, plan = items(0.0)
    assert len(set(all_read)) == len(all_read)
    twice, two = items(2.0)
    assert sum(two.tokens) == pytest.approx(sum(plan.tokens), rel=0.1)
    assert two.epochs[-1] == pytest.approx(2.0, abs=0.2)
    assert set(Counter(twice).values()) <= {2, 3}
    four_times, _ = items(4.0)
    assert set(four_times) < set(twice)
    # where the run makes more passes anyway, all are read
    assert items(0.5)[1] == plan
    few = items(1e9)
    assert len(set(few[0])) == 1
    assert sum(few[1].tokens) >= 4_000


@given(LENGTHS, st.integers(1, 5_000))
def test_a_shortened_plan_is_the_plan_of_so_many_tokens(lengths: list[int], tokens: int) -> None:
    whole = planned(lengths, epochs=3.0)
    assert truncate_plan(whole, tokens) == planned(lengths, epochs=3.0, tokens=tokens)
