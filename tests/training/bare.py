"""Bases and adapters as bare files, made without torch, for tests that only read them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tests.tiny import TINY
from training.base_models.manifest import BASE_FILE, BaseModel, combined_sha256, digest_tree

RANK, HIDDEN, INNER, VOCAB, LAYERS, HEADS = 4, 24, 40, 96, 2, 4
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN // 2, HIDDEN),
    "self_attn.v_proj": (HIDDEN // 2, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
LINEAR = {
    f"model.layers.{layer}.{name}": shape
    for layer in range(LAYERS)
    for name, shape in SHAPES.items()
}
Tensors = dict[str, np.ndarray[Any, Any]]


def save_tensors(path: Path, tensors: Tensors, *, dtype: str = "F32") -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    position = 0
    for name, values in tensors.items():
        blob = encode(values, dtype)
        header[name] = {
            "dtype": dtype,
            "shape": list(values.shape),
            "data_offsets": [position, position + len(blob)],
        }
        position += len(blob)
        blobs.append(blob)
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + b"".join(blobs))


def encode(values: np.ndarray[Any, Any], dtype: str) -> bytes:
    wide = values.astype(np.float32)
    match dtype:
        case "F32":
            return wide.tobytes()
        case "F16":
            return wide.astype(np.float16).tobytes()
        case "BF16":
            return (wide.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        case _:
            return wide.astype(np.float64).tobytes()


def make_bare_base(root: Path, *, source: str = "HuggingFaceTB/SmolLM2-135M-Instruct@abc") -> Path:
    """A base's folder: real files and hashes, random weights."""
    folder = root / "bare"
    serving = folder / "serving"
    serving.mkdir(parents=True)
    random = np.random.default_rng(3)
    tensors = {f"{name}.weight": random.normal(0, 0.2, shape) for name, shape in LINEAR.items()}
    tensors["model.embed_tokens.weight"] = random.normal(0, 0.2, (VOCAB, HIDDEN))
    tensors["model.norm.weight"] = np.ones(HIDDEN)
    save_tensors(serving / "model.safetensors", tensors, dtype="BF16")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": VOCAB,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
    }
    (serving / "config.json").write_text(json.dumps(config))
    (serving / "tokenizer_config.json").write_text('{"chat_template": "..."}')
    files = digest_tree(folder)
    serving_files = {name.removeprefix("serving/"): each for name, each in files.items()}
    base: BaseModel = msgspec.structs.replace(
        TINY,
        name="bare",
        source=source,
        files=files,
        serving_sha256=combined_sha256(serving_files),
    )
    (folder / BASE_FILE).write_bytes(msgspec.json.encode(base))
    return folder


def lora_of(
    names: Mapping[str, tuple[int, int]] = LINEAR,
    *,
    rank: int = RANK,
    ranks: Mapping[str, int] | None = None,
    seed: int = 5,
) -> Tensors:
    """Tensors of an adapter as PEFT names them."""
    random = np.random.default_rng(seed)
    tensors: Tensors = {}
    for module, (outputs, inputs) in names.items():
        own = (ranks or {}).get(module, rank)
        prefix = f"base_model.model.{module}"
        tensors[f"{prefix}.lora_A.weight"] = random.normal(0, 0.2, (own, inputs))
        tensors[f"{prefix}.lora_B.weight"] = random.normal(0, 0.1, (outputs, own))
    return tensors


def make_foreign(
    folder: Path,
    *,
    tensors: Tensors | None = None,
    dtype: str = "F32",
    without: tuple[str, ...] = (),
    **fields: Any,
) -> Path:
    """A PEFT folder as some trainer left it; ``fields`` of its configuration differ."""
    folder.mkdir(parents=True)
    save_tensors(folder / "adapter_model.safetensors", tensors or lora_of(), dtype=dtype)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "r": RANK,
        "lora_alpha": 8,
        "lora_dropout": 0.05,
        "bias": "none",
        "target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"],
        "peft_version": "0.17.1",
        **fields,
    }
    for name in without:
        del config[name]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
