"""A GGUF adapter read back adds to each layer what the safetensors do, in llama.cpp's order of rows."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.training.adapters.sample_manifest import MANIFEST
from tests.training.bare import (
    HEADS,
    HIDDEN,
    LAYERS,
    LINEAR,
    RANK,
    lora_of,
    make_bare_base,
    make_foreign,
)
from training.adapters.gguf import ARCHITECTURES, export_gguf, row_order, write_gguf
from training.adapters.package import BaseRef, write_manifest
from training.base_models.manifest import load_base
from training.errors import BadInput, BaseModelError

gguf = pytest.importorskip("gguf")  # of the training extra

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_bare_base(tmp_path / "bases")


def change_architecture(base: Path, name: str) -> None:
    path = base / "serving" / "config.json"
    config = json.loads(path.read_bytes())
    path.write_text(json.dumps({**config, "architectures": [name]}))


def as_it_was(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Undo llama.cpp's order: of each head, even rows are the first half, odd ones the second."""
    found = np.empty_like(rows)
    size = rows.shape[0] // heads
    for head in range(heads):
        block = rows[head * size : (head + 1) * size]
        found[head * size : head * size + size // 2] = block[0::2]
        found[head * size + size // 2 : (head + 1) * size] = block[1::2]
    return found


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_layer_is_there_under_its_name_with_its_product(
    base: Path, tmp_path: Path, architecture: str
) -> None:
    change_architecture(base, architecture)
    names = {m: s for m, s in LINEAR.items() if architecture != "Phi3ForCausalLM" or "down" in m}
    tensors = lora_of(names)
    targets = sorted({m.rpartition(".")[2] for m in names})
    folder = make_foreign(tmp_path / "adapter", tensors=tensors, target_modules=targets)
    write_gguf(folder, base, tmp_path / "adapter.gguf")
    reader = gguf.GGUFReader(tmp_path / "adapter.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "adapter"
    assert fields["general.architecture"] == ARCHITECTURES[architecture]
    assert fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == 8.0
    found = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert len(found) == 2 * len(names)
    permuted = ARCHITECTURES[architecture] in {"llama", "olmo", "granite", "smollm3"}
    for module in names:
        layer = module.split(".")[2]
        short = module.partition(f".{layer}.")[2]
        a, b = (found[f"blk.{layer}.{NAMES[short]}.weight.lora_{part}"] for part in "ab")
        assert a.shape[0] == b.shape[1] == RANK
        if permuted and short.endswith(("q_proj", "k_proj")):
            b = as_it_was(b, HEADS if short.endswith("q_proj") else HEADS // 2)
        wanted_a, wanted_b = (
            tensors[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB"
        )
        np.testing.assert_allclose(b @ a, wanted_b @ wanted_a, atol=1e-6)


def test_rows_are_ordered_as_transformers_orders_them_back() -> None:
    loader = pytest.importorskip("transformers.modeling_gguf_pytorch_utils")
    config = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS // 2}
    rows = np.random.default_rng(0).normal(size=(HIDDEN, 3)).astype(np.float32)
    ordered = row_order("llama", config)("model.layers.0.self_attn.q_proj", rows)
    assert not np.array_equal(ordered, rows)
    processor = loader.LlamaTensorProcessor({})
    back = processor._reverse_permute_weights(ordered, HEADS, HEADS)
    np.testing.assert_array_equal(back, rows)
    np.testing.assert_array_equal(as_it_was(ordered, HEADS), rows)
    for untouched in ("self_attn.v_proj", "mlp.down_proj"):
        assert row_order("llama", config)(untouched, rows) is rows
    assert row_order("qwen2", config)("self_attn.q_proj", rows) is rows


def test_the_factor_of_rank_stabilised_lora_becomes_an_alpha(base: Path, tmp_path: Path) -> None:
    folder = make_foreign(tmp_path / "adapter", use_rslora=True)
    write_gguf(folder, base, tmp_path / "adapter.gguf")
    alpha = gguf.GGUFReader(tmp_path / "adapter.gguf").fields["adapter.lora.alpha"].contents()
    assert alpha / RANK == pytest.approx(8 / RANK**0.5)


def test_a_folder_for_ollama(base: Path, tmp_path: Path) -> None:
    folder = make_foreign(tmp_path / "adapter")
    serving_base = load_base(base)
    ref = BaseRef(name=serving_base.name, serving_sha256=serving_base.serving_sha256)
    prompt = 'Say """hi""".\nBe kind.'
    write_manifest(folder, msgspec.structs.replace(MANIFEST, base=ref, system_prompt=prompt))
    export_gguf(folder, base, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "adapter.gguf",
        "Modelfile",
        "README.md",
    }
    text = (tmp_path / "out" / "Modelfile").read_text()
    assert text.startswith("FROM ./base.gguf\nADAPTER ./adapter.gguf\n")
    assert text.count('"""') == 2
    assert serving_base.serving_sha256 in (tmp_path / "out" / "README.md").read_text()


def test_an_architecture_that_would_be_wrong_is_refused_with_the_way_out(
    base: Path, tmp_path: Path
) -> None:
    folder = make_foreign(tmp_path / "adapter")
    change_architecture(base, "MixtralForCausalLM")
    with pytest.raises(BadInput, match=r"MixtralForCausalLM.*merged weights"):
        write_gguf(folder, base, tmp_path / "adapter.gguf")
    assert LAYERS == 2
    (base / "serving" / "config.json").unlink()
    with pytest.raises(BaseModelError, match=r"config\.json"):
        write_gguf(folder, base, tmp_path / "adapter.gguf")
