"""What a sweep says of its trials."""

from tests.training.conftest import TINY_RECIPE
from training.sweeps.comparison import compare
from training.sweeps.config import Setting
from training.sweeps.records import Ended, Loss, Plan, Rung, Trial

CONTROL = Setting(learning_rate=3e-3, rank=16, references=2)
PLAN = Plan(fingerprint="", rungs=(300, 900), whole_run=2_000, control=CONTROL)


def trial(
    number: int, *scores: float, ended: Ended = "finished", rate: float = 3e-3, epochs: float = 0.0
) -> Trial:
    """Scored on ten conversations of ten tokens, some harder than others."""
    rungs = [
        Rung(
            tokens=PLAN.rungs[i],
            seconds=10.0,
            losses={str(c): Loss(10 * (score + c / 10), 10) for c in range(10)},
        )
        for i, score in enumerate(scores)
    ]
    setting = Setting(learning_rate=rate, rank=16, references=2, min_epochs=epochs)
    return Trial(number=number, setting=setting, rungs=rungs, ended=ended)


def test_the_winner_is_explained_with_its_interval_and_what_each_parameter_did() -> None:
    found = compare(
        PLAN,
        [
            trial(0, 1.5, 1.0),
            trial(1, 2.0, ended="worse", rate=1e-3),
            trial(2, 1.2, 0.8, rate=6e-3),
            trial(3, 1.4, 0.9, rate=9e-3, epochs=2.0),
        ],
        recipe=TINY_RECIPE,
        seconds=90.0,
    )
    assert found.winner == 2
    assert [(gap.against, round(gap.mean, 3)) for gap in found.gaps] == [(0, -0.2), (3, -0.1)]
    said = " ".join(found.words)
    assert "Trial 2 of 3 won: rate 0.006, rank 16, 2 references." in said
    # paired: conversations differ more than trials do
    assert "ahead by 0.200 nats a token (95 % interval 0.200 to 0.200, 10 conversations)" in said
    assert "more than chance" in said
    assert (
        "Rate, nats after 300 tokens (trials): lower than the recipe's 2.45 (1), the recipe's 1.95 (1), "
        "higher 1.75 (2); best: higher." in said
    )
    assert "Epochs, nats after 300 tokens (trials): 0 or more 2.02 (3), 2 or more 1.85 (1)" in said
    assert "Rank" not in said  # all have the same
    assert "1.5 minutes and 3,000 training tokens: 3 finished, 1 worse" in said
    assert "900 of the recipe's 2,000 tokens" in said


def test_a_lead_that_may_be_chance_is_called_so_and_the_recipe_may_win() -> None:
    noisy = trial(1, 1.2, 0.99)
    for name, loss in noisy.rungs[1].losses.items():
        noisy.rungs[1].losses[name] = Loss(loss.nats + (5 if int(name) % 2 else -5), loss.tokens)
    found = compare(PLAN, [trial(0, 1.5, 1.0), noisy], recipe=TINY_RECIPE, seconds=9.0)
    assert found.winner == 1
    assert "so it may be chance" in " ".join(found.words)
    lost = compare(PLAN, [trial(0, 1.5, 1.0), trial(1, 1.6, 1.1)], recipe=TINY_RECIPE, seconds=9.0)
    assert lost.winner == 0
    assert "no other trial (1) was better" in lost.words[0]


def test_without_a_finished_trial_nothing_won() -> None:
    found = compare(PLAN, [trial(0, 1.5, ended="")], recipe=TINY_RECIPE, seconds=9.0)
    assert found.winner is None
    assert found.words == ("No trial has reached 900 tokens: give the sweep more minutes.",)
