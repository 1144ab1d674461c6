"""The README.md of an export: what it is, which base build it belongs to, and how to load it."""

from typing import Literal, assert_never

from training.adapters.package import AdapterManifest
from training.base_models.manifest import BaseModel, public_name

Form = Literal["peft", "merged", "base", "gguf"]

_PEFT = """\
PEFT's folder of a LoRA adapter. Load it on the serving base (the same export with `base` in the place
of this one gives that as a folder; so does `tenantune adapters export ... --base`):

```python
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = "path/to/the/unpacked/base"
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
model = PeftModel.from_pretrained(model, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained(base)
```

`adapter_config.json` names {model} as the base, since that is what others know. On those original weights
the adapter runs and is not exactly right: it was trained on their NF4 quantisation, which the serving
base is the exact dequantisation of. Loaded in 4 bits with bitsandbytes (`bnb_4bit_quant_type="nf4"`, blocks
of 64, no double quantisation), the original weights are right too.

For llama.cpp or Ollama, `tenantune adapters export ... --gguf` writes the adapter as GGUF.
"""
_MERGED = """\
The serving base with the adapter added to its weights, in bfloat16: transformers alone loads it.

```python
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/folder", dtype=torch.bfloat16)
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

Rounding the sum to bfloat16 moves log-probabilities a little (0.015 nats a token was measured on a 135 M
model); the adapter on its base is the exact one. `python convert_hf_to_gguf.py path/to/this/folder` of
llama.cpp makes one GGUF file of it.
"""
_BASE = """\
The base that this server's adapters were trained on and are served over: {model} quantised to NF4 and
dequantised again, as bfloat16. It belongs to no tenant and holds nothing of theirs. Its licence is that
of the original: {license}.
"""
_GGUF = """\
The adapter as GGUF, for llama.cpp and for Ollama. It is right on a GGUF of the serving base (the export
`base` gives that as a folder), which llama.cpp makes:

```sh
python convert_hf_to_gguf.py path/to/the/unpacked/base --outtype bf16 --outfile base.gguf
llama-cli -m base.gguf --lora adapter.gguf
ollama create {label} -f Modelfile          # with base.gguf beside it
```

A base that is quantised further (Q4_K_M, ...) is another model than the one it was trained on: it works,
and speaks less in the trained voice.
"""


def readme(form: Form, manifest: AdapterManifest, base: BaseModel | None) -> str:
    """The text. ``base`` is the base where it is known here."""
    model = f"`{public_name(base)}`" if base else f"`{manifest.base.name}`"
    parts = {"peft": _PEFT, "merged": _MERGED, "base": _BASE, "gguf": _GGUF}
    titles = {
        "peft": f"{manifest.label}: a LoRA adapter",
        "merged": f"{manifest.label}: merged weights",
        "base": f"{manifest.base.name}: a serving base",
        "gguf": f"{manifest.label}: a LoRA adapter as GGUF",
    }
    text = parts[form]
    for name, value in (
        ("{model}", model),
        ("{license}", base.license if base else "unknown"),
        ("{label}", manifest.label),
    ):
        text = text.replace(name, value)
    return "\n".join([f"# {titles[form]}", "", text, _facts(form, manifest, model)])


def _facts(form: Form, manifest: AdapterManifest, model: str) -> str:
    match form:
        case "base":
            about = ""
        case "peft" | "merged" | "gguf":
            about = _about(manifest)
        case _:
            assert_never(form)
    return (
        "## Which build it belongs to\n\n"
        f"- base: `{manifest.base.name}`, made of {model}\n"
        f"- serving_sha256: `{manifest.base.serving_sha256}` (SHA-256 over the lines "
        "`<sha256>  <name>` of the base's files in order of name)\n" + about
    )


def _about(manifest: AdapterManifest) -> str:
    lora = manifest.lora
    lines = [f"- LoRA: rank {lora.rank}, alpha {lora.alpha:g}, on {', '.join(lora.targets[:12])}"]
    if manifest.foreign is None:
        lines.append(f"- trained: {manifest.created_at}, on dataset `{manifest.dataset_sha256}`")
    else:
        lines.append(f"- trained elsewhere; imported {manifest.created_at}")
    text = "\n".join(lines) + "\n"
    if manifest.system_prompt:
        quoted = "\n".join(f"    {line}" for line in manifest.system_prompt.splitlines())
        text += f"\n## System message\n\nIt expects this one:\n\n{quoted}\n"
    return text
