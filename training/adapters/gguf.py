"""An adapter as GGUF, which llama.cpp and Ollama load on a GGUF of its base.

Written as llama.cpp's convert_lora_to_gguf.py does: ``general.type`` adapter, ``adapter.type`` lora,
the alpha, and for each layer ``<name>.lora_a`` (rank, inputs) and ``<name>.lora_b`` (outputs, rank),
named as llama.cpp names the architecture's tensors. Where llama.cpp reorders the rows of a base's
matrix, those of B are reordered too.

    python -m training.adapters.gguf ADAPTER BASE OUT
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.adapters.export import load_base_of
from training.adapters.export_readme import readme
from training.adapters.package import AdapterManifest, read_manifest
from training.adapters.safetensors_io import MAX_ADAPTER_HEADER_BYTES, TensorFile
from training.adapters.validation import CONFIG_NAME, WEIGHTS_NAME, read_adapter_config
from training.errors import BadInput, BaseModelError, TrainingError
from training.filesystem import replacing, write_atomically

GGUF_NAME = "adapter.gguf"
MODELFILE_NAME = "Modelfile"
_PREFIX = "base_model.model."

# What transformers calls an architecture, and llama.cpp; of llama.cpp's converters, those that keep
# every linear layer as it is, or only reorder the rows of q and k ("permuted"): others split, join
# or scale layers, and an adapter of theirs would be silently wrong.
ARCHITECTURES: dict[str, str] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
    "SmolLM3ForCausalLM": "smollm3",
    "OlmoForCausalLM": "olmo",
    "Olmo2ForCausalLM": "olmo2",
    "GraniteForCausalLM": "granite",
    "Phi3ForCausalLM": "phi3",
}
_PERMUTED = {"llama", "olmo", "granite", "smollm3"}


def write_gguf(adapter: Path, base: Path, path: Path) -> None:
    """Write the adapter as a GGUF file, float32, by rename.

    Raises:
        BadInput: the base's architecture is not in ``ARCHITECTURES``, or has no name for a layer.
        ArtifactError: the adapter cannot be read.
        BaseModelError: the base's configuration cannot be read.
    """
    import gguf  # noqa: PLC0415 - a package of the training extra

    config = read_adapter_config(adapter / CONFIG_NAME)
    text = _text_config(base / "serving" / "config.json")
    name = _architecture(text)
    architecture = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == name)
    names = gguf.get_tensor_name_map(architecture, int(text["num_hidden_layers"]))
    writer = gguf.GGUFWriter(None, name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    # llama.cpp's factor is alpha / rank, where PEFT's may be alpha / sqrt(rank)
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, config.scaling * config.r)
    reorder = row_order(name, text)
    with TensorFile(adapter / WEIGHTS_NAME, max_header_bytes=MAX_ADAPTER_HEADER_BYTES) as file:
        layers = [n.partition(".lora_A.")[0] for n in file.tensors if ".lora_A." in n]
        for layer in layers:
            module = layer.removeprefix(_PREFIX)
            found = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
            if found is None:
                raise BadInput(f"llama.cpp has no name for the layer {module!r} of {name}")
            b = file.read(f"{layer}.lora_B.weight")
            writer.add_tensor(f"{found}.lora_a", file.read(f"{layer}.lora_A.weight"))
            writer.add_tensor(f"{found}.lora_b", np.ascontiguousarray(reorder(module, b)))
    with replacing(path) as beside:
        writer.write_header_to_file(beside)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


Rows = npt.NDArray[np.float32]


def row_order(name: str, config: dict[str, Any]) -> Callable[[str, Rows], Rows]:
    """A function that puts a layer's rows into llama.cpp's order, given the layer's path.

    llama.cpp's rotary embedding rotates neighbouring rows of a head together; transformers' rotates
    row i of one half with row i of the other (``LlamaModel.permute`` in llama.cpp's converter).
    """
    heads = int(config["num_attention_heads"])
    groups = {"q_proj": heads, "k_proj": int(config.get("num_key_value_heads") or heads)}

    def reorder(module: str, rows: Rows) -> Rows:
        count = groups.get(module.rpartition(".")[2])
        if name not in _PERMUTED or count is None:
            return rows
        halves = rows.reshape(count, 2, rows.shape[0] // count // 2, *rows.shape[1:])
        return halves.swapaxes(1, 2).reshape(rows.shape)

    return reorder


def export_gguf(adapter: Path, base: Path, out: Path) -> None:
    """Fill the new folder ``out``: the GGUF file, a Modelfile for Ollama, and a README.

    Raises:
        BadInput: as ``write_gguf``.
        BaseModelError: the base is not here, or is another build than the adapter's.
        ArtifactError: the adapter cannot be read.
    """
    manifest = read_manifest(adapter)
    serving_base = load_base_of(manifest, base)
    _architecture(_text_config(base / "serving" / "config.json"))
    out.mkdir(parents=True)
    write_gguf(adapter, base, out / GGUF_NAME)
    write_atomically(out / MODELFILE_NAME, modelfile(manifest).encode())
    write_atomically(out / "README.md", readme("gguf", manifest, serving_base).encode())


def modelfile(manifest: AdapterManifest) -> str:
    """The file for ``ollama create``; the base's GGUF file, made by llama.cpp, must be beside it.

    The chat template comes from that file.
    """
    lines = ["FROM ./base.gguf", f"ADAPTER ./{GGUF_NAME}"]
    if manifest.system_prompt:
        quoted = manifest.system_prompt.replace('"""', "'''")
        lines.append(f'SYSTEM """{quoted}"""')
    return "\n".join([*lines, "PARAMETER temperature 0", ""])


def _architecture(config: dict[str, Any]) -> str:
    for name in config.get("architectures") or ():
        if (found := ARCHITECTURES.get(name)) is not None:
            return found
    shown = ", ".join(config.get("architectures") or ["?"])
    raise BadInput(
        f"no GGUF adapter can be made for {shown}: supported are {', '.join(ARCHITECTURES)}; take "
        "the merged weights instead, and convert them with llama.cpp's convert_hf_to_gguf.py"
    )


def _text_config(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise BaseModelError(f"cannot read {path}: {exc}") from exc
    return config


def main() -> None:
    """Run from the command line; errors end it with their reason."""
    parser = argparse.ArgumentParser(prog="python -m training.adapters.gguf", description=__doc__)
    for name in ("adapter", "base", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    try:
        export_gguf(given.adapter, given.base, given.out)
    except TrainingError as exc:
        sys.exit(f"error: {exc}")


if __name__ == "__main__":
    main()
