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
    ``foreign``: it was trained elsewhere, and imported.
    """

    version: int
    model: str
    fine_tuned_model: str
    state: AdapterState
    live: bool
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
    """One change of the live version; null is the base."""

    revision: int
    kind: PromotionKind
    from_version: int | None
    to_version: int | None
    actor: str
    created_at: Moment


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's name means for a tenant right now.

    ``model`` is the name that answers carry, ``adapter`` None is the base, and ``system_prompt``
    the one that the adapter was trained with (the tenant's own on the base, empty where the base
    was asked for by its own name).
    """

    model: str
    tenant_id: str
    slug: str
    adapter: AdapterRef | None
    version: int | None
    system_prompt: str


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A name that a tenant's key may ask for."""

    id: str
    created_at: Moment
    owned_by: str
