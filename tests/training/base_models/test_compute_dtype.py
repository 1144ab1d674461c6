"""The choice of the number type: by what was measured, not by what a processor claims."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from training import compute_dtype
from training.compute_dtype import (
    WORKS,
    MachineChoices,
    TypeChoice,
    choose_faster,
    layer_shape,
    limit_by_memory,
    load_choices,
    measure_in_subprocess,
    save_choices,
)
from training.errors import BaseModelError


def made(machine: str) -> MachineChoices:
    choice = TypeChoice(type="float32", reason="measured")
    choices = dict.fromkeys(WORKS, choice)
    return MachineChoices(machine=machine, base="tiny", device="CPU", choices=choices)


@pytest.mark.parametrize(
    ("half", "full", "chosen"),
    [(1.0, 2.0, "bfloat16"), (20.0, 1.0, "float32"), (0.97, 1.0, "float32")],
)
def test_the_faster_type_is_chosen_and_a_tie_rounds_less(
    half: float, full: float, chosen: str
) -> None:
    found = choose_faster({"bfloat16": half, "float32": full}, what="8 tokens")
    assert found.type == chosen
    assert "8 tokens" in found.reason
    assert found.milliseconds == {"bfloat16": half, "float32": full}


def test_weights_that_would_not_fit_in_float32_stay_in_bfloat16() -> None:
    choice = TypeChoice(type="float32", reason="faster")
    assert limit_by_memory(choice, parameters=10**9, free_bytes=9 * 10**9).type == "float32"
    held = limit_by_memory(choice, parameters=10**9, free_bytes=7 * 10**9)
    assert held.type == "bfloat16"
    assert "4.0 GB" in held.reason


def test_figures_of_another_machine_or_base_are_not_taken(tmp_path: Path) -> None:
    path, base = tmp_path / "compute.json", tmp_path / "tiny"
    assert load_choices(path, base) is None
    save_choices(path, made(compute_dtype.machine_key()))
    assert load_choices(path, base) == made(compute_dtype.machine_key())
    assert load_choices(path, tmp_path / "larger") is None
    save_choices(path, made("another"))
    assert load_choices(path, base) is None
    path.write_text("{")
    assert load_choices(path, base) is None


def test_imitating_another_processor_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    here = compute_dtype.machine_key()
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert compute_dtype.machine_key() != here


def test_a_base_that_does_not_tell_its_width_is_named(tmp_path: Path) -> None:
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "config.json").write_text("{}")
    with pytest.raises(BaseModelError, match=r"config\.json.*hidden_size"):
        layer_shape(tmp_path)


@pytest.mark.heavy
def test_a_child_measures_every_work_and_its_figures_are_kept(
    tiny_base: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "compute.json"
    found = measure_in_subprocess(tiny_base, kept=kept)
    assert set(found.choices) == set(WORKS)
    for choice in found.choices.values():
        assert choice.type == choose_faster(choice.milliseconds, what="").type
    assert measure_in_subprocess(tmp_path / tiny_base.name, kept=kept) == found


@pytest.mark.heavy
def test_where_bfloat16_is_emulated_float32_computes(tiny_base: Path) -> None:
    """What torch does on a processor with AVX2 alone."""
    env = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    argv = [sys.executable, "-m", "training.base_models.compute_dtype_probe", str(tiny_base)]
    done = subprocess.run(argv, capture_output=True, check=True, env=env)
    found = msgspec.json.decode(done.stdout, type=MachineChoices)
    assert {work: found.choices[work].type for work in ("training", "evaluation", "engine")} == (
        dict.fromkeys(("training", "evaluation", "engine"), "float32")
    )


@pytest.mark.heavy
def test_a_folder_that_is_no_base_is_named(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"config\.json"):
        measure_in_subprocess(tmp_path)
