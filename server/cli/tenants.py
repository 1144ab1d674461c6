"""``tenantune tenants`` and ``tenantune keys``."""

import msgspec
import rich_click as click

from server.auth import keys as key_service
from server.auth.schemas import SCOPES, KeyRequest, KeyView, RotateRequest
from server.cli.console import (
    EXIT_USAGE,
    App,
    command,
    fail,
    json_option,
    overlap_option,
    print_json,
    print_message,
    print_secret,
    print_table,
)
from server.cli.jobs import ACTOR
from server.cli.options import RenamedOption, convert_options
from server.db.models import now
from server.settings import Limits
from server.tenants import service
from server.tenants.schemas import TenantPatch, TenantRequest

limit_option = click.option(
    "--limit",
    multiple=True,
    metavar="NAME=NUMBER",
    help=f"Of {', '.join(Limits.__struct_fields__)}; 'none' for none, 'default' for what applies "
    "where nothing is said.",
)


keep_uploads_option = click.option(
    "--keep-uploads",
    type=click.IntRange(0, 3650),
    metavar="DAYS",
    help="How long transcripts' files are kept after they were read; 0: not at all, the default.",
)


@click.group()
def tenants() -> None:
    """Customer organisations."""


@tenants.command("create")
@click.argument("slug")
@click.option("--name", default="", help="How people call it; the slug when absent.")
@click.option("--system-prompt", default="", help="What its assistant is told first.")
@click.option(
    "--custom-pattern",
    cls=RenamedOption,
    old="--number-pattern",
    multiple=True,
    metavar="NAME=REGEX",
    help="Redact these too.",
)
@click.option(
    "--allowlist",
    cls=RenamedOption,
    old="--keep",
    multiple=True,
    metavar="TEXT",
    help="Public, so not redacted: your hotline.",
)
@click.option(
    "--mask",
    "masked_terms",
    multiple=True,
    metavar="TEXT",
    help="A name or phrase that is always redacted.",
)
@keep_uploads_option
@limit_option
@json_option
@command
async def create_tenant(
    app: App,
    slug: str,
    name: str,
    system_prompt: str,
    custom_pattern: tuple[str, ...],
    allowlist: tuple[str, ...],
    masked_terms: tuple[str, ...],
    keep_uploads: int | None,
    limit: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Add a tenant."""
    request = convert_options(
        TenantRequest,
        {
            "slug": slug,
            "name": name,
            "system_prompt": system_prompt,
            "custom_patterns": _parse_patterns(custom_pattern),
            "allowlist": allowlist,
            "masked_terms": masked_terms,
            "keep_upload_days": keep_uploads or 0,
            "limits": _parse_limits(limit),
        },
    )
    async with app.transaction() as session:
        tenant = await service.create(session, request)
        view = await service.view(session, tenant)
    print_json(view) if as_json else print_message("tenant ", (slug, "bold"), " created")


def _parse_patterns(pairs: tuple[str, ...]) -> dict[str, str]:
    patterns = {}
    for pair in pairs:
        label, equals, pattern = pair.partition("=")
        if not (label and equals and pattern):
            fail(f"--custom-pattern {pair!r} is not NAME=REGEX", code=EXIT_USAGE)
        patterns[label] = pattern
    return patterns


def _parse_limits(pairs: tuple[str, ...]) -> Limits | None:
    """Limits from ``NAME=NUMBER``; None is what applies where nothing is said."""
    if pairs in ((), ("default",)):
        return None
    if pairs == ("none",):
        return Limits()
    named = {name: number for name, _, number in (pair.partition("=") for pair in pairs)}
    try:
        return msgspec.convert(named, Limits, strict=False)
    except msgspec.ValidationError:
        names = ", ".join(Limits.__struct_fields__)
        fail(f"--limit {' '.join(pairs)}: NAME=NUMBER of at least 1, of {names}", code=EXIT_USAGE)


@tenants.command("list")
@json_option
@command
async def list_tenants(app: App, *, as_json: bool) -> None:
    """Every tenant and its live version."""
    async with app.database.reading() as session:
        views = await service.views(session, await service.list_all(session))
    if as_json:
        print_json(views)
    else:
        rows = [(v.slug, v.name, v.live_version or "base", v.created_at.date()) for v in views]
        print_table("Tenants", ("slug", "name", "live", "since"), rows)


@tenants.command("update")
@click.argument("slug")
@click.option("--name")
@click.option("--system-prompt", help="For adapters trained from now on.")
@click.option(
    "--custom-pattern",
    cls=RenamedOption,
    old="--number-pattern",
    multiple=True,
    metavar="NAME=REGEX",
    help="Replaces all of them.",
)
@click.option(
    "--allowlist",
    cls=RenamedOption,
    old="--keep",
    multiple=True,
    metavar="TEXT",
    help="Not redacted; replaces all of them.",
)
@click.option(
    "--retrieval/--no-retrieval",
    default=None,
    help="Whether answers are shown what others were answered.",
)
@click.option(
    "--show-sources/--no-show-sources",
    default=None,
    help="Whether visitors and programs are told the articles that an answer was given.",
)
@click.option(
    "--when-unsupported",
    type=click.Choice(["answer", "needs_person"]),
    help="Where nothing supports an answer: answer, or pass the conversation on to a person too.",
)
@click.option(
    "--mask",
    "masked_terms",
    multiple=True,
    metavar="TEXT",
    help="Always redacted; replaces all of them.",
)
@keep_uploads_option
@limit_option
@json_option
@command
async def update_tenant(
    app: App,
    slug: str,
    name: str | None,
    system_prompt: str | None,
    custom_pattern: tuple[str, ...],
    allowlist: tuple[str, ...],
    masked_terms: tuple[str, ...],
    keep_uploads: int | None,
    limit: tuple[str, ...],
    *,
    retrieval: bool | None,
    show_sources: bool | None,
    when_unsupported: str | None,
    as_json: bool,
) -> None:
    """Change what is given."""
    given = {
        "name": name,
        "system_prompt": system_prompt,
        "custom_patterns": _parse_patterns(custom_pattern) or None,
        "allowlist": allowlist or None,
        "masked_terms": masked_terms or None,
        "keep_upload_days": keep_uploads,
        "retrieval": retrieval,
        "show_sources": show_sources,
        "when_unsupported": when_unsupported,
    }
    changes: dict[str, object] = {key: value for key, value in given.items() if value is not None}
    if limit:
        changes["limits"] = _parse_limits(limit)
    if not changes:
        what = "--name, --system-prompt, --custom-pattern, --allowlist, --mask, --keep-uploads, --no-retrieval, --show-sources, --when-unsupported or --limit"
        fail(f"nothing to change: give {what}", code=EXIT_USAGE)
    patch = convert_options(TenantPatch, changes)
    async with app.transaction() as session:
        tenant = await service.update(session, slug, patch)
        view = await service.view(session, tenant)
    print_json(view) if as_json else print_message("tenant ", (slug, "bold"), " changed")


@click.group()
def keys() -> None:
    """API keys. Only their hashes are kept: a key is shown once, when it is made."""


@keys.command("create")
@click.option("--tenant", metavar="SLUG", help="Whose; without it, use --operator.")
@click.option("--operator", is_flag=True, help="A key that may do everything for every tenant.")
@click.option("--scopes", default="chat", show_default=True, help=f"Of {', '.join(SCOPES)}.")
@click.option("--label", default="", help="What it is for.")
@limit_option
@json_option
@command
async def create_key(
    app: App,
    tenant: str | None,
    operator: bool,
    scopes: str,
    label: str,
    limit: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    """Make a key; standard output has the key and nothing else."""
    if operator == bool(tenant):
        fail("give either --tenant SLUG or --operator", code=EXIT_USAGE)
    names = [scope.strip() for scope in scopes.split(",")]
    request = convert_options(
        KeyRequest, {"label": label, "scopes": names, "limits": _parse_limits(limit)}
    )
    async with app.transaction() as session:
        owner = await service.get(session, tenant) if tenant else None
        raw, row = await key_service.create(session, request, tenant=owner, actor=ACTOR)
        view = key_service.view(row)
    hint = f"key {view.id}; it is not kept and cannot be shown again"
    print_secret(raw, {"key": raw, "details": view}, hint=hint, as_json=as_json)


@keys.command("list")
@click.option("--tenant", metavar="SLUG", help="Whose; the operator's when absent.")
@json_option
@command
async def list_keys(app: App, tenant: str | None, *, as_json: bool) -> None:
    """Keys without their secrets."""
    async with app.database.reading() as session:
        owner = await service.get(session, tenant) if tenant else None
        views = [key_service.view(row) for row in await key_service.list_for(session, owner)]
    if as_json:
        print_json(views)
        return
    rows = [
        (
            v.id,
            v.prefix + "...",
            ",".join(v.scopes),
            v.label,
            _key_state(v),
            v.last_used_at,
        )
        for v in views
    ]
    print_table("Keys", ("id", "key", "scopes", "label", "state", "last used"), rows)


@keys.command("revoke")
@click.argument("key_id")
@click.option("--tenant", metavar="SLUG", help="Whose; the operator's when absent.")
@command
async def revoke_key(app: App, key_id: str, tenant: str | None) -> None:
    """Make a key useless."""
    async with app.transaction() as session:
        owner = await service.get(session, tenant) if tenant else None
        await key_service.revoke(session, key_id, tenant=owner)
    print_message(f"key {key_id} revoked; no server takes it from now on")


@keys.command("rotate")
@click.argument("key_id")
@click.option("--tenant", metavar="SLUG", help="Whose; the operator's when absent.")
@overlap_option("How long the old key still works.")
@json_option
@command
async def rotate_key(
    app: App, key_id: str, tenant: str | None, overlap: int, *, as_json: bool
) -> None:
    """Replace a key by one that may do the same; standard output has the new key and nothing else."""
    request = convert_options(RotateRequest, {"overlap_seconds": overlap})
    async with app.transaction() as session:
        owner = await service.get(session, tenant) if tenant else None
        raw, row = await key_service.rotate(session, key_id, request, tenant=owner, actor=ACTOR)
        view = key_service.view(row)
    hint = f"key {view.id} replaces {key_id}, which ends in {overlap} s"
    print_secret(raw, {"key": raw, "details": view}, hint=hint, as_json=as_json)


def _key_state(key: KeyView) -> str:
    if key.revoked_at:
        return "revoked"
    if key.expires_at is None:
        return "good"
    when = f"{key.expires_at:%Y-%m-%d %H:%M}"
    return f"expired {when}" if key.expires_at <= now() else f"until {when}"
