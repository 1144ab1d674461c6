"""What a training run is told: a recipe (how), and a spec (what, where)."""

from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from training.compute_dtype import ComputeType
from training.errors import BadInput

Tracker = Literal["tensorboard", "mlflow", "wandb"]
Method = Literal["supervised", "dpo", "kto"]
"""Learns replies as they are; pairs of replies (Rafailov et al. 2023); judged replies (Ethayarajh
et al. 2024)."""


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The knobs of a QLoRA run; a recipe file is this as TOML.

    ``rank``, ``alpha``, ``dropout``, ``targets``: LoRA (Hu et al. 2021, arXiv 2106.09685).
    ``batch_tokens``: tokens (padding included) in one optimiser step, at most.
    ``batch_examples``: where it is not 0, a step has the tokens of so many average examples instead.
    ``max_length``: tokens of one conversation; longer ones lose their oldest turns.
    ``max_train_tokens``: stop after so many trained tokens (0: no bound), counted over epochs.
    ``train_minutes``: train as many tokens as the machine does in so many minutes, by its first
    batch (0: no such bound), but at least ``min_train_tokens``.
    ``compute_dtype``: the type of the arithmetic; ``auto`` is what the machine is measured to be
    faster in. ``adapter_dtype``: that of the adapter's weights; ``auto`` is the former.
    ``patience``: validations without a better loss before the run stops.

    For the methods ``dpo`` and ``kto`` alone:
    ``beta``: how strongly the model is held to the one it started from; more is nearer. Both
    papers train with 0.1 (arXiv 2305.18290, appendix B; arXiv 2402.01306, section 4.2).
    ``preference_rate_scale``: their learning rate, as a share of ``learning_rate``. Zephyr's
    recipes have 2e-4 and then 5e-6 (huggingface/alignment-handbook, ``config_qlora.yaml``), trl's
    defaults 2e-5 and 1e-6: a twentieth to a fortieth.

    ``report_to``: trackers that are told each step's figures; see `training.finetuning.trackers`.
    """

    name: str
    rank: int
    alpha: int
    dropout: float = 0.0
    targets: tuple[str, ...] = ("all-linear",)
    learning_rate: float
    warmup_ratio: float = 0.05
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    epochs: float
    max_train_tokens: int = 0
    train_minutes: float = 0.0
    min_train_tokens: int = 0
    batch_tokens: int
    batch_examples: int = 0
    max_length: int
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    compute_dtype: Literal["auto"] | ComputeType = "auto"
    adapter_dtype: Literal["auto", "bfloat16", "float32"] = "float32"
    gradient_checkpointing: bool = False
    validate_every: int
    validation_conversations: int = 64
    patience: int = 3
    checkpoint_every: int
    evaluation_replies: int = 32
    evaluation_conversations: int = 64
    max_reply_tokens: int = 96
    memory_bytes: int
    beta: float = 0.1
    preference_rate_scale: float = 0.05
    report_to: tuple[Tracker, ...] = ()


class Objectives(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a new adapter must reach to be promoted by itself; declared before the run.

    Each is held against a 95 % interval (`training.evaluation.gates`), but for ``max_parity_nats``, which an
    adapter must keep to be served at all.

    ``max_perplexity_ratio``: held-out perplexity over the base's, at most.
    ``max_live_perplexity_ratio``: the same over the live adapter's, at most (ignored without one
    that can be compared).
    ``min_similarity_gain``: mean semantic similarity of replies minus the base's, at least; below 0
    it is the loss of meaning that is tolerated.
    ``max_parity_nats``: mean |log-probability difference| between trainer and engine, at most.
    ``max_perplexity`` and ``min_exact``: absolute bounds, off unless given.

    After ``dpo`` or ``kto``, perplexity is that of the replies that were wanted, and
    ``max_perplexity_ratio`` is not applied: they teach which of two replies is better, and may
    lower the probability of both. Instead, ``min_preference_accuracy``: the share of held-out
    preferences that the model shares, at least; by default it must be above the base's, or as much
    by a larger margin.
    """

    max_perplexity_ratio: float = 0.8
    max_live_perplexity_ratio: float = 1.05
    min_similarity_gain: float = -0.1
    max_parity_nats: float = 0.05
    max_perplexity: float | None = None
    min_exact: float | None = None
    min_preference_accuracy: float | None = None


class TrainingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run. Paths are absolute. ``label`` goes into the manifest (the tenant's slug).

    ``method`` must suit the dataset: ``supervised`` reads conversations, ``dpo`` preferences,
    ``kto`` judgements. ``start_adapter``: begin with its weights, shape and all, instead of with
    none; ``dpo`` and ``kto`` then hold the model to it. It must be of the same base. ``imported``:
    do not train, but evaluate the adapter that `training.adapters.foreign.convert_adapter` left in this folder.
    """

    label: str
    base: str
    dataset: str
    recipe: Recipe
    seed: int = 17
    live_adapter: str | None = None
    method: Method = "supervised"
    start_adapter: str | None = None
    imported: str | None = None


def method_recipe(spec: TrainingSpec) -> Recipe:
    """The recipe as the spec's method trains by it.

    Where a model is compared with itself as it was, dropout would be mistaken for a difference.
    """
    recipe = spec.recipe
    if spec.method == "supervised":
        return recipe
    rate = recipe.learning_rate * recipe.preference_rate_scale
    return msgspec.structs.replace(recipe, learning_rate=rate, dropout=0.0)


def recipe_names() -> list[str]:
    """Names of the recipes that ship, sorted."""
    folder = resources.files("training.recipes")
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def load_recipe(name_or_path: str) -> Recipe:
    """Read a shipped recipe by name, or a TOML file by path.

    Raises:
        BadInput: no such recipe, or a field is wrong; the message names file and field.
    """
    if name_or_path.endswith(".toml"):
        source = name_or_path
        try:
            text = Path(name_or_path).read_text(encoding="utf-8")
        except OSError as exc:
            raise BadInput(f"cannot read recipe {name_or_path}: {exc.strerror}") from exc
        except UnicodeDecodeError as exc:
            raise BadInput(f"recipe {name_or_path} is not UTF-8 text: {exc.reason}") from exc
    else:
        if name_or_path not in recipe_names():
            known = ", ".join(recipe_names())
            raise BadInput(f"no recipe {name_or_path!r}; there are: {known}, or give a .toml file")
        source = f"{name_or_path}.toml"
        text = (resources.files("training.recipes") / source).read_text(encoding="utf-8")
    try:
        return msgspec.toml.decode(text, type=Recipe)
    except (msgspec.ValidationError, msgspec.DecodeError) as exc:
        raise BadInput(f"recipe {source}: {exc}") from exc


def load_spec(path: Path) -> TrainingSpec:
    """Read a spec (JSON).

    Raises:
        BadInput: the file is missing or a field is wrong.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=TrainingSpec)
    except OSError as exc:
        raise BadInput(f"cannot read {path}: {exc.strerror}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BadInput(f"{path}: {exc}") from exc
