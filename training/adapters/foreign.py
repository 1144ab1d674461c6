"""An adapter that was trained elsewhere, converted into the form of our own.

The input is PEFT's folder, as Axolotl, LLaMA-Factory, Unsloth, trl or PEFT itself write it. The
output has one rank, one scaling factor and plain names for all layers, computes exactly the same,
and has passed every check that our own adapters pass before an engine sees them. Needs no torch.

Which base it was trained on cannot be checked beyond the shapes. An adapter of the original weights
is not exactly right on a serving base, which is their NF4 quantisation; the report says so, and the
gates decide.
"""

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from training.adapters.foreign_config import ForeignConfig, read_foreign_config
from training.adapters.package import MANIFEST_NAME, Foreign, LoraShape
from training.adapters.safetensors_io import MAX_ADAPTER_HEADER_BYTES, TensorFile, write_tensors
from training.adapters.validation import (
    CONFIG_NAME,
    MAX_RANK,
    WEIGHTS_NAME,
    check_weights,
    linear_shapes,
)
from training.base_models.manifest import BaseModel, load_base, public_name
from training.errors import ArtifactError, UnsafeWeights
from training.filesystem import sync_tree, write_atomically

FOREIGN_NAME = "foreign.json"
MAX_DEPTH = 3  # folders between the given one and the adapter
_LONGEST_NAME = 500
_DTYPES = ("F32", "F16", "BF16")
_PART = re.compile(
    r"(?:base_model\.model\.)?(?P<module>[\w.]+)\.lora_(?P<part>[AB])"
    r"(?:\.(?P<adapter>\w+))?\.weight"
)
# what torch.compile, FSDP and activation checkpointing leave in the names of layers
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_OUTER = {"lm_head", "embed_tokens", "embed_out", "wte", "word_embeddings", "output_layer"}
_NAME_TAILS = re.compile(r"(-unsloth)?(-(bnb|nf4|gptq|awq|int4|int8|4bit|8bit|fp8|bf16|hf))+$")


class ImportedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """Describes the folder that `convert_adapter` writes; ``foreign.json`` beside PEFT's two files."""

    foreign: Foreign
    lora: LoraShape
    dtype: str


class _Pair(NamedTuple):
    """The names of a layer's two matrices in the file, and what they are."""

    a: str
    b: str
    rank: int
    scaling: float


def find_adapter(folder: Path) -> Path:
    """The folder with PEFT's configuration: this one, or the nearest one below it.

    Raises:
        ArtifactError: there is none, or several are equally near.
    """
    for depth in range(MAX_DEPTH + 1):
        found = sorted(folder.glob("/".join(["*"] * depth + [CONFIG_NAME])))
        if len(found) == 1:
            return found[0].parent
        if found:
            names = ", ".join(str(path.parent.relative_to(folder)) for path in found[:8])
            raise ArtifactError(f"{folder} holds several adapters: give one of {names}")
    raise ArtifactError(
        f"{folder} has no {CONFIG_NAME}: give the folder that PEFT's save_pretrained wrote"
    )


def convert_adapter(
    folder: Path, out: Path, *, base: Path, source: str, max_rank: int = MAX_RANK
) -> ImportedAdapter:
    """Check an adapter's folder against a base, and write it to ``out`` in our form.

    Args:
        folder: PEFT's two files, and perhaps a manifest of Tenantune's; other files are not read.
        out: The new folder; must not exist.
        base: The base's folder.
        source: The origin's name in manifest and report.
        max_rank: The highest rank that the engine accepts.

    Raises:
        UnsafeWeights: it asks for what the engine does not do, is of another model, or holds
            weights that are not finite; the message names the field or the tensor.
        ArtifactError: a file is missing, or is not what its name says.
        BaseModelError: the base is not whole.
    """
    if not (folder / WEIGHTS_NAME).is_file():
        raise no_weights(sorted(path.name for path in folder.iterdir() if path.is_file()))
    serving_base = load_base(base)
    config = read_foreign_config(folder / CONFIG_NAME)
    shapes = linear_shapes(base / "serving")
    out.mkdir(parents=True)
    with TensorFile(folder / WEIGHTS_NAME, max_header_bytes=MAX_ADAPTER_HEADER_BYTES) as file:
        pairs = _pairs(file, config, shapes)
        _expect_all(config, pairs, shapes)
        scaling, _ = Counter(pair.scaling for pair in pairs.values()).most_common(1)[0]
        rank = max(pair.rank for pair in pairs.values())
        if rank > max_rank:
            enough = max(8, 1 << (rank - 1).bit_length())  # vLLM takes powers of two
            raise UnsafeWeights(
                f"its rank is {rank}, and the engine takes at most {max_rank}: have the operator start "
                f"it with TENANTUNE_ENGINE_OPTIONS='max_lora_rank={enough}'"
            )
        changes = _changes(config, pairs, file)
        exact = all(pair.scaling == scaling for pair in pairs.values())
        found = {file.tensors[name].dtype for pair in pairs.values() for name in pair[:2]}
        dtype = "BF16" if exact and found == {"BF16"} else "F32"
        _write_weights(
            out / WEIGHTS_NAME, file, pairs, shapes=shapes, rank=rank, scaling=scaling, dtype=dtype
        )
    targets = _targets(pairs, shapes)
    alpha = scaling * rank
    write_atomically(
        out / CONFIG_NAME, _config(config, serving_base, rank, alpha=alpha, targets=targets)
    )
    check_weights(out, base_serving=base / "serving")
    taken = ImportedAdapter(
        foreign=Foreign(
            source=source,
            sha256=_sha256(folder / WEIGHTS_NAME),
            base=config.base_model_name_or_path,
            peft_version=config.peft_version,
            changes=tuple(changes),
            notes=tuple(_notes(folder, config, serving_base)),
        ),
        lora=LoraShape(rank=rank, alpha=alpha, targets=tuple(targets)),
        dtype=dtype,
    )
    write_atomically(out / FOREIGN_NAME, msgspec.json.encode(taken))
    sync_tree(out)
    return taken


def read_imported(folder: Path) -> ImportedAdapter:
    """Read what `convert_adapter` wrote beside the weights.

    Raises:
        ArtifactError: it cannot be read.
    """
    path = folder / FOREIGN_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=ImportedAdapter)
    except (OSError, ValueError) as exc:
        raise ArtifactError(f"cannot read {path}: {exc}") from exc


def copy_imported(folder: Path, out: Path) -> None:
    """Copy PEFT's two files of such a folder into ``out``."""
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        shutil.copyfile(folder / name, out / name)


def no_weights(names: Sequence[str]) -> ArtifactError:
    """The error for a folder without readable weights: says why, and what to do."""
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
    if pickles:
        return ArtifactError(
            f"{pickles[0]} can run code when it is loaded and is not read. Load the adapter where "
            "it was trained, and save it with model.save_pretrained(folder, "
            "safe_serialization=True)"
        )
    if any(name.startswith("adapter_model-") for name in names):
        return ArtifactError(
            "the weights are in several files: save them in one, with "
            "model.save_pretrained(folder, max_shard_size='100GB')"
        )
    return ArtifactError(f"there is no {WEIGHTS_NAME} beside {CONFIG_NAME}")


def _pairs(
    file: TensorFile, config: ForeignConfig, shapes: Mapping[str, tuple[int, int]]
) -> dict[str, _Pair]:
    """The adapted layers, by their path in this base, in order."""
    names: dict[tuple[str, str], str] = {}
    adapters: set[str] = set()
    for name in file.tensors:
        module, part, adapter = _parse(name)
        adapters.add(adapter)
        path = _resolve(module, shapes, config)
        if names.setdefault((path, part), name) != name:
            raise UnsafeWeights(f"{name} and {names[path, part]} are of the same layer")
    if len(adapters) > 1:
        raise UnsafeWeights(f"{WEIGHTS_NAME} holds several adapters: {', '.join(sorted(adapters))}")
    if not names:
        raise UnsafeWeights(f"{WEIGHTS_NAME} holds no weights")
    found: dict[str, _Pair] = {}
    for path in sorted({path for path, _ in names}, key=list(shapes).index):
        a, b = names.get((path, "A")), names.get((path, "B"))
        if a is None or b is None:
            raise UnsafeWeights(f"{a or b}: the other half of the layer {path!r} is missing")
        rank = config.rank_of(path)
        outputs, inputs = shapes[path]
        for name, expected in ((a, (rank, inputs)), (b, (outputs, rank))):
            _check(file, name, expected, config)
        found[path] = _Pair(a, b, rank, config.scaling_of(path))
    return found


def _parse(name: str) -> tuple[str, str, str]:
    """(layer, A or B, adapter) of a tensor's name."""
    plain = name[:_LONGEST_NAME]
    for wrapper in _WRAPPERS:
        plain = plain.replace(wrapper, "")
    matched = _PART.fullmatch(plain)
    if matched is not None and len(name) <= _LONGEST_NAME:
        module = matched["module"]
        if module.rpartition(".")[2] in _OUTER:
            raise UnsafeWeights(
                f"{name}: a LoRA on embeddings or on the output head cannot be served; "
                "train it again without them in target_modules"
            )
        return module, matched["part"], matched["adapter"] or ""
    if "lora_embedding" in plain:
        why = "a LoRA on embeddings cannot be served; train it again without embed_tokens"
    elif "lora_magnitude_vector" in plain:
        why = "DoRA cannot be served; train it again without use_dora"
    elif plain.endswith(".bias"):
        why = "biases cannot be served; train it again with bias 'none' and without lora_bias"
    elif plain.endswith(".weight"):
        why = (
            "it holds whole layers of the base (modules_to_save, or embeddings that were resized "
            "for new tokens), which cannot be served for one tenant; train it again without"
        )
    else:
        why = "it is not a weight of a LoRA"
    raise UnsafeWeights(f"{plain}: {why}")


def _resolve(module: str, shapes: Mapping[str, tuple[int, int]], config: ForeignConfig) -> str:
    """The path of a layer in this base, also where a wrapper renamed its root."""
    if module in shapes:
        return module
    bare = module.replace("language_model.", "")
    for tail in (bare, bare.removeprefix("model."), bare.removeprefix("model.model.")):
        found = [path for path in shapes if path == tail or path.endswith(f".{tail}")]
        if len(found) == 1:
            return found[0]
    raise UnsafeWeights(
        f"this base has no layer {module!r} to adapt: the adapter is of another model "
        f"({config.base_model_name_or_path or 'its configuration does not say which'})"
    )


def _check(file: TensorFile, name: str, expected: tuple[int, int], config: ForeignConfig) -> None:
    info = file.tensors[name]
    if info.shape != expected:
        raise UnsafeWeights(
            f"{name} has shape {list(info.shape)}; {CONFIG_NAME} and this base need "
            f"{list(expected)}: the adapter is of another model than this base "
            f"({config.base_model_name_or_path or 'its configuration does not say which'}), or its "
            "rank is not the one that is given"
        )
    if info.dtype not in _DTYPES:
        raise UnsafeWeights(
            f"{name} has dtype {info.dtype}; save it in one of {', '.join(_DTYPES)}"
        )


def _expect_all(
    config: ForeignConfig, pairs: Mapping[str, _Pair], shapes: Mapping[str, tuple[int, int]]
) -> None:
    """Where layers are given by name, refuse a file in which one of them is missing.

    A regular expression is not run; then the file alone says which layers are adapted.
    """
    wanted = config.target_modules
    partly = config.layers_to_transform is not None or config.exclude_modules
    if not isinstance(wanted, list) or partly:
        return
    families = {_family(path) for path in pairs}  # the name may also match vision layers
    for path in shapes:
        if path not in pairs and not _ends(path).isdisjoint(wanted) and _family(path) in families:
            raise UnsafeWeights(
                f"the weights of {path!r} are missing: {CONFIG_NAME} says that it is adapted"
            )
    adapted = {name for path in pairs for name in _ends(path)}
    for name in wanted:  # PEFT too ignores a name that the base does not have
        if name not in adapted and any(name in _ends(path) for path in shapes):
            raise UnsafeWeights(f"the weights of {name!r} are missing: {CONFIG_NAME} names it")


def _family(path: str) -> str:
    """The same text for layers that differ only in their number."""
    return re.sub(r"\.\d+\.", ".#.", path)


def _ends(path: str) -> set[str]:
    """Every name that PEFT accepts for this layer."""
    parts = path.split(".")
    return {".".join(parts[i:]) for i in range(len(parts))}


def _targets(pairs: Mapping[str, _Pair], shapes: Mapping[str, tuple[int, int]]) -> list[str]:
    """The shortest names that select exactly these layers."""
    names = {path.rpartition(".")[2] for path in pairs}
    meant = {path for path in shapes if path.rpartition(".")[2] in names}
    return sorted(names) if meant == set(pairs) else list(pairs)


def _write_weights(
    path: Path,
    file: TensorFile,
    pairs: Mapping[str, _Pair],
    *,
    shapes: Mapping[str, tuple[int, int]],
    rank: int,
    scaling: float,
    dtype: str,
) -> None:
    """Pad all layers to one rank: zero rows of A and zero columns of B add nothing."""
    plan: dict[str, tuple[int, ...]] = {}
    sources: dict[str, tuple[str, float]] = {}
    for module, pair in pairs.items():
        outputs, inputs = shapes[module]
        a, b = (f"base_model.model.{module}.lora_{part}.weight" for part in "AB")
        plan[a], sources[a] = (rank, inputs), (pair.a, 1.0)
        plan[b], sources[b] = (outputs, rank), (pair.b, pair.scaling / scaling)

    def values(name: str) -> npt.NDArray[np.float32]:
        source, factor = sources[name]
        found = file.read(source)
        if factor != 1.0:
            found = found * np.float32(factor)
        missing = [(0, wanted - has) for wanted, has in zip(plan[name], found.shape, strict=True)]
        return np.pad(found, missing)

    write_tensors(path, plan, dtype=dtype, values=values)


def _config(
    config: ForeignConfig, base: BaseModel, rank: int, *, alpha: float, targets: list[str]
) -> bytes:
    fields = {
        "base_model_name_or_path": base.name,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "peft_version": config.peft_version,
        "r": rank,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
    }
    return (json.dumps(fields, indent=2) + "\n").encode()


def _changes(config: ForeignConfig, pairs: Mapping[str, _Pair], file: TensorFile) -> list[str]:
    """What is changed in its form, in words."""
    found: list[str] = []
    ranks = {pair.rank for pair in pairs.values()}
    if len(ranks) > 1:
        found.append(f"ranks {min(ranks)} to {max(ranks)} became {max(ranks)} with zeros")
    factors = {pair.scaling for pair in pairs.values()}
    if len(factors) > 1:
        found.append("factors of layers (alpha_pattern, rank_pattern) became a part of their B")
    if config.use_rslora:
        found.append("use_rslora became an alpha of the same effect")
    if isinstance(config.target_modules, str) or config.layers_to_transform is not None:
        found.append(f"the adapted layers are the {len(pairs)} that the file holds weights of")
    if any(file.tensors[pair.a].dtype == "F16" for pair in pairs.values()):
        found.append("float16 weights became float32")
    return found


def _notes(folder: Path, config: ForeignConfig, base: BaseModel) -> list[str]:
    """What a person should know before promoting it."""
    notes = [
        "it was trained elsewhere, on data that is not known here: conversations that are held out "
        "here may have been among it, and its scores are then too good"
    ]
    if (folder / MANIFEST_NAME).is_file():
        build = verify_export(folder)
        if build == base.serving_sha256:
            return [*notes, f"Tenantune trained it, on exactly this build of {base.name}"]
        return [
            *notes,
            f"Tenantune trained it, on another build of its base ({build[:12]}) than the one here "
            f"({base.serving_sha256[:12]})",
        ]
    named, made_of = config.base_model_name_or_path, public_name(base)
    if named is None:
        notes.append("its configuration does not say which model it was trained on; the shapes fit")
    elif bare_name(named) not in {bare_name(made_of), bare_name(base.name)}:
        notes.append(
            f"it says that it was trained on {named!r}; the base here, {base.name!r}, was made of "
            f"{made_of!r}: the shapes fit, more is not known"
        )
    notes.append(
        "it was trained on other weights than those it is served on, which are an NF4 quantisation "
        "of the model: it may speak less in the trained voice here than where it comes from"
    )
    return notes


def verify_export(folder: Path) -> str:
    """Check the three files of one of our exports; return the build of the base it was trained on.

    Raises:
        ArtifactError: a file was changed since.
    """
    manifest_path = folder / MANIFEST_NAME
    try:
        fields = json.loads(manifest_path.read_bytes())
        build, files = str(fields["base"]["serving_sha256"]), dict(fields["files"])
        hashes = {name: str(files[name]["sha256"]) for name in (WEIGHTS_NAME, CONFIG_NAME)}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ArtifactError(
            f"{MANIFEST_NAME} is not one of Tenantune's ({exc!r}): remove it to import the adapter"
        ) from exc
    for name, expected in hashes.items():
        if _sha256(folder / name) != expected:
            raise ArtifactError(
                f"{name} is not the file that {MANIFEST_NAME} tells of: it was changed or damaged. "
                f"Export it again, or remove {MANIFEST_NAME} to import it as it is"
            )
    return build


def bare_name(name: str) -> str:
    """A model's name without publisher and format: ``unsloth/x-bnb-4bit`` becomes ``x``."""
    tail = name.rstrip("/").replace("\\", "/").rpartition("/")[2].lower()
    return _NAME_TAILS.sub("", re.sub(r"[^a-z0-9.]+", "-", tail))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
