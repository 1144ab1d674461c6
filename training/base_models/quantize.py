"""Makes base models: any causal LM -> NF4 -> its exact dequantisation.

Quantisation always runs on the CPU, so that a base made here and one made on a GPU machine have
the same bytes. Double quantisation is off: it would save 0.4 bits a weight, and costs a second
table look-up each time a layer's weights are unpacked, which on a CPU is in every step. Embeddings
and the output head stay in bf16 (bitsandbytes' default).
"""

import argparse
import fcntl
import importlib.metadata
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MethodType
from typing import Any

import msgspec
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from training.base_models.manifest import (
    BASE_FILE,
    BUILTIN,
    BaseModel,
    combined_sha256,
    digest_tree,
    load_base,
)
from training.base_models.sources import (
    OnProgress,
    builtin_file,
    declared_license,
    from_pretrained,
    resolve_source,
    source_sha256,
    unpack_gguf,
)
from training.errors import BaseModelError
from training.filesystem import open_like_parent, sync_path, sync_tree

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,63}")
QUANTISATION = "bitsandbytes nf4, blocks of 64, single, bf16 compute"


def add_base(
    name_or_path: str,
    root: Path,
    *,
    on_progress: OnProgress,
    name: str | None = None,
    chat_template: Path | None = None,
) -> BaseModel:
    """Make the base in ``root/<name>``, unless it is there already.

    The folder appears by rename once it is whole. Two processes at once make it once; the remains
    of an interrupted one are removed.

        base = add_base("smollm2-135m-instruct", home / "bases", on_progress=print)
        model = load_nf4(home / "bases" / base.name / "nf4", device="cpu")

    Args:
        name_or_path: A built-in's name, a folder with a transformers checkpoint, or a hub id.
        root: Folder of all bases; made where it is missing.
        on_progress: Called with a line of text at each stage, and with the size of a download
            before it begins.
        name: The base's name; by default made from ``name_or_path``.
        chat_template: A Jinja file, for a model that has no chat template.

    Raises:
        BaseModelError: the source cannot be read, is not a causal LM, or has no chat template.
    """
    name = name or _name_for(name_or_path)
    if not NAME.fullmatch(name):
        raise BaseModelError(
            f"base name {name!r}: use a-z, 0-9, '.', '_', '-' (2 to 64 characters)"
        )
    root.mkdir(parents=True, exist_ok=True)
    folder = root / name
    if folder.is_dir():
        return _existing(folder, name_or_path)
    quiet_libraries()
    with _locked(root / f".{name}.lock", on_progress=on_progress):
        if folder.is_dir():
            return _existing(folder, name_or_path)
        for leftover in root.glob(f".{name}.partial-*"):
            shutil.rmtree(leftover)
        partial = root / f".{name}.partial-{os.getpid()}"
        partial.mkdir()
        try:
            base = _make(
                name_or_path, name, partial, on_progress=on_progress, chat_template=chat_template
            )
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_path(root)
        on_progress(f"base {name} is ready: {base.parameters / 1e6:.0f} M parameters")
        return base


def _existing(folder: Path, source: str) -> BaseModel:
    base = load_base(folder)
    if source not in (base.source, base.source.split("@")[0]) and (
        str(Path(source).resolve()) != base.source
    ):
        raise BaseModelError(
            f"base {base.name!r} exists already, made from {base.source}; "
            f"give {source} another name with --name"
        )
    return base


def quiet_libraries() -> None:
    """Keep the progress bars and hints of transformers and bitsandbytes off the terminal."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _make(
    source: str, name: str, folder: Path, *, on_progress: OnProgress, chat_template: Path | None
) -> BaseModel:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".work-") as temporary:
        work = Path(temporary)
        if builtin := BUILTIN.get(source):
            gguf = builtin_file(builtin, work, on_progress=on_progress)
            checkpoint, tokenizer = unpack_gguf(gguf, work / "bf16", on_progress=on_progress)
            origin, sha256, licence = source, builtin.sha256, builtin.license
        else:
            checkpoint, origin = resolve_source(source, on_progress=on_progress)
            sha256, licence = source_sha256(checkpoint), declared_license(checkpoint)
            tokenizer = from_pretrained(AutoTokenizer, checkpoint)
        _check_chat_template(tokenizer, source, chat_template)
        config = from_pretrained(AutoConfig, checkpoint)
        text = config.get_text_config()
        max_length = int(getattr(text, "max_position_embeddings", 0)) or 4096
        tokenizer.model_max_length = max_length
        parameters = _quantise(checkpoint, folder, tokenizer, on_progress=on_progress)
    files = digest_tree(folder)
    serving = {k.removeprefix("serving/"): v for k, v in files.items() if k.startswith("serving/")}
    base = BaseModel(
        name=name,
        source=origin,
        source_sha256=sha256,
        license=licence,
        architecture=(config.architectures or ["?"])[0],
        parameters=parameters,
        hidden_size=text.hidden_size,
        layers=text.num_hidden_layers,
        vocab_size=text.vocab_size,
        max_length=max_length,
        quantisation=QUANTISATION,
        serving_sha256=combined_sha256(serving),
        files=files,
        packages={
            p: importlib.metadata.version(p) for p in ("torch", "transformers", "bitsandbytes")
        },
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    (folder / BASE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(base)))
    open_like_parent(folder)  # the engine may run as another user
    sync_tree(folder)
    return base


def _quantise(
    checkpoint: Path, folder: Path, tokenizer: PreTrainedTokenizerBase, *, on_progress: OnProgress
) -> int:
    """Write ``nf4/`` and ``serving/``; return the number of parameters."""
    on_progress("quantising to NF4")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=False,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = from_pretrained(
        AutoModelForCausalLM,
        checkpoint,
        dtype=torch.bfloat16,
        quantization_config=config,
        device_map={"": "cpu"},
    )
    model.save_pretrained(folder / "nf4")
    tokenizer.save_pretrained(folder / "nf4")
    del model
    on_progress("writing the serving weights, its exact dequantisation")
    serving = from_pretrained(AutoModelForCausalLM, checkpoint, dtype=torch.bfloat16)
    if not _copy_dequantised(load_nf4(folder / "nf4", device="cpu"), serving):
        raise BaseModelError(f"{checkpoint}: no linear layer could be quantised")
    serving.save_pretrained(folder / "serving")
    tokenizer.save_pretrained(folder / "serving")
    return sum(p.numel() for p in serving.parameters())


def load_nf4(
    folder: Path,
    *,
    device: str,
    dtype: torch.dtype = torch.bfloat16,
    unpacked: bool = False,
    attention: str = "sdpa",
) -> PreTrainedModel:
    """Load an ``nf4/`` folder, to compute in ``dtype`` with exactly the serving weights.

    On a CPU the packed inference kernel is switched off: it rounds differently (mean 0.016 nats
    from the serving weights), and validation should run what is trained and served. Where it
    computes in another type than bf16, bitsandbytes does not round its weights to bf16, as the
    serving weights are (mean 0.007 nats from them, SmolLM2-135M, 599 tokens); `_Bf16Matmul` does.

    Args:
        folder: The ``nf4`` folder of a base.
        device: ``cpu`` or ``cuda``.
        dtype: The type of the arithmetic.
        unpacked: Dequantise the layers once instead of in each pass: more memory, less time.
        attention: The name of transformers' attention implementation.
    """
    model = from_pretrained(
        AutoModelForCausalLM,
        folder,
        dtype=torch.bfloat16,
        device_map={"": device},
        attn_implementation=attention,
    )
    if unpacked:
        model = model.dequantize(dtype)
        model.is_loaded_in_4bit = False
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
        if type(module).__name__ == "Linear4bit":
            module.compute_dtype, module.compute_type_is_set = dtype, True
            if dtype != torch.bfloat16:
                module.forward = MethodType(_rounded_forward, module)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dtype == torch.bfloat16:
            tensor.data = tensor.data.to(dtype)
    return model


class _Bf16Matmul(torch.autograd.Function):  # type: ignore[misc] # untyped
    """x @ W.T with the weights rounded to bf16 as served; unpacked again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's
        x: torch.Tensor,
        module: torch.nn.Module,
    ) -> torch.Tensor:
        ctx.module = module
        return torch.nn.functional.linear(x, dequantised(module).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN401
        return grad @ dequantised(ctx.module).to(grad.dtype), None


def _rounded_forward(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = _Bf16Matmul.apply(x, module)
    return out if module.bias is None else out + module.bias


def dequantised(module: torch.nn.Module) -> torch.Tensor:
    """bf16 weights of a 4-bit linear layer, as its forward pass sees them."""
    from bitsandbytes.functional import dequantize_4bit  # noqa: PLC0415 - 2 s to import

    return dequantize_4bit(module.weight.data, module.weight.quant_state).to(torch.bfloat16)


def _copy_dequantised(source: PreTrainedModel, target: PreTrainedModel) -> int:
    """Put the weights of every 4-bit layer into the plain model; return how many there were."""
    copied = 0
    for name, module in source.named_modules():
        if type(module).__name__ == "Linear4bit":
            target.get_submodule(name).weight.data.copy_(dequantised(module))
            copied += 1
    return copied


def _check_chat_template(
    tokenizer: PreTrainedTokenizerBase, source: str, given: Path | None
) -> None:
    if given is not None:
        try:
            tokenizer.chat_template = given.read_text(encoding="utf-8")
        except OSError as exc:
            raise BaseModelError(f"cannot read chat template {given}: {exc.strerror}") from exc
    if not tokenizer.chat_template:
        raise BaseModelError(
            f"{source} has no chat template, so it is not a chat model; "
            "take its instruct version, or give a Jinja file with --chat-template"
        )
    if not tokenizer.is_fast:
        raise BaseModelError(f"{source} has no fast tokenizer (tokenizer.json), which is needed")


def _name_for(source: str) -> str:
    tail = source if source in BUILTIN else Path(source.rstrip("/")).name
    return re.sub(r"[^a-z0-9._-]+", "-", tail.lower()).strip("-._")


@contextmanager
def _locked(path: Path, *, on_progress: OnProgress) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; it is released when the process ends."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress("another process is making this base; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Make a base; progress goes to standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m training.base_models.quantize", description=main.__doc__
    )
    parser.add_argument("source")
    parser.add_argument("root", type=Path)
    parser.add_argument("--chat-template", type=Path)
    parser.add_argument("--name")
    given = parser.parse_args()

    def on_progress(line: str) -> None:
        print(f"base      {line}", file=sys.stderr, flush=True)  # noqa: T201 - a command's output

    try:
        add_base(
            given.source,
            given.root,
            on_progress=on_progress,
            name=given.name,
            chat_template=given.chat_template,
        )
    except BaseModelError as exc:
        sys.exit(f"error: {exc}")


if __name__ == "__main__":
    main()
