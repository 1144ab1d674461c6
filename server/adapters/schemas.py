"""What the adapter endpoints take and give."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.db.models import MAX_NUMBER, AdapterState, PromotionKind
from server.engine.adapter_cache import AdapterRef
from server.schemas import Moment
from training.adapters.package import Foreign


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter's gates say: the result of the worst one, and all of it in words."""

    result: Literal["better", "worse", "cannot_tell"]
    summary: str


class AdapterView(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter version. ``model`` asks for exactly it; ``scores`` are of the held-out split.

    ``state``: ``ready`` passed its gates, of a ``candidate`` they cannot tell, ``failed_gates`` is
    worse than was asked for, and ``unsafe`` is not served as it was trained. ``verdict`` is null where
    there is no report.
    ``foreign``: it was trained elsewhere, and imported. ``canary_percent``: the share of requests that it
    answers as the canary, null where it is none.
    """

    version: int
    model: str
    fine_tuned_model: str
    state: AdapterState
    live: bool
    canary_percent: int | None
    verdict: Ruling | None
    base: str
    job: str | None
    dataset: str | None
    foreign: Foreign | None
    scores: dict[str, Any]
    created_at: Moment


class PromoteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Make a version live. With ``expected_revision`` only if it was not changed since it was read.

    ``force`` lets the operator promote an adapter against its gates; one of which they cannot tell
    needs none.
    """

    version: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    expected_revision: int | None = None
    force: bool = False


class RollbackRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Go back to what was live before; to the base where nothing was."""

    expected_revision: int | None = None


class LiveView(msgspec.Struct, frozen=True, kw_only=True):
    """What answers a tenant's customers now; version null is the base."""

    tenant: str
    live_version: int | None
    live_revision: int


class PromotionView(msgspec.Struct, frozen=True, kw_only=True):
    """One change of who answers; null is the base.

    ``from_version`` and ``to_version``: what was live before and after, the same where only the canary
    changed. ``canary_version`` with ``canary_percent`` is the canary that began or was changed
    (``canary``), or that ended with this step (all other kinds). ``reason``: why it ended by itself.
    """

    revision: int
    kind: PromotionKind
    from_version: int | None
    to_version: int | None
    canary_version: int | None
    canary_percent: int | None
    reason: str
    actor: str
    created_at: Moment


MIN_PERCENT, MAX_PERCENT = 1, 50
"""Of requests that a canary may answer: with more it would be what is live in all but name."""


class CanaryRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Let a version answer ``percent`` of the requests, and what is live the others.

    With ``expected_revision`` only if it was not changed since it was read who answers.
    """

    version: Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
    percent: Annotated[int, Meta(ge=MIN_PERCENT, le=MAX_PERCENT)]
    expected_revision: int | None = None


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """``count`` of ``of``, as a share with its 95 % interval; null where there is nothing to divide by."""

    count: int
    of: int
    share: float | None
    low: float | None
    high: float | None


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What one of the two versions answered since the share was last set; version null is the base.

    ``errors``: requests that failed or were refused. ``liked``: answers with a thumb up, of those in the
    widget that visitors have rated.
    """

    version: int | None
    requests: int
    errors: Share
    liked: Share
    prompt_tokens: int
    completion_tokens: int


Comparison = Literal["better", "worse", "cannot_tell", "too_little"]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A version that answers ``percent`` of the requests since ``since``, and how it does beside what is live.

    ``errors_compared`` and ``liked_compared``: whether the canary is better. By the 95 % interval of the
    difference; ``too_little`` where one of the two has fewer than six.
    """

    version: int
    percent: int
    since: Moment
    actor: str
    canary: Answered
    live: Answered
    errors_compared: Comparison
    liked_compared: Comparison


class CanaryView(Evidence, frozen=True, kw_only=True):
    """The canary of this moment.

    ``able``: it was trained on the base that this server runs; otherwise what is live answers everything.
    """

    able: bool
    live_revision: int


class PastCanary(Evidence, frozen=True, kw_only=True):
    """What came of a canary's share, which was ended or changed at ``until``.

    Thumbs are of conversations that are still kept.
    """

    revision: int
    until: Moment


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a split: of the step ``revision``, the canary or what is live."""

    revision: int
    is_canary: bool


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's name means for a tenant right now.

    ``model`` is the name that answers carry, ``adapter`` None is the base, and ``system_prompt``
    the one that the adapter was trained with (the tenant's own on the base, empty where the base
    was asked for by its own name). ``arm``: the side of a canary's split that this is; None where there
    is none. ``fallback``: who answers where the engine refuses the canary. ``retrieval``: whether the
    tenant lets answers be shown what others were answered, ``show_sources``: and callers be told the articles
    among that.
    """

    model: str
    tenant_id: str
    slug: str
    adapter: AdapterRef | None
    version: int | None
    system_prompt: str
    arm: Arm | None = None
    fallback: "Resolved | None" = None
    retrieval: bool = True
    show_sources: bool = False


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A name that a tenant's key may ask for."""

    id: str
    created_at: Moment
    owned_by: str
