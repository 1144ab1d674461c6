"""The input of a sweep: a run, the minutes it may take, and the settings to choose from."""

from pathlib import Path

import msgspec

from training.config import Recipe, TrainingSpec
from training.errors import BadInput

RATE_FACTOR = 4.0
"""The rates that are tried reach from the recipe's divided by this to the recipe's times this."""
REFERENCES = (0, 1, 2, 4)
"""Past exchanges that a reply is shown; more make prompts too long for a small base."""
MIN_EPOCHS = (0.0, 2.0, 4.0)
"""Passes that a trial makes over what it reads, at least. All trials have the same number of tokens, so more passes are
passes over fewer conversations; 0 reads as many as there are tokens for."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a recipe that a sweep chooses. Its fields are named as in `Recipe`."""

    learning_rate: float
    rank: int
    references: int
    min_epochs: float = 0.0

    @classmethod
    def of(cls, recipe: Recipe) -> "Setting":
        """The recipe's own."""
        return cls(**{name: getattr(recipe, name) for name in cls.__struct_fields__})

    def __str__(self) -> str:
        passes = f", {self.min_epochs:g} epochs or more" if self.min_epochs else ""
        return (
            f"rate {self.learning_rate:.2g}, rank {self.rank}, {self.references} references{passes}"
        )


class SearchSpace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is tried: a rate between two (on a logarithmic scale), and one of each of the others."""

    learning_rate: tuple[float, float]
    ranks: tuple[int, ...]
    references: tuple[int, ...]
    min_epochs: tuple[float, ...] = (0.0,)


def space_around(recipe: Recipe, *, max_rank: int) -> SearchSpace:
    """The settings near a recipe's. ``max_rank``: the largest that the engine serves."""
    ranks = {recipe.rank // 4, recipe.rank // 2, recipe.rank, 2 * recipe.rank}
    return SearchSpace(
        learning_rate=(recipe.learning_rate / RATE_FACTOR, recipe.learning_rate * RATE_FACTOR),
        ranks=tuple(sorted(rank for rank in ranks if 0 < rank <= max(max_rank, recipe.rank))),
        references=tuple(sorted({*REFERENCES, recipe.references})),
        min_epochs=tuple(sorted({*MIN_EPOCHS, recipe.min_epochs})),
    )


def widened(space: SearchSpace, control: Setting) -> SearchSpace:
    """The space with the control in it."""
    rates = (*space.learning_rate, control.learning_rate)
    return SearchSpace(
        learning_rate=(min(rates), max(rates)),
        ranks=tuple(sorted({*space.ranks, control.rank})),
        references=tuple(sorted({*space.references, control.references})),
        min_epochs=tuple(sorted({*space.min_epochs, control.min_epochs})),
    )


class SweepSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A sweep: ``run`` with its recipe is the control, ``minutes`` the budget of time."""

    run: TrainingSpec
    minutes: float
    space: SearchSpace


def with_setting(recipe: Recipe, setting: Setting) -> Recipe:
    """The recipe with a setting; ``alpha`` keeps its ratio to the rank.

    What was measured with references is trained with them, however few replies are distinct.
    """
    return msgspec.structs.replace(
        recipe,
        learning_rate=setting.learning_rate,
        rank=setting.rank,
        alpha=round(recipe.alpha * setting.rank / recipe.rank),
        references=setting.references,
        min_epochs=setting.min_epochs,
        min_distinct_replies=0.0 if setting.references else recipe.min_distinct_replies,
    )


def load_sweep(path: Path) -> SweepSpec:
    """Read a spec (JSON).

    Raises:
        BadInput: the file is missing, a field is wrong, or what is asked for cannot be searched.
    """
    try:
        spec = msgspec.json.decode(path.read_bytes(), type=SweepSpec)
    except OSError as exc:
        raise BadInput(f"cannot read {path}: {exc.strerror}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BadInput(f"{path}: {exc}") from exc
    low, high = spec.space.learning_rate
    space = spec.space
    some = all((space.ranks, space.references, space.min_epochs))
    if not (0 < low < high and some and spec.minutes > 0):
        raise BadInput(
            f"{path}: a sweep needs minutes above 0, two rates of which the first is lower, and at "
            "least one rank, one number of references and one of epochs"
        )
    if min(space.ranks) < 1 or min(*space.references, *space.min_epochs, 0) < 0:
        raise BadInput(f"{path}: ranks begin at 1, references and epochs at 0")
    if spec.run.method != "supervised" or spec.run.start_adapter or spec.run.imported:
        raise BadInput(f"{path}: a sweep trains new adapters on conversations (method supervised)")
    return spec


def to_toml(recipe: Recipe, *, head: str) -> str:
    """The recipe as a file that a job takes; ``head`` is its first lines, without the number signs.

    JSON's numbers, strings and lists are TOML's.
    """
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    for field in msgspec.structs.fields(recipe):
        value = getattr(recipe, field.name)
        if value != field.default:
            lines.append(f"{field.name} = {msgspec.json.encode(value).decode()}")
    return "\n".join(lines) + "\n"
