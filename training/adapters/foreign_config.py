"""Reads an adapter_config.json from elsewhere, and refuses what cannot be served.

PEFT's own fields are known by name. A field that changes what the weights mean, in a way that an
engine does not follow, is refused with advice. Patterns from an upload are never run as they are:
one regular expression can keep a process busy for hours.
"""

import functools
import math
import re
from pathlib import Path
from typing import Annotated, Any

import msgspec

from training.adapters.validation import CONFIG_NAME, MAX_RANK
from training.errors import ArtifactError, UnsafeWeights

_MAX_BYTES = 1024 * 1024
_MAX_ENTRIES = 2048  # twice the layers of the largest models
_MAX_PATTERNS = 32
_MAX_CHOICES = 4
_Rank = Annotated[int, msgspec.Meta(ge=1, le=MAX_RANK)]
_Alpha = Annotated[float, msgspec.Meta(gt=0, le=1e9)]

_Name = Annotated[str, msgspec.Meta(max_length=1000)]

_AGAIN = "train it again without"
_REFUSED: dict[str, str] = {
    "use_dora": f"DoRA scales every row of the base; {_AGAIN} use_dora",
    "modules_to_save": f"it replaces whole layers of the base for one tenant; {_AGAIN} it",
    "trainable_token_indices": f"it changes the base's embeddings; {_AGAIN} it",
    "lora_bias": f"the engine adds no bias; {_AGAIN} it",
    "target_parameters": f"the engine adapts linear layers alone; {_AGAIN} it",
    "layer_replication": f"it makes a base of another depth; {_AGAIN} it",
    "alora_invocation_tokens": f"activated LoRA starts in mid-text; {_AGAIN} it",
    "use_qalora": f"QALoRA pools its inputs; {_AGAIN} it",
    "use_bdlora": f"block-diagonal LoRA is another product; {_AGAIN} it",
    "fan_in_fan_out": f"the base's layers are stored the other way round; {_AGAIN} it",
    "megatron_config": f"its layers are Megatron's; {_AGAIN} it",
    "loftq_config": "LoftQ changes the base before training; train it again without",
    "corda_config": "CorDA changes the base before training; convert it to a plain LoRA",
}
"""Fields that may not be set, and why."""

_HARMLESS = {
    "auto_mapping",
    "base_model_class",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "layers_pattern",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "parent_library",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
}
"""Fields that say how it was trained or loaded, and not what its weights mean."""

# These only set the initial weights; others (pissa, olora, corda, loftq) change the base too.
_PLAIN_STARTS = {"true", "false", "gaussian", "eva", "orthogonal", "mica", "lora_ga"}


class ForeignConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part of PEFT's configuration that decides what the weights mean.

    ``target_modules`` is PEFT's: names, a regular expression, or ``all-linear``.
    """

    peft_type: str = "LORA"
    r: _Rank
    lora_alpha: _Alpha
    target_modules: list[str] | str | None = None
    task_type: str | None = None
    bias: str = "none"
    use_rslora: bool = False
    init_lora_weights: bool | str | None = True
    rank_pattern: dict[str, _Rank] | None = None
    alpha_pattern: dict[str, _Alpha] | None = None
    layers_to_transform: list[int] | int | None = None
    exclude_modules: list[str] | str | None = None
    base_model_name_or_path: _Name | None = None
    peft_version: _Name | None = None

    def rank_of(self, module: str) -> int:
        """The rank of a layer, by its path."""
        return _matching(self.rank_pattern, module, field="rank_pattern") or self.r

    def scaling_of(self, module: str) -> float:
        """The factor on B·A of a layer, as PEFT computes it."""
        alpha = _matching(self.alpha_pattern, module, field="alpha_pattern") or self.lora_alpha
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def read_foreign_config(path: Path) -> ForeignConfig:
    """Read an adapter_config.json of any trainer.

    Raises:
        ArtifactError: it cannot be read, or is no configuration of PEFT's.
        UnsafeWeights: it asks for what the engine does not do; the message names it.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise ArtifactError(f"cannot read {path.name}: {exc.strerror}") from exc
    if len(raw) > _MAX_BYTES:
        raise ArtifactError(f"{path.name} is larger than {_MAX_BYTES:,} bytes")
    try:
        fields = msgspec.json.decode(raw.removeprefix(b"\xef\xbb\xbf"), type=dict[str, Any])
    except (ValueError, RecursionError) as exc:
        raise ArtifactError(f"{path.name}: not a JSON object: {exc}") from exc
    kind = fields.get("peft_type", "LORA")
    if isinstance(kind, str) and kind.upper() != "LORA":
        raise _refusal("peft_type", kind, "only a LoRA can be served")
    if "r" not in fields:
        raise ArtifactError(
            f"{path.name} has no field 'r': it is not PEFT's configuration of a LoRA. Save the "
            "adapter with PEFT's model.save_pretrained(folder)"
        )
    try:
        config = msgspec.convert(fields, ForeignConfig)
    except msgspec.ValidationError as exc:
        raise ArtifactError(f"{path.name}: {exc}") from exc
    _refuse_kinds(config)
    for name, value in fields.items():
        if name in ForeignConfig.__struct_fields__ or name in _HARMLESS or _unset(value):
            continue
        why = _REFUSED.get(name, f"this version does not know what it means; {_AGAIN} it")
        raise _refusal(name, value, why)
    for name in ("rank_pattern", "alpha_pattern"):
        keys = list(getattr(config, name) or ())
        patterns = [key for key in keys if _literal(key) is None]
        if len(keys) > _MAX_ENTRIES or len(patterns) > _MAX_PATTERNS:
            raise ArtifactError(f"{CONFIG_NAME}: {name} has too many entries ({len(keys):,})")
        for key in patterns:
            _compiled(key, field=name)
    return config


def _refuse_kinds(config: ForeignConfig) -> None:
    """Refuse other tasks, biases, and starts that change the base."""
    if config.task_type not in (None, "", "CAUSAL_LM"):
        raise _refusal("task_type", config.task_type, "only a CAUSAL_LM can answer a chat")
    if config.bias not in ("none", ""):
        raise _refusal("bias", config.bias, f"the engine adds no bias; {_AGAIN} it (bias 'none')")
    start = str(config.init_lora_weights).lower()
    if config.init_lora_weights is not None and start not in _PLAIN_STARTS:
        raise _refusal(
            "init_lora_weights",
            config.init_lora_weights,
            "it is only right on a base that was changed before training; convert it with "
            "save_pretrained(folder, path_initial_model_for_weight_conversion=...)",
        )


def _refusal(name: str, value: object, why: str) -> UnsafeWeights:
    shown = msgspec.json.encode(value).decode()
    shown = shown if len(shown) <= 80 else f"{shown[:80]}..."  # noqa: PLR2004 - a line
    return UnsafeWeights(f"{CONFIG_NAME}: {name} = {shown} cannot be served: {why}")


def _matching(patterns: dict[str, Any] | None, module: str, *, field: str) -> Any:  # noqa: ANN401
    """The value of the first pattern that matches this layer, as PEFT looks it up; else None."""
    if not patterns:
        return None
    parts = module.split(".")
    ends = {".".join(parts[start:]) for start in range(len(parts))}
    for key, value in patterns.items():
        literal = _literal(key)
        if literal in ends or (literal is None and _compiled(key, field=field).match(module)):
            return value
    return None


@functools.lru_cache(maxsize=2 * _MAX_ENTRIES)
def _literal(key: str) -> str | None:
    """The (end of a) path that a key is; None where it is a pattern."""
    path = key.replace(r"\.", ".")
    return path if re.fullmatch(r"[\w.]+", path) else None


@functools.lru_cache(maxsize=2 * _MAX_PATTERNS)
def _compiled(key: str, *, field: str) -> re.Pattern[str]:
    """A key that is a pattern, as PEFT compiles it.

    Only expressions whose matching time is bounded by the square of the path's length.
    """
    costly = (
        len(re.findall(r"[*+?]", key)) > 1
        or key.count("|") > _MAX_CHOICES
        or re.search(r"[{}]|\)[*+?]|\\[1-9]", key) is not None
    )
    try:
        if not costly and len(key) <= 300:  # noqa: PLR2004 - the longest path has some 100
            return re.compile(rf"(.*\.)?({key})$")
    except re.error:
        pass
    raise UnsafeWeights(
        f"{CONFIG_NAME}: {field} has the pattern {key[:80]!r}: name layers by (the end of) their "
        "path, as 'self_attn.q_proj'"
    )


def _unset(value: object) -> bool:
    return value is None or value is False or value in ("", [], {})
