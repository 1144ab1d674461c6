"""Errors of this package.

TrainingError
├── BadInput            the spec, recipe, dataset or base cannot be used as given
├── BaseModelError      a base model could not be made or is not whole
├── ArtifactError       an adapter folder is not what its manifest says
│   └── UnsafeWeights   non-finite or absurd weights, wrong shapes, rank or base
├── Diverged            the loss is no longer a number
└── Interrupted         the run was stopped; its state is saved
"""


class TrainingError(Exception):
    """Anything this package raises on purpose."""


class BadInput(TrainingError):
    """The spec, recipe, dataset or base cannot be used as given; the message says what to change."""


class BaseModelError(TrainingError):
    """A base model could not be made, or its folder is not whole."""


class ArtifactError(TrainingError):
    """An adapter folder is not what its manifest says."""


class UnsafeWeights(ArtifactError):
    """The weights must not reach an engine: non-finite, absurd, or of the wrong shape or base."""


class Diverged(TrainingError):
    """The loss is no longer a number; the message says what to change."""


class Interrupted(TrainingError):
    """The run was stopped; a checkpoint is on disk."""
