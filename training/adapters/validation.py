"""Checks that adapter weights are safe to load beside other tenants' adapters.

Reads ``adapter_config.json``, the adapter's tensors and the headers of the base's serving
weights; needs numpy and no torch.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from training.adapters.safetensors_io import (
    MAX_ADAPTER_HEADER_BYTES,
    MAX_BASE_HEADER_BYTES,
    TensorFile,
)
from training.errors import ArtifactError, BaseModelError, UnsafeWeights

WEIGHTS_NAME = "adapter_model.safetensors"
CONFIG_NAME = "adapter_config.json"
MAX_RANK = 256

MAX_ABS_WEIGHT = 100.0
MAX_RELATIVE_UPDATE = 100.0
_BASE_ROWS = 64
_MATRIX_AXES = 2
_MAX_CONFIG_BYTES = 1024 * 1024
_DTYPES = ("F32", "F16", "BF16")
_MODULE = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")


class AdapterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part of PEFT's adapter_config.json that decides what the weights mean."""

    peft_type: Literal["LORA"]
    r: Annotated[int, msgspec.Meta(ge=1)]
    lora_alpha: Annotated[float, msgspec.Meta(gt=0)]
    target_modules: Annotated[list[str], msgspec.Meta(min_length=1)]
    use_rslora: bool = False

    @property
    def scaling(self) -> float:
        """The factor on B·A, as vLLM and PEFT compute it."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


# Fields of adapter_config.json that the engine may ignore, besides those read above. Any other
# field that is set (DoRA, biases, saved modules, rank patterns, replicated layers, ...) changes
# what the weights mean in a way the engine does not follow.
_HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "megatron_core",
    "peft_version", "qalora_group_size", "revision", "runtime_config", "task_type",
}  # fmt: skip
_PLAIN_VALUES = {"bias": ("none",), "init_lora_weights": (True, "gaussian", "eva", "orthogonal")}


def check_weights(folder: Path, *, base_serving: Path, max_rank: int = MAX_RANK) -> AdapterConfig:
    """Check an adapter's configuration and every weight, against the base it is made for.

    Raises:
        UnsafeWeights: an unsupported kind of LoRA, a rank above ``max_rank``, a tensor missing,
            left over, of the wrong shape or dtype, not finite, or absurdly large. The message
            names the tensor.
        ArtifactError: the file is not a safetensors file.
        BaseModelError: the base's weights cannot be read.
    """
    config = read_adapter_config(folder / CONFIG_NAME, max_rank=max_rank)
    with _Base(base_serving) as base, _open(folder / WEIGHTS_NAME) as adapter:
        shapes = base.targets(config.target_modules)
        _check_shapes(adapter, shapes, rank=config.r)
        for module in shapes:
            a = _finite(adapter, f"base_model.model.{module}.lora_A.weight")
            b = _finite(adapter, f"base_model.model.{module}.lora_B.weight")
            update = config.scaling * _product_norm(a, b)
            relative = update / max(base.norm(module), 1e-6)
            if not relative <= MAX_RELATIVE_UPDATE:
                raise UnsafeWeights(
                    f"base_model.model.{module}.lora_B.weight: the update is {relative:.3g} times "
                    f"the base's weight, at most {MAX_RELATIVE_UPDATE:g} is accepted"
                )
    return config


def read_adapter_config(path: Path, *, max_rank: int = MAX_RANK) -> AdapterConfig:
    """Read an adapter_config.json that describes a plain LoRA.

    Raises:
        UnsafeWeights: it is missing, not JSON, or asks for what the engine does not do.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_CONFIG_BYTES)
        fields = msgspec.json.decode(raw, type=dict[str, Any])
        config = msgspec.convert(fields, AdapterConfig)
    except OSError as exc:
        raise UnsafeWeights(f"cannot read {path}: {exc.strerror}") from exc
    except (ValueError, msgspec.DecodeError, RecursionError) as exc:
        raise UnsafeWeights(f"{path}: not the configuration of a plain LoRA: {exc}") from exc
    for name, value in fields.items():
        plain = name in AdapterConfig.__struct_fields__ or name in _HARMLESS
        plain = plain or value in _PLAIN_VALUES.get(name, ()) or _unset(value)
        if not plain:
            raise UnsafeWeights(
                f"{path}: {name} = {json.dumps(value)[:80]} is not supported by the engine; "
                "train a plain LoRA"
            )
    if config.r > max_rank:
        raise UnsafeWeights(f"{path}: rank {config.r}; this server takes at most {max_rank}")
    return config


def linear_shapes(base_serving: Path) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of every layer of a base that an adapter may adapt, by its path.

    Raises:
        BaseModelError: the base's weights cannot be read.
    """
    with _Base(base_serving) as base:
        return base.shapes()


class _Base:
    """Shapes and norms of a base's matrices, from one file or from a sharded checkpoint."""

    def __init__(self, serving: Path) -> None:
        self._files: list[TensorFile] = []
        self._where: dict[str, TensorFile] = {}
        try:
            config = json.loads((serving / "config.json").read_bytes())
            vocab_size = _text_config(config).get("vocab_size")
            for path in sorted(serving.glob("*.safetensors")):
                file = TensorFile(path, max_header_bytes=MAX_BASE_HEADER_BYTES)
                self._files.append(file)
                for name, info in file.tensors.items():
                    is_matrix = name.endswith(".weight") and len(info.shape) == _MATRIX_AXES
                    # Embeddings and the output head: vLLM adapts them in another way, if at all.
                    if is_matrix and vocab_size not in info.shape:
                        self._where[name.removesuffix(".weight")] = file
        except (OSError, ValueError, AttributeError, ArtifactError) as exc:
            self.__exit__()
            raise BaseModelError(f"cannot read the base in {serving}: {exc}") from exc
        if not self._where:
            self.__exit__()
            raise BaseModelError(f"{serving} has no safetensors weights")

    def __enter__(self) -> "_Base":
        return self

    def __exit__(self, *exc: object) -> None:
        for file in self._files:
            file.__exit__()

    def shapes(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of every module."""
        found: dict[str, tuple[int, int]] = {}
        for module, file in self._where.items():
            outputs, inputs = file.tensors[f"{module}.weight"].shape
            found[module] = (outputs, inputs)
        return found

    def targets(self, names: list[str]) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of every module that the configuration names."""
        shapes = self.shapes()
        found: dict[str, tuple[int, int]] = {}
        for name in names:
            matching = {m: s for m, s in shapes.items() if m == name or m.endswith(f".{name}")}
            if not matching:
                raise UnsafeWeights(f"{CONFIG_NAME}: this base has no layer {name!r} to adapt")
            found |= matching
        return found

    def norm(self, module: str) -> float:
        """Frobenius norm of the module's matrix, estimated from its first rows.

        An 8-billion model has 16 GB of weights: reading all of them would take longer than
        loading the adapter, and a bound of a factor 100 needs no exact figure.
        """
        file = self._where[module]
        rows = file.read(f"{module}.weight", rows=_BASE_ROWS)
        outputs = file.tensors[f"{module}.weight"].shape[0]
        return float(np.linalg.norm(rows)) * math.sqrt(outputs / max(len(rows), 1))


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Vision-language models keep the language model's configuration one level down."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def _open(path: Path) -> TensorFile:
    return TensorFile(path, max_header_bytes=MAX_ADAPTER_HEADER_BYTES)


def _check_shapes(adapter: TensorFile, shapes: Mapping[str, tuple[int, int]], *, rank: int) -> None:
    for name in adapter.tensors:
        matched = _MODULE.fullmatch(name)
        if matched is None or matched["module"] not in shapes:
            raise UnsafeWeights(f"{name}: not a LoRA weight of a layer named in {CONFIG_NAME}")
    for module, (outputs, inputs) in shapes.items():
        for part, expected in (("A", (rank, inputs)), ("B", (outputs, rank))):
            name = f"base_model.model.{module}.lora_{part}.weight"
            info = adapter.tensors.get(name)
            if info is None:
                raise UnsafeWeights(f"{name} is missing: {CONFIG_NAME} says this layer is adapted")
            if info.shape != expected:
                raise UnsafeWeights(
                    f"{name} has shape {list(info.shape)}; rank {rank} on this base needs "
                    f"{list(expected)}"
                )
            if info.dtype not in _DTYPES:
                raise UnsafeWeights(f"{name} has dtype {info.dtype}; use one of {_DTYPES}")


def _finite(adapter: TensorFile, name: str) -> npt.NDArray[np.float32]:
    values = adapter.read(name)
    # NaN passes through max, so one comparison finds NaN, infinity and size alike.
    largest = float(np.max(np.abs(values), initial=0.0))
    if not math.isfinite(largest):
        raise UnsafeWeights(f"{name} holds weights that are not finite")
    if largest > MAX_ABS_WEIGHT:
        raise UnsafeWeights(
            f"{name} holds a weight of {largest:.3g}; at most {MAX_ABS_WEIGHT:g} is accepted"
        )
    return values


def _product_norm(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Frobenius norm of b @ a through rank x rank products: ||BA||² = <BᵀB, AAᵀ>.

    a: (rank, inputs), b: (outputs, rank).
    """
    left = (b.T @ b).astype(np.float64)
    right = (a @ a.T).astype(np.float64)
    return math.sqrt(max(float(np.sum(left * right)), 0.0))


def _unset(value: object) -> bool:
    return value is None or value is False or value in ("", [], {})
