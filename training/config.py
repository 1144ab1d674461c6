"""The input of a training run: a recipe (how to train) and a spec (what to train, and where)."""

from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from training.compute_dtype import ComputeType
from training.errors import BadInput

Tracker = Literal["tensorboard", "mlflow", "wandb"]
Method = Literal["supervised", "dpo", "kto"]
"""``supervised`` learns replies as they are, ``dpo`` pairs of replies (Rafailov et al. 2023), ``kto``
replies with a label, desirable or undesirable (Ethayarajh et al. 2024)."""


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of a QLoRA run; a recipe file is this as TOML.

    ``recipes/README.md`` explains every field, with the values that the shipped recipes choose.
    """

    name: str
    device: Literal["cpu", "gpu"] = "cpu"
    rank: int
    alpha: int
    dropout: float = 0.0
    targets: tuple[str, ...] = ("all-linear",)
    learning_rate: float
    warmup_ratio: float = 0.05
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    epochs: float
    min_epochs: float = 0.0
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
    references: int = 0
    min_distinct_replies: float = 0.5
    unreferenced: float = 0.0
    distractors: float = 0.1
    copy_words: bool = False
    quote_replies: bool = False
    report_to: tuple[Tracker, ...] = ()
    full_evaluation: bool = False

    @property
    def uses_index(self) -> bool:
        """Whether an adapter of it is served with an index of past exchanges."""
        return self.references > 0 or self.copy_words or self.quote_replies


class Objectives(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a new adapter must reach to be promoted automatically; declared before the run.

    Each bound is compared with a 95 % interval (`training.evaluation.gates`), except
    ``max_parity_nats``, which an adapter must keep to be served at all.

    ``max_perplexity_ratio``: held-out perplexity over the base's, at most.
    ``max_live_perplexity_ratio``: held-out perplexity over the live adapter's, at most (ignored
    where no live adapter can be compared).
    ``min_similarity_gain``: mean semantic similarity of replies minus the base's, at least; a value
    below 0 is a tolerated loss.
    ``min_lookup_f1_gain``: mean token F1 of replies minus the look-up's, at least; null: not asked for.
    ``max_invented_gain``: share of replies that hold a fact which nobody has said, minus that of the
    base with the same references, at most; null: not asked for.
    ``max_parity_nats``: mean |log-probability difference| between trainer and engine, at most.
    ``max_perplexity`` and ``min_exact``: absolute bounds, off unless given.

    ``dpo`` and ``kto`` teach which of two replies is better, and may lower the probability of both.
    So ``max_perplexity_ratio`` does not apply to them, and perplexity is that of wanted replies.
    Instead there is ``min_preference_accuracy``: the share of held-out preferences that the model
    shares, at least. By default that share must be above the base's, or equal with a larger margin.
    """

    max_perplexity_ratio: float = 0.8
    max_live_perplexity_ratio: float = 1.05
    min_similarity_gain: float = -0.1
    min_lookup_f1_gain: float | None = -0.05
    max_invented_gain: float | None = 0.05
    max_parity_nats: float = 0.05
    max_perplexity: float | None = None
    min_exact: float | None = None
    min_preference_accuracy: float | None = None


KNOWLEDGE_NAME = "knowledge-{sha256}.safetensors"
"""What a file of `training.retrieval.articles` is called."""


class TrainingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run. Paths are absolute. ``label`` goes into the manifest (the tenant's slug).

    ``method`` must suit the dataset: ``supervised`` reads conversations, ``dpo`` preferences,
    ``kto`` judgements. ``start_adapter``: begin with its weights, shape and all, instead of with
    none; ``dpo`` and ``kto`` then hold the model to it. It must be of the same base. ``imported``:
    do not train, but evaluate the adapter that `training.adapters.foreign.convert_adapter` left in this folder.
    ``knowledge``: the articles that the adapter will be served with, frozen in a file of
    `training.retrieval.articles`.
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
    knowledge: str | None = None


def method_recipe(spec: TrainingSpec) -> Recipe:
    """The recipe as the spec's method uses it.

    ``dpo`` and ``kto`` compare the model with itself at the start. Dropout would count as a
    difference there, so it is off; and the learning rate is scaled.
    """
    recipe = spec.recipe
    if spec.method == "supervised":
        return recipe
    rate = recipe.learning_rate * recipe.preference_rate_scale
    return msgspec.structs.replace(recipe, learning_rate=rate, dropout=0.0)


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    folder = resources.files("training.recipes")
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def recipe_summary(name: str) -> str:
    """What a shipped recipe is for: the first line of its file."""
    text = (resources.files("training.recipes") / f"{name}.toml").read_text(encoding="utf-8")
    return text.partition("\n")[0].removeprefix("#").strip()


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
