"""The encoder tuned by contrast: the real one, on a few pairs."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.heads.test_dataset import SENTIMENT
from training.heads.config import HeadRecipe
from training.heads.examples import read_examples

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
RECIPE = HeadRecipe(rounds=2, max_pairs=32, batch_pairs=8, rank=4)


class Killed(Exception):
    pass


def test_a_killed_run_ends_with_the_bytes_of_a_whole_one(tmp_path: Path) -> None:
    from training.heads.contrastive import tune  # noqa: PLC0415 - loads torch
    from training.heads.package import tuned_encoder  # noqa: PLC0415

    texts = read_examples(SENTIMENT)
    losses: list[float] = []
    resumed: list[int] = []

    def go(folder: Path, *, die_at: int | None = None) -> Path:
        def on_step(step: int, _: int, loss: float, __: float) -> None:
            losses.append(loss)
            if step == die_at:
                raise Killed

        return tune(
            texts,
            folder,
            recipe=RECIPE,
            seed=1,
            on_step=on_step,
            on_round=lambda _: None,
            on_resume=resumed.append,
        )

    whole = go(tmp_path / "whole")
    assert len(losses) == 4
    with pytest.raises(Killed):
        go(tmp_path / "killed", die_at=3)
    assert go(tmp_path / "killed").read_bytes() == whole.read_bytes()
    assert resumed == [2]
    vectors = tuned_encoder(whole)(["It broke.", "Thank you!"])
    assert vectors.shape == (2, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)
