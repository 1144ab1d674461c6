"""What the tenant endpoints take and give."""

from typing import Annotated

import msgspec
from msgspec import Meta

from connectors.renamed import TENANT, copy_to_old_names, deprecated, move_to_new_names
from server.db.models import WhenUnsupported
from server.schemas import Moment
from server.settings import Limits

SLUG_PATTERN = "^[a-z0-9](-?[a-z0-9])+$"
Slug = Annotated[
    str,
    Meta(
        pattern=SLUG_PATTERN,
        min_length=2,
        max_length=40,
        description="lower-case letters, digits and single dashes between them",
    ),
]
Allowlist = Annotated[
    tuple[Annotated[str, Meta(min_length=3, max_length=200)], ...], Meta(max_length=100)
]
MaskedTerms = Annotated[
    tuple[Annotated[str, Meta(min_length=2, max_length=200)], ...], Meta(max_length=500)
]
KeepUploadDays = Annotated[
    int, Meta(ge=0, le=3650, description="days that a transcript's file is kept after it was read")
]


class _OldNames(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a body that have a new name; moved there as soon as the body is read."""

    number_patterns: (
        Annotated[dict[str, str], deprecated("number_patterns", TENANT)] | msgspec.UnsetType
    ) = msgspec.UNSET
    keep: Annotated[Allowlist, deprecated("keep", TENANT)] | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        move_to_new_names(self, TENANT)


class TenantRequest(_OldNames, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new tenant.

    ``custom_patterns`` maps a label to a regular expression: what it matches is redacted.
    ``allowlist`` lists what is public and stays: the company's own addresses and numbers, or
    ``@its-domain.example``, and words that are no personal data. ``masked_terms`` lists names and
    phrases that are always redacted, in any case. ``limits`` replace the installation's, which apply where it is null.
    ``retrieval``: whether answers are shown what others were answered. ``show_sources``: whether visitors, and
    programs in ``annotations``, are told the articles that an answer was given. ``when_unsupported``: where
    nothing supports an answer, ``answer`` all the same, or pass the conversation on, as one that
    ``needs_person``, too.
    """

    slug: Slug
    name: Annotated[str, Meta(max_length=200)] = ""
    system_prompt: Annotated[str, Meta(max_length=20_000)] = ""
    custom_patterns: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    allowlist: Allowlist | msgspec.UnsetType = msgspec.UNSET
    masked_terms: MaskedTerms = ()
    keep_upload_days: KeepUploadDays = 0
    retrieval: bool = True
    show_sources: bool = False
    when_unsupported: WhenUnsupported = "answer"
    limits: Limits | None = None


class TenantPatch(_OldNames, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes to a tenant; what is absent stays. A new prompt applies to adapters trained from now on."""

    name: Annotated[str, Meta(max_length=200)] | msgspec.UnsetType = msgspec.UNSET
    system_prompt: Annotated[str, Meta(max_length=20_000)] | msgspec.UnsetType = msgspec.UNSET
    custom_patterns: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    allowlist: Allowlist | msgspec.UnsetType = msgspec.UNSET
    masked_terms: MaskedTerms | msgspec.UnsetType = msgspec.UNSET
    keep_upload_days: KeepUploadDays | msgspec.UnsetType = msgspec.UNSET
    retrieval: bool | msgspec.UnsetType = msgspec.UNSET
    show_sources: bool | msgspec.UnsetType = msgspec.UNSET
    when_unsupported: WhenUnsupported | msgspec.UnsetType = msgspec.UNSET
    limits: Limits | msgspec.UnsetType | None = msgspec.UNSET


class TenantCanary(msgspec.Struct, frozen=True, kw_only=True):
    """The version that answers ``percent`` of a tenant's requests beside what is live."""

    version: int
    percent: int
    since: Moment


class TenantView(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant. ``live_version`` is null while the base answers for it, ``canary`` where there is none."""

    slug: str
    name: str
    system_prompt: str
    custom_patterns: dict[str, str]
    number_patterns: Annotated[dict[str, str], deprecated("number_patterns", TENANT)] = {}
    allowlist: list[str]
    masked_terms: list[str] = []
    keep: Annotated[list[str], deprecated("keep", TENANT)] = []
    keep_upload_days: int
    retrieval: bool
    show_sources: bool
    when_unsupported: WhenUnsupported
    limits: Limits | None
    live_version: int | None
    live_revision: int
    canary: TenantCanary | None
    created_at: Moment
    updated_at: Moment

    def __post_init__(self) -> None:
        copy_to_old_names(self, TENANT)
