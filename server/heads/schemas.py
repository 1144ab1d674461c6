"""Requests and answers about heads."""

from datetime import date
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.db.models import HeadState
from server.schemas import Moment
from training.heads.config import Task
from training.heads.examples import LeftOut

MAX_TEXTS = 64  # classified by one request


class HeadForm(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of the form that uploads labelled texts or images, beside ``file``."""

    task: Task


class LeftOutView(msgspec.Struct, frozen=True, kw_only=True):
    """Files of an upload that were left out: how many for each reason, and the first of them."""

    counts: dict[str, int]
    files: list[LeftOut]


class HeadView(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a head; ``shared``: it is the operator's, for all tenants.

    ``report`` is what its training measured: ``scores`` on the test part with the bins of the
    calibration error, the ``verdict`` of the gates, ``choice`` of the method, hashes of the encoder and
    of the dataset; none before it is ready. ``progress`` of training is in [0, 1]. ``texts``: how many
    texts or images were uploaded; ``left_out``: images that could not be used.
    """

    task: Task
    version: int
    state: HeadState
    live: bool
    shared: bool
    filename: str
    texts: int
    progress: float
    sha256: str | None
    error: dict[str, Any] | None
    report: dict[str, Any] | None
    left_out: LeftOutView | None
    created_at: Moment
    live_since: Moment | None


class SharedHeadView(msgspec.Struct, frozen=True, kw_only=True):
    """A live head of the operator's, as a tenant sees it.

    ``use``: the tenant uses it (``shared``), has a live one of its own (``own``), or wants none (``off``).
    """

    task: Task
    version: int
    use: Literal["shared", "own", "off"]
    report: dict[str, Any]


class SharingChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the shared head of a task is used where none of the tenant's own is live."""

    task: Task
    use: bool


class HeadChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Which head is to be live. ``force``: also where its gates do not say better."""

    task: Task
    version: Annotated[int, Meta(ge=1)]
    force: bool = False


class HeadTaskChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A task of heads."""

    task: Task


class ClassifyTexts(msgspec.Struct, frozen=True, kw_only=True):
    """What to classify, with the live head of the task or with a version of it.

    ``images``: ``data:`` URLs, for the task ``image``; ``texts`` are for the others.
    """

    task: Task
    texts: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=10_000)]], Meta(max_length=MAX_TEXTS)
    ] = []
    images: list[str] = []
    version: Annotated[int, Meta(ge=1)] | None = None


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """What a head says of a text or image."""

    label: str
    probability: float
    probabilities: dict[str, float]


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """What a version says of texts or images, in their order; ``shared``: it is the operator's."""

    task: Task
    version: int
    shared: bool
    labels: list[Labelled]


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A label that hands a conversation to a person, from a probability of ``at_least`` on."""

    label: Annotated[str, Meta(min_length=1, max_length=60)]
    at_least: Annotated[float, Meta(ge=0.01, le=1)]


class RulesChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of a task, instead of those that there are."""

    task: Task
    rules: Annotated[tuple[Rule, ...], Meta(max_length=20)]


class TaskRules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of a task."""

    task: Task
    rules: list[Rule]


class DayCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages of a UTC day got a label."""

    day: date
    task: Task
    label: str
    messages: int
