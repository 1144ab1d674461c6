"""What a head is to be trained with, and what it tells apart."""

from pathlib import Path
from typing import Literal, get_args

import msgspec

from training.errors import BadInput

TextEncoderName = Literal["all-minilm-l6-v2", "hashed-words"]
ImageEncoderName = Literal["efficientnet-lite0", "colour-grid"]
IMAGE_ENCODERS: tuple[ImageEncoderName, ...] = get_args(ImageEncoderName)
EncoderName = TextEncoderName | ImageEncoderName
Task = Literal["sentiment", "annoyance", "intent", "image"]
TASKS: tuple[Task, ...] = get_args(Task)
IMAGE: Task = "image"
"""The task whose examples are images; those of all others are texts."""
ANNOYED = "annoyed"
"""The label of the task ``annoyance`` that people are told of; the task has one other label."""

Method = Literal["frozen", "contrastive"]
"""What is trained: the softmax layer alone, or the encoder too, by contrast (SetFit)."""


class HeadRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How heads are trained. The defaults were measured, see ``training/LOG.md``.

    Attributes:
        method: ``frozen`` trains the softmax layer alone. ``contrastive`` tunes the encoder first.
            ``auto`` tries both and keeps ``frozen`` where it is not worse on the validation part.
        inverse_penalty: Of the softmax layer's squared weights (scikit-learn's ``C``).
        rounds: Of contrastive training. In each, every text is paired with one of its own label and
            with one of another (SetFit's iterations).
        learning_rate: Of contrastive training, in the first round; it falls linearly.
        batch_pairs: Pairs of a step.
        max_pairs: Of the whole contrastive training. With more texts than fit into them, a round
            takes a sample of the texts.
        rank: Of the encoder's LoRA; its alpha is twice that.
    """

    method: Literal["auto", "frozen", "contrastive"] = "auto"
    inverse_penalty: float = 10.0
    rounds: int = 10
    learning_rate: float = 1e-3
    batch_pairs: int = 16
    max_pairs: int = 2_000
    rank: int = 16


class HeadSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run. ``dataset`` and ``live`` are folders; ``live`` is the head that is used now."""

    dataset: str
    encoder: EncoderName = "all-minilm-l6-v2"
    recipe: HeadRecipe = HeadRecipe()
    live: str | None = None
    seed: int = 17


def load_spec(path: Path) -> HeadSpec:
    """Read a spec.

    Raises:
        BadInput: it cannot be read, or a field is unknown, or no value for it.
    """
    try:
        spec = msgspec.json.decode(path.read_bytes(), type=HeadSpec)
    except OSError as exc:
        raise BadInput(f"cannot read {path}: {exc.strerror}") from exc
    except msgspec.DecodeError as exc:
        raise BadInput(f"{path}: {exc}") from exc
    recipe = spec.recipe
    for name in ("inverse_penalty", "rounds", "learning_rate", "batch_pairs", "max_pairs", "rank"):
        if not getattr(recipe, name) > 0:
            raise BadInput(f"{path}: {name} must be above 0")
    if spec.live is not None and not Path(spec.live).is_dir():
        raise BadInput(f"{path}: there is no live head at {spec.live}")
    return spec
