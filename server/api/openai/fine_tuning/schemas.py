"""OpenAI's bodies of fine-tuning, and what is ours beside them: the method ``kto``."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.jobs.schemas import Suffix

Auto = Literal["auto"]
Status = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]

_Epochs = Annotated[int, Meta(ge=1, le=50)]
_Batch = Annotated[int, Meta(ge=1, le=256)]
_Rate = Annotated[float, Meta(gt=0, le=100)]
_Beta = Annotated[float, Meta(gt=0, le=2)]
_FileId = Annotated[str, Meta(min_length=1, max_length=64)]


class SupervisedHyperparameters(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """What may be set of a recipe; "auto", or nothing, leaves the recipe's own."""

    n_epochs: Auto | _Epochs | None = None
    batch_size: Auto | _Batch | None = None
    learning_rate_multiplier: Auto | _Rate | None = None


class PreferenceHyperparameters(SupervisedHyperparameters, frozen=True, kw_only=True):
    """The same for ``dpo`` and ``kto``; ``beta`` holds the model to the one it starts from."""

    beta: Auto | _Beta | None = None


class SupervisedMethod(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Learning replies as they are."""

    hyperparameters: SupervisedHyperparameters | None = None


class PreferenceMethod(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Learning which of two replies is better (``dpo``), or whether one is wanted (``kto``)."""

    hyperparameters: PreferenceHyperparameters | None = None


class MethodBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to learn; only the section of this type may be filled."""

    type: Literal["supervised", "dpo", "kto", "reinforcement"]
    supervised: SupervisedMethod | None = None
    dpo: PreferenceMethod | None = None
    kto: PreferenceMethod | None = None
    reinforcement: dict[str, Any] | None = None


class JobBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/fine_tuning/jobs``. ``hyperparameters`` is the older place for ``method``'s."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    training_file: _FileId
    validation_file: _FileId | None = None
    method: MethodBody | None = None
    hyperparameters: SupervisedHyperparameters | None = None
    suffix: Suffix | None = None
    seed: Annotated[int, Meta(ge=0, le=2_147_483_647)] | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
            Meta(max_length=16),
        ]
        | None
    ) = None
    # more than none is refused where it is read, with the reason
    integrations: Annotated[list[Any], Meta(extra_json_schema={"maxItems": 0})] | None = None


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class FineTuningJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job. ``hyperparameters`` are "auto" until the numbers used are known.

    ``method`` repeats them for its type, with ``beta`` where there is one.
    """

    id: str
    created_at: int
    error: JobError | None
    fine_tuned_model: str | None
    finished_at: int | None
    hyperparameters: dict[str, int | float | str]
    model: str
    organization_id: str
    result_files: list[str]
    status: Status
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    seed: int
    estimated_finish: int | None
    integrations: list[Any] | None
    metadata: dict[str, str] | None
    method: dict[str, Any]
    object: Literal["fine_tuning.job"] = "fine_tuning.job"


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs; the last one's id is the cursor."""

    data: list[FineTuningJob]
    has_more: bool
    object: Literal["list"] = "list"


class JobEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened in a job; ``data`` holds the figures of one of type ``metrics``."""

    id: str
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"


class EventList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of events; the last one's id is the cursor."""

    data: list[JobEvent]
    has_more: bool
    object: Literal["list"] = "list"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A step whose weights can be asked for by name, and what was measured there."""

    id: str
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: dict[str, Any]
    step_number: int
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
