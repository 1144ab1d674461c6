"""Adapters of other trainers compute the same after they were taken in, or are refused by name."""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.bare import LINEAR, RANK, Tensors, lora_of, make_bare_base, make_foreign
from training.adapters.foreign import (
    ImportedAdapter,
    bare_name,
    convert_adapter,
    find_adapter,
    read_imported,
)
from training.adapters.foreign_config import read_foreign_config
from training.adapters.package import MANIFEST_NAME
from training.adapters.safetensors_io import MAX_ADAPTER_HEADER_BYTES, TensorFile
from training.adapters.validation import read_adapter_config
from training.errors import ArtifactError, TrainingError, UnsafeWeights

FIRST = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_bare_base(tmp_path / "bases")


def converted(base: Path, folder: Path) -> tuple[Path, ImportedAdapter]:
    out = folder.parent / f"{folder.name}-taken"
    return out, convert_adapter(folder, out, base=base, source=folder.name)


def updates(out: Path) -> dict[str, np.ndarray[Any, Any]]:
    """What an engine adds to each layer: the factor times B·A."""
    config = read_adapter_config(out / "adapter_config.json")
    path = out / "adapter_model.safetensors"
    with TensorFile(path, max_header_bytes=MAX_ADAPTER_HEADER_BYTES) as file:
        return {
            name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): config.scaling
            * (file.read(name.replace("lora_A", "lora_B")) @ file.read(name))
            for name in file.tensors
            if ".lora_A." in name
        }


def meant(tensors: Tensors, scaling: dict[str, float]) -> dict[str, np.ndarray[Any, Any]]:
    return {
        module: factor
        * (
            tensors[f"base_model.model.{module}.lora_B.weight"]
            @ tensors[f"base_model.model.{module}.lora_A.weight"]
        )
        for module, factor in scaling.items()
    }


def assert_same(
    found: dict[str, Any], expected: dict[str, Any], *, tolerance: float = 1e-6
) -> None:
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=tolerance)


def test_a_plain_adapter_keeps_its_weights_and_says_where_it_comes_from(
    base: Path, tmp_path: Path
) -> None:
    tensors = lora_of()
    out, imported = converted(base, make_foreign(tmp_path / "trl", tensors=tensors))
    assert_same(updates(out), meant(tensors, dict.fromkeys(LINEAR, 2.0)))
    assert imported == read_imported(out)
    assert imported.foreign.base == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert imported.foreign.changes == ()
    assert any("held out" in note for note in imported.foreign.notes)
    assert any("NF4" in note for note in imported.foreign.notes)
    assert not any(
        "trained on" in note and "was made of" in note for note in imported.foreign.notes
    )
    assert imported.lora.targets == ("down_proj", "k_proj", "q_proj", "v_proj")


def test_ranks_and_alphas_of_their_own_become_one_rank_and_one_factor(
    base: Path, tmp_path: Path
) -> None:
    ranks = {FIRST: 8, "model.layers.1.mlp.down_proj": 2}
    tensors = lora_of(ranks=ranks)
    folder = make_foreign(
        tmp_path / "patterns",
        tensors=tensors,
        rank_pattern={FIRST: 8, r"layers\.1\.mlp\.down_proj": 2},
        alpha_pattern={"layers.0.self_attn.q_proj": 4, ".*v_proj": 16},
    )
    out, imported = converted(base, folder)
    scaling = dict.fromkeys(LINEAR, 8 / RANK)
    scaling |= {FIRST: 4 / 8, "model.layers.1.mlp.down_proj": 8 / 2}
    scaling |= {f"model.layers.{n}.self_attn.v_proj": 16 / RANK for n in (0, 1)}
    assert_same(updates(out), meant(tensors, scaling))
    assert imported.lora.rank == 8
    assert {"ranks 2 to 8 became 8 with zeros"} < set(imported.foreign.changes)


def test_rank_stabilised_lora_keeps_its_factor(base: Path, tmp_path: Path) -> None:
    tensors = lora_of(rank=8)
    folder = make_foreign(tmp_path / "rs", tensors=tensors, r=8, lora_alpha=16, use_rslora=True)
    out, imported = converted(base, folder)
    assert_same(updates(out), meant(tensors, dict.fromkeys(LINEAR, 16 / math.sqrt(8))))
    assert imported.lora.alpha == pytest.approx(16 / math.sqrt(8) * 8)
    assert "use_rslora" in imported.foreign.changes[0]


UNSLOTH = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    r"(?:q_proj|k_proj|v_proj|down_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\."
    r"(?:(?:q_proj|k_proj|v_proj|down_proj)))"
)


@pytest.mark.parametrize("targets", [UNSLOTH, "all-linear", r"^(a+)+$", None])
def test_targets_by_pattern_are_read_off_the_weights(
    base: Path, tmp_path: Path, targets: str | None
) -> None:
    tensors = lora_of({FIRST: LINEAR[FIRST]})
    folder = make_foreign(tmp_path / "pattern", tensors=tensors, target_modules=targets)
    started = time.monotonic()
    out, imported = converted(base, folder)
    assert time.monotonic() - started < 5
    assert imported.lora.targets == (FIRST,)
    assert_same(updates(out), meant(tensors, {FIRST: 2.0}))


def test_names_that_this_model_has_nothing_of_mean_nothing(base: Path, tmp_path: Path) -> None:
    tensors = lora_of()
    expected = ["query_key_value", "q_proj", "k_proj", "v_proj", "down_proj", "dense_h_to_4h"]
    out, _ = converted(
        base, make_foreign(tmp_path / "generic", tensors=tensors, target_modules=expected)
    )
    assert_same(updates(out), meant(tensors, dict.fromkeys(LINEAR, 2.0)))


def test_a_rank_for_every_layer_takes_no_time(base: Path, tmp_path: Path) -> None:
    names = {f"model.layers.{n}.self_attn.q_proj": RANK for n in range(2000)}
    folder = make_foreign(tmp_path / "many", rank_pattern=names, alpha_pattern=names)
    started = time.monotonic()
    converted(base, folder)
    assert time.monotonic() - started < 5
    odd = {f".*_{n}": 3 for n in range(40)}
    with pytest.raises(ArtifactError, match="rank_pattern has too many"):
        converted(base, make_foreign(tmp_path / "odd", rank_pattern=odd))


def test_some_layers_alone_may_be_adapted(base: Path, tmp_path: Path) -> None:
    names = {path: shape for path, shape in LINEAR.items() if ".1." in path}
    folder = make_foreign(tmp_path / "some", tensors=lora_of(names), layers_to_transform=[1])
    out, imported = converted(base, folder)
    assert set(updates(out)) == set(names)
    assert set(imported.lora.targets) == set(names)


RENAMED = {
    "the adapter's name": lambda name: name.replace(".weight", ".default.weight"),
    "torch.compile": lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
    "fsdp": lambda name: name.replace("layers.0.", "layers.0._fsdp_wrapped_module."),
    "checkpointing": lambda name: name.replace("self_attn", "_checkpoint_wrapped_module.self_attn"),
    "no prefix": lambda name: name.removeprefix("base_model.model."),
    "a model that sees": lambda name: name.replace("model.layers", "model.language_model.layers"),
    "the decoder alone": lambda name: name.replace("model.model.", "model.", 1),
}


@pytest.mark.parametrize("how", RENAMED)
def test_what_wrappers_did_to_the_names_is_undone(base: Path, tmp_path: Path, how: str) -> None:
    tensors = lora_of()
    renamed = {RENAMED[how](name): values for name, values in tensors.items()}
    assert renamed.keys() != tensors.keys()
    out, _ = converted(base, make_foreign(tmp_path / "renamed", tensors=renamed))
    assert_same(updates(out), meant(tensors, dict.fromkeys(LINEAR, 2.0)))


@pytest.mark.parametrize(("dtype", "kept"), [("F32", "F32"), ("F16", "F32"), ("BF16", "BF16")])
def test_half_precision_is_taken(base: Path, tmp_path: Path, dtype: str, kept: str) -> None:
    tensors = lora_of()
    out, imported = converted(base, make_foreign(tmp_path / "half", tensors=tensors, dtype=dtype))
    assert imported.dtype == kept
    assert_same(updates(out), meant(tensors, dict.fromkeys(LINEAR, 2.0)), tolerance=0.02)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"bias": "lora_only"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"peft_type": "ADALORA"}, "peft_type"),
        ({"peft_type": "PROMPT_TUNING", "r": None}, "peft_type"),
        ({"task_type": "SEQ_CLS"}, "task_type"),
        ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"loftq_config": {"loftq_bits": 4}}, "loftq_config"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"target_parameters": ["experts.down_proj"]}, "target_parameters"),
        ({"something_new": 3}, "something_new"),
        ({"alpha_pattern": {"(a+)+b": 3}}, "alpha_pattern"),
        ({"alpha_pattern": {"(.|.)" * 30: 3}}, "alpha_pattern"),
        ({"rank_pattern": {".?" * 30 + "x": 3}}, "rank_pattern"),
        ({"r": 100_000}, "r"),
        ({"r": "8"}, "r"),
        ({"base_model_name_or_path": "x" * 100_000}, "base_model_name_or_path"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    base: Path, tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    folder = make_foreign(tmp_path / "refused", **fields)
    started = time.monotonic()
    with pytest.raises(TrainingError, match=rf"\b{said}\b"):
        converted(base, folder)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("base_model.model.lm_head.lora_A.weight", "output head"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "embeddings"),
        (f"base_model.model.{FIRST}.lora_magnitude_vector", "DoRA"),
        ("base_model.model.model.embed_tokens.weight", "modules_to_save"),
        ("base_model.model.lm_head.modules_to_save.weight", "modules_to_save"),
        (f"base_model.model.{FIRST}.lora_B.bias", "bias"),
        ("base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight", "another model"),
        ("whatever", "not a weight of a LoRA"),
        ("x" * 100_000 + ".lora_A.weight", "not a weight of a LoRA"),
    ],
)
def test_tensors_that_cannot_be_served_are_refused_by_name(
    base: Path, tmp_path: Path, name: str, said: str
) -> None:
    tensors = {**lora_of(), name: np.zeros((4, 24))}
    with pytest.raises(UnsafeWeights, match=said):
        converted(base, make_foreign(tmp_path / "refused", tensors=tensors))


def test_another_model_is_refused_with_the_name_it_gives(base: Path, tmp_path: Path) -> None:
    wider = {module: (outputs * 2, inputs * 2) for module, (outputs, inputs) in LINEAR.items()}
    folder = make_foreign(
        tmp_path / "wide",
        tensors=lora_of(wider),
        base_model_name_or_path="unsloth/llama-3-8b-bnb-4bit",
    )
    with pytest.raises(UnsafeWeights, match=r"another model .*unsloth/llama-3-8b-bnb-4bit"):
        converted(base, folder)


@pytest.mark.parametrize(
    ("value", "said"), [(math.nan, "not finite"), (math.inf, "not finite"), (1e20, "at most 100")]
)
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_weights_that_would_poison_an_engine_are_refused(
    base: Path, tmp_path: Path, value: float, dtype: str, said: str
) -> None:
    tensors = lora_of()
    next(iter(tensors.values()))[1, 3] = value
    with pytest.raises(UnsafeWeights, match=said):
        converted(base, make_foreign(tmp_path / "poison", tensors=tensors, dtype=dtype))


def test_a_file_that_was_cut_is_refused(base: Path, tmp_path: Path) -> None:
    tensors = lora_of()
    del tensors["base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"]
    with pytest.raises(UnsafeWeights, match="the other half"):
        converted(base, make_foreign(tmp_path / "half", tensors=tensors))
    del tensors["base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"]
    with pytest.raises(UnsafeWeights, match=r"layers\.1\.mlp\.down_proj' are missing"):
        converted(base, make_foreign(tmp_path / "layer", tensors=tensors))
    none = {name: each for name, each in lora_of().items() if "down_proj" not in name}
    with pytest.raises(UnsafeWeights, match="'down_proj' are missing"):
        converted(base, make_foreign(tmp_path / "sort", tensors=none))
    folder = make_foreign(tmp_path / "bytes")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="bytes of data"):
        converted(base, folder)


def test_pickles_are_not_read_and_what_to_do_is_said(base: Path, tmp_path: Path) -> None:
    folder = make_foreign(tmp_path / "old")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ArtifactError, match="safe_serialization=True"):
        converted(base, folder)


def test_optimiser_states_and_tokenizers_beside_it_are_left_alone(
    base: Path, tmp_path: Path
) -> None:
    folder = make_foreign(tmp_path / "run")
    for name in ("optimizer.pt", "training_args.bin", "tokenizer.json", "README.md"):
        (folder / name).write_bytes(b"\x80\x04whatever")
    out, _ = converted(base, folder)
    assert {path.name for path in out.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "foreign.json",
    }


def test_the_outermost_adapter_of_a_run_counts(tmp_path: Path) -> None:
    make_foreign(tmp_path / "out" / "checkpoint-100")
    make_foreign(tmp_path / "out" / "checkpoint-200")
    with pytest.raises(ArtifactError, match=r"several adapters.*checkpoint-100"):
        find_adapter(tmp_path / "out")
    (tmp_path / "out" / "adapter_config.json").write_text("{}")
    assert find_adapter(tmp_path / "out") == tmp_path / "out"
    with pytest.raises(ArtifactError, match="save_pretrained"):
        find_adapter(tmp_path / "nowhere")


def test_another_trainers_format_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    for text in (
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"fine_tune_type": "lora", "lora_parameters": {"rank": 8}}',
        b"[" * 100_000,
        b'{"r": 1e999}',
        b"x" * 2_000_000,
    ):
        path.write_bytes(text)
        with pytest.raises(ArtifactError, match=r"adapter_config\.json"):
            read_foreign_config(path)


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("unsloth/SmolLM2-135M-Instruct-unsloth-bnb-4bit", True),
        ("unsloth/SmolLM2-135M-Instruct-bnb-4bit", True),
        ("/home/me/models/SmolLM2-135M-Instruct/", True),
        ("someone/smollm2-135m-instruct-AWQ", True),
        ("HuggingFaceTB/SmolLM2-135M", False),
        ("meta-llama/Llama-3.2-1B-Instruct", False),
    ],
)
def test_a_name_of_another_model_is_noted_and_not_refused(
    base: Path, tmp_path: Path, name: str, same: bool
) -> None:
    assert (bare_name(name) == "smollm2-135m-instruct") is same
    _, imported = converted(base, make_foreign(tmp_path / "named", base_model_name_or_path=name))
    assert any("was made of" in note for note in imported.foreign.notes) is not same


def test_an_export_of_another_house_is_held_to_its_manifest(base: Path, tmp_path: Path) -> None:
    folder = make_foreign(tmp_path / "export")
    (folder / MANIFEST_NAME).write_text(json.dumps({"base": {}, "files": {}}))
    with pytest.raises(ArtifactError, match="not one of Tenantune's"):
        converted(base, folder)
