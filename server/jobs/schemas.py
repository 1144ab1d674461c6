"""What the job endpoints take and give."""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.db.models import FINISHED_JOB_STATES, JobState
from server.schemas import Moment
from training.adapters.foreign import ImportedAdapter
from training.adapters.package import Foreign
from training.config import Method, Objectives, Tracker

FINAL_STATES: frozenset[str] = frozenset(FINISHED_JOB_STATES)
PUBLIC_ID = re.compile(r"ftjob-([0-9a-f]{32})")
# it becomes a part of the model's name, between colons
SUFFIX = r"[A-Za-z0-9_-]{1,64}"
Suffix = Annotated[str, Meta(pattern=f"^{SUFFIX}$")]


def objectives_of(declared: dict[str, Any]) -> Objectives:
    """A job's gates, as its row has them. A gate that is younger than the job was not declared: it is off."""
    return msgspec.convert(
        {"min_lookup_f1_gain": None, "max_invented_gain": None, **declared}, Objectives
    )


def public_id(job_id: str) -> str:
    """The id that clients of ``/v1/fine_tuning`` know a job by."""
    return f"ftjob-{job_id}"


class JobRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request for one fine-tuning run.

    ``recipe`` names a recipe that ships. ``objectives`` are the gates, declared before the run. Both
    are the installation's when absent. An adapter that passes its gates is promoted at once. With
    ``require_approval``, or where the gates cannot tell, it waits in ``awaiting_approval`` for a person.
    ``report_to``: trackers that each step's figures are sent to. ``full_evaluation``: also train, on as many
    tokens, on parts of the conversations and from random weights, to compare the adapter with; this takes
    some four to six times as long.
    """

    recipe: Annotated[str, Meta(max_length=100)] | None = None
    objectives: Objectives | None = None
    seed: Annotated[int, Meta(ge=0, lt=1 << 32)] = 17
    suffix: Annotated[str, Meta(pattern=f"^({SUFFIX})?$")] = ""
    require_approval: bool = False
    report_to: Annotated[tuple[Tracker, ...], Meta(max_length=3)] = ()
    full_evaluation: bool = False


class ImportForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of an adapter's import, beside the part ``file``."""

    suffix: Annotated[str, Meta(pattern=f"^({SUFFIX})?$")] | msgspec.UnsetType = msgspec.UNSET
    require_approval: Annotated[str, Meta(pattern="^(true|false)$")] | msgspec.UnsetType = (
        msgspec.UNSET
    )


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a client sets of a recipe; None leaves the recipe's own ("auto").

    ``batch_size`` is in examples; ``learning_rate_multiplier`` multiplies the recipe's learning rate.
    """

    n_epochs: int | None = None
    batch_size: int | None = None
    learning_rate_multiplier: float | None = None
    beta: float | None = None


class Learning(msgspec.Struct, frozen=True, kw_only=True):
    """What a job learns from, and how, unless it learns from all that was imported.

    Ids are those of rows. ``start_adapter_id``: the adapter whose weights it begins with.
    """

    training_file_id: str
    validation_file_id: str | None = None
    start_adapter_id: str | None = None
    method: Method = "supervised"
    hyperparameters: Hyperparameters = Hyperparameters()
    metadata: dict[str, str] | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job that succeeded: the result of its gates, and whether its adapter went live.

    ``gates`` is the result of the worst gate, and ``summary`` the same in words. ``reason``: why the
    adapter was not promoted; null where it was.
    """

    gates: Literal["better", "worse", "cannot_tell"]
    summary: str
    promoted: bool = False
    reason: str | None = None


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that was imported for a job: its files are in that job's folder."""

    job_id: str
    taken: ImportedAdapter


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its tenant sees it; every key is always present.

    ``foreign``: the job trains nothing, and evaluates an adapter that was trained elsewhere.
    """

    id: str
    tenant: str
    state: JobState
    stage: str
    recipe: str
    seed: int
    suffix: str
    base: str
    method: Method
    foreign: Foreign | None
    training_file: str | None
    validation_file: str | None
    result_file: str | None
    objectives: Objectives
    require_approval: bool
    dataset: str | None
    adapter: str | None
    progress: dict[str, Any]
    estimate: dict[str, Any] | None
    error: dict[str, Any] | None
    outcome: Outcome | None
    gpu_seconds: float
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None


class JobEventView(msgspec.Struct, frozen=True):
    """One line of a job's history; ``seq`` rises by one from 1."""

    seq: int
    kind: str
    body: dict[str, Any]
    at: Moment


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person's decision about an adapter that awaits approval."""

    decision: Literal["approved", "rejected"]


class ScoreRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Token sequences that a worker asks the engine to score under one adapter."""

    tenant: str
    adapter_name: str
    sequences: list[list[int]]


class ScoreResponse(msgspec.Struct, frozen=True):
    """For each sequence the log-probability of each token (None for the first).

    ``dtype``: what the engine computes in; '' where it does not say.
    """

    logprobs: list[list[float | None]]
    dtype: str = ""
