"""Widgets: what a site shows, where it may be shown, and the secrets that sign."""

import base64
import secrets
from datetime import timedelta
from html import escape
from typing import Any, NamedTuple

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from server.audit import service as audit
from server.audit.actions import Action
from server.audit.schemas import Subject
from server.auth.keys import ALPHABET, Principal
from server.conversations import colours, origins
from server.conversations.schemas import DEFAULT_ACCENT, WidgetPatch, WidgetView
from server.db.models import Tenant, Widget, now
from server.db.scope import across_tenants, of_tenant
from server.errors import Conflict, Invalid, NotFound
from server.schemas import WidgetBudgets
from server.settings import Limits
from server.tenants import service as tenants
from server.webhooks.vault import SecretUnreadable, Vault

KEY_PREFIX = "tt_pub_"
KEY_LENGTH = 24  # 62 ** 24 > 2 ** 142: nobody's key is found by trying
SECRET_PREFIX = "tt_jwt_"  # noqa: S105 - what every such secret begins with
SECRET_LENGTH = 43  # 62 ** 43 > 2 ** 256
_PLAIN_FIELDS = (
    "enabled",
    "display_name",
    "greeting",
    "teaser",
    "language",
    "allow_localhost",
    "handoff_hours",
    "handoff_expected",
    "offer_when_annoyed",
    "keep_days",
    "budgets",
)
_RECORDED = (*_PLAIN_FIELDS, "suggestions", "accent")


class Site(NamedTuple):
    """A widget that is shown, and whose it is."""

    widget: Widget
    tenant: Tenant

    @property
    def budgets(self) -> WidgetBudgets:
        """The widget's own, or the defaults."""
        return self.widget.budgets or WidgetBudgets()

    @property
    def name(self) -> str:
        """What visitors read at the top."""
        return self.widget.display_name or self.tenant.name

    @property
    def principal(self) -> Principal:
        """The caller as whom answers are generated: it may do nothing else, and has a day's budget."""
        return Principal(
            key_id=self.widget.id,
            label="widget",
            scopes=frozenset(),
            tenant_id=self.tenant.id,
            slug=self.tenant.slug,
            limits=Limits(tokens_per_day=self.budgets.tokens_per_day),
            tenant_limits=self.tenant.limits,
        )


async def enable(session: AsyncSession, slug: str, *, vault: Vault) -> Widget:
    """Switch a tenant's widget on; the first time it is made, with a key and a secret.

    Raises:
        NotFound: there is no such tenant.
        SecretUnreadable: this machine's key is not the one of the other machines.
    """
    tenant = await tenants.get(session, slug, lock=True)
    widget = await _of_tenant(session, tenant.id, lock=True)
    if widget is None:
        widget = Widget(
            tenant_id=tenant.id, public_key=new_key(), accent=DEFAULT_ACCENT, enabled=False
        )
        session.add(widget)
    changes = not widget.enabled or widget.session_secret is None
    widget.enabled = True
    if widget.session_secret is None:
        await vault.expect_shared(session)
        widget.session_secret = vault.seal(base64.b64encode(secrets.token_bytes(32)).decode())
    await session.flush()
    if changes:
        _record(session, "widget.enabled", Site(widget, tenant))
    return widget


async def disable(session: AsyncSession, slug: str) -> None:
    """Switch a tenant's widget off: pages show nothing, and what is open is refused.

    Raises:
        NotFound: there is no such tenant, or it has no widget.
    """
    site = await get(session, slug, lock=True)
    changes = site.widget.enabled
    site.widget.enabled = False
    await session.flush()
    if changes:
        _record(session, "widget.disabled", site)


async def get(session: AsyncSession, slug: str, *, lock: bool = False) -> Site:
    """A tenant's widget, switched on or not.

    Raises:
        NotFound: there is no such tenant, or it has no widget.
    """
    tenant = await tenants.get(session, slug)
    widget = await _of_tenant(session, tenant.id, lock=lock)
    if widget is None:
        raise NotFound(
            f"'{slug}' has no widget yet: `tenantune widget enable --tenant {slug}` makes one.",
            code="widget_not_found",
        )
    return Site(widget, tenant)


async def by_key(session: AsyncSession, public_key: str) -> Site:
    """The widget with this public key.

    Raises:
        NotFound: there is none, or it is switched off.
    """
    query = (
        across_tenants("a public key tells whose widget it is")
        .select(Widget, Tenant)
        .join(Tenant, Tenant.id == Widget.tenant_id)
        .where(Widget.public_key == public_key, Widget.enabled)
    )
    found = (await session.execute(query)).one_or_none()
    if found is None or not is_shown(found[0]):
        raise NotFound("There is no such widget.", code="widget_not_found")
    return Site(*found)


async def update(session: AsyncSession, slug: str, patch: WidgetPatch) -> Site:
    """Change what the patch holds.

    Raises:
        NotFound: there is no such tenant, or it has no widget.
        Invalid: the accent is no colour.
    """
    site = await get(session, slug, lock=True)
    before = _recorded(site)
    _apply(patch, site.widget)
    await session.flush()
    if changed := audit.changes(before, _recorded(site)):
        _record(session, "widget.changed", site, changes=changed)
    return site


def is_shown(widget: Widget) -> bool:
    """Whether sites may show it: it is switched on, and its secrets were not forgotten since."""
    return widget.enabled and widget.session_secret is not None


def draft(site: Site, patch: WidgetPatch) -> Site:
    """A widget as it would be with a patch; nothing of it reaches the database.

    Raises:
        Invalid: the accent is no colour.
    """
    columns = [column.key for column in Widget.__mapper__.column_attrs]
    copy = Widget(**{key: getattr(site.widget, key) for key in columns})
    _apply(patch, copy)
    return Site(copy, site.tenant)


def _apply(patch: WidgetPatch, widget: Widget) -> None:
    """Change what the patch holds.

    Raises:
        Invalid: the accent is no colour.
    """
    for field in _PLAIN_FIELDS:
        value = getattr(patch, field)
        if value is not msgspec.UNSET:
            setattr(widget, field, value)
    if patch.suggestions is not msgspec.UNSET:
        widget.suggestions = list(patch.suggestions)
    if patch.accent is not msgspec.UNSET:
        try:
            widget.accent = colours.normal(patch.accent)
        except ValueError as exc:
            raise Invalid(f"{exc}.", param="accent") from exc


async def add_origin(session: AsyncSession, slug: str, text: str) -> str:
    """Allow a site to show the widget; returns its origin as it is kept. Again changes nothing.

    Raises:
        NotFound: there is no such tenant, or it has no widget.
        Invalid: it is no origin.
        Conflict: there are ``MAX_ORIGINS`` already.
    """
    site = await get(session, slug, lock=True)
    origin = origins.normal(text)
    kept = site.widget.origins
    if origin not in kept:
        if len(kept) >= origins.MAX_ORIGINS:
            raise Conflict(
                f"A widget may have {origins.MAX_ORIGINS} origins: remove one first.",
                code="too_many_origins",
            )
        site.widget.origins = [*kept, origin]
        await session.flush()
        _record(session, "widget.origin_allowed", site, site=origin)
    return origin


async def remove_origin(session: AsyncSession, slug: str, text: str) -> str:
    """Allow a site no more. Pages that show the panel already go on until they are loaded again.

    Raises:
        NotFound: there is no such tenant or widget, or it does not allow this origin.
    """
    site = await get(session, slug, lock=True)
    origin = origins.normal(text)
    if origin not in site.widget.origins:
        raise NotFound(f"The widget does not allow '{origin}'.", param="origin")
    site.widget.origins = [each for each in site.widget.origins if each != origin]
    await session.flush()
    _record(session, "widget.origin_removed", site, site=origin)
    return origin


async def rotate_secret(
    session: AsyncSession, slug: str, *, overlap_seconds: int, vault: Vault
) -> str:
    """Make a new secret for identity tokens, and return it; it is not shown again.

    During the overlap tokens that the old one signed are taken too.

    Raises:
        NotFound: there is no such tenant, or it has no widget.
        SecretUnreadable: this machine's key is not the one of the other machines.
    """
    site = await get(session, slug, lock=True)
    widget = site.widget
    await vault.expect_shared(session)
    overlaps = overlap_seconds > 0 and widget.identity_secret is not None
    widget.previous_identity_secret = widget.identity_secret if overlaps else None
    widget.previous_identity_secret_until = (
        now() + timedelta(seconds=overlap_seconds) if overlaps else None
    )
    secret = SECRET_PREFIX + _random(SECRET_LENGTH)
    widget.identity_secret, widget.identity_secret_hint = vault.seal(secret), secret[-4:]
    await session.flush()
    ends_at = widget.previous_identity_secret_until
    _record(session, "widget.secret_rotated", site, old_secret_ends_at=ends_at)
    return secret


async def forget_secrets(session: AsyncSession, slug: str) -> None:
    """Remove a widget's secrets, when the key that encrypted them is lost. Enabling it makes a new one.

    Raises:
        NotFound: there is no such tenant, or it has no widget.
    """
    site = await get(session, slug, lock=True)
    widget = site.widget
    widget.session_secret = widget.identity_secret = widget.identity_secret_hint = None
    widget.previous_identity_secret = widget.previous_identity_secret_until = None
    await session.flush()
    _record(session, "widget.secrets_forgotten", site)


def session_key(widget: Widget, vault: Vault) -> bytes:
    """What signs a widget's nonces and sessions.

    Raises:
        SecretUnreadable: it was encrypted with another key.
    """
    if widget.session_secret is None:
        raise SecretUnreadable("This widget has no secret: enable it.")
    return vault.unseal(widget.session_secret).encode()


def identity_keys(widget: Widget, vault: Vault) -> list[bytes]:
    """What may sign identity tokens now: the current secret, and the previous one for a while."""
    sealed = [widget.identity_secret]
    until = widget.previous_identity_secret_until
    if until is not None and until > now():
        sealed.append(widget.previous_identity_secret)
    return [vault.unseal(secret).encode() for secret in sealed if secret is not None]


def view(site: Site) -> WidgetView:
    """A widget as its tenant sees it."""
    widget = site.widget
    until = widget.previous_identity_secret_until
    hint = widget.identity_secret_hint
    return WidgetView(
        public_key=widget.public_key,
        enabled=widget.enabled,
        name=site.name,
        greeting=widget.greeting,
        suggestions=widget.suggestions,
        teaser=widget.teaser,
        theme=colours.theme(widget.accent),
        language=widget.language,
        origins=widget.origins,
        allow_localhost=widget.allow_localhost,
        handoff_hours=widget.handoff_hours,
        handoff_expected=widget.handoff_expected,
        offer_when_annoyed=widget.offer_when_annoyed,
        keep_days=widget.keep_days,
        budgets=site.budgets,
        identity_secret_hint=f"...{hint}" if hint else None,
        previous_identity_secret_until=until if until and until > now() else None,
    )


def new_key() -> str:
    """A new public key."""
    return KEY_PREFIX + _random(KEY_LENGTH)


def snippet(site: Site, *, server_url: str) -> str:
    """The line of HTML that puts a widget on a page.

    It carries what the closed button shows, which asks for nothing before it is opened: so a page has
    a new colour or teaser when it has the new line.
    """
    theme = colours.theme(site.widget.accent)
    style = (
        f"--tt-accent:light-dark({theme.light.colour},{theme.dark.colour});"
        f"--tt-on-accent:light-dark({theme.light.on},{theme.dark.on})"
    )
    data = {"key": site.widget.public_key, "theme": style, "teaser": site.widget.teaser}
    attributes = "".join(f' data-{name}="{escape(value)}"' for name, value in data.items() if value)
    return f'<script async src="{escape(server_url)}/widget.js"{attributes}></script>'


def _recorded(site: Site) -> dict[str, Any]:
    """What is compared for the audit log: the budgets that apply, whether or not they are its own."""
    return audit.fields_of(site.widget, _RECORDED) | {"budgets": audit.plain(site.budgets)}


def _record(session: AsyncSession, action: Action, site: Site, /, **details: object) -> None:
    audit.record(
        session,
        action,
        tenant_id=site.tenant.id,
        subject=Subject("widget", site.widget.id, site.tenant.slug),
        details=details,
    )


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


async def _of_tenant(session: AsyncSession, tenant_id: str, *, lock: bool) -> Widget | None:
    query = of_tenant(tenant_id).select(Widget)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    return await session.scalar(query)
