"""Widgets: made once, changed, and their secrets kept as webhooks' are."""

import re

import msgspec
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select

from server.conversations import origins, widgets
from server.conversations.schemas import WidgetPatch
from server.db.models import Widget
from server.errors import Conflict, NotFound
from server.logs import redact
from server.settings import SettingsError
from server.webhooks.vault import SecretUnreadable, Vault
from tests.server.conversations.conftest import Shop


async def test_a_widget_is_made_once_and_stays_what_it_was(shop: Shop) -> None:
    key = await shop.key()
    assert re.fullmatch("tt_pub_[0-9A-Za-z]{24}", key)
    await shop.change(enabled=False, greeting="Hello")
    async with shop.database.transaction() as session:
        again = await widgets.enable(session, "acme", vault=shop.vault)
    assert (again.public_key, again.enabled, again.greeting) == (key, True, "Hello")


async def test_a_tenant_without_one_is_told_how_to_make_it(make_tenant, database) -> None:
    await make_tenant()
    async with database.reading() as session:
        with pytest.raises(NotFound, match="tenantune widget enable --tenant acme"):
            await widgets.get(session, "acme")


async def test_a_patch_changes_what_it_holds_and_the_colour_is_shown_beside_its_own(
    shop: Shop,
) -> None:
    await shop.change(accent="#FF8800", suggestions=("Where is my parcel?",), keep_days=30)
    await shop.change(display_name="Acme help", language="fr")
    shown = widgets.view(await shop.site())
    assert (shown.name, shown.language, shown.keep_days) == ("Acme help", "fr", 30)
    assert shown.suggestions == ["Where is my parcel?"]
    assert (shown.theme.given, shown.theme.light.changed) == ("#ff8800", True)
    assert shown.budgets.visitor_messages_per_minute == 10


@pytest.mark.parametrize(
    "fields",
    [
        {"accent": "red"},
        {"accent": "#fff"},
        {"language": "tlh"},
        {"keep_days": 0},
        {"suggestions": ["x"] * 7},
        {"suggestions": [""]},
        {"greeting": "x" * 1001},
        {"budgets": {"visitor_messages_per_minute": 0}},
        {"budgets": {"unknown": 1}},
        {"origins": ["https://a.example"]},
    ],
)
def test_what_makes_no_sense_is_refused_by_its_type(fields) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(fields, WidgetPatch)


async def test_origins_are_added_and_removed_as_browsers_send_them(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop.database.transaction() as session:
        assert await widgets.add_origin(session, "acme", "https://Shop.example:443") == (
            "https://shop.example"
        )
        await widgets.add_origin(session, "acme", "https://shop.example")
    assert (await shop.site()).widget.origins == ["https://shop.example"]
    monkeypatch.setattr(origins, "MAX_ORIGINS", 1)
    async with shop.database.transaction() as session:
        with pytest.raises(Conflict, match="remove one first"):
            await widgets.add_origin(session, "acme", "https://b.example")
        await widgets.remove_origin(session, "acme", "https://SHOP.example")
        with pytest.raises(NotFound):
            await widgets.remove_origin(session, "acme", "https://shop.example")
    assert (await shop.site()).widget.origins == []


async def test_secrets_are_encrypted_and_shown_once(shop: Shop) -> None:
    secret = await shop.secret()
    assert secret.startswith("tt_jwt_")
    widget = (await shop.site()).widget
    assert secret not in str(widget.__dict__)
    assert widgets.identity_keys(widget, shop.vault) == [secret.encode()]
    shown = msgspec.json.encode(widgets.view(await shop.site())).decode()
    assert secret not in shown
    assert f"...{secret[-4:]}" in shown
    assert secret not in redact(f"signed with {secret}")


async def test_a_lost_key_is_not_replaced_while_a_widget_needs_it(
    shop: Shop, settings, database
) -> None:
    await shop.secret()
    path = settings.home / "secrets.key"
    path.unlink()
    with pytest.raises(SettingsError, match="widget secret forget"):
        await Vault(settings).open(database)
    async with database.transaction() as session:
        await widgets.forget_secrets(session, "acme")
    fresh = Vault(settings)
    await fresh.open(database)
    async with database.transaction() as session:
        with pytest.raises(NotFound):
            await widgets.by_key(session, (await shop.site()).widget.public_key)
        await widgets.enable(session, "acme", vault=fresh)
    async with database.reading() as session:
        widget = (await session.scalars(select(Widget))).one()
    assert widgets.session_key(widget, fresh)
    assert widgets.identity_keys(widget, fresh) == []


async def test_a_machine_with_another_key_makes_no_widget(
    shop: Shop, settings, database, make_tenant
) -> None:
    await make_tenant("other")
    foreign = Vault(msgspec.structs.replace(settings, secrets_key=Fernet.generate_key().decode()))
    await foreign.open(database)
    with pytest.raises(SecretUnreadable):
        widgets.session_key((await shop.site()).widget, foreign)
    async with database.transaction() as session:
        with pytest.raises(SecretUnreadable, match="TENANTUNE_SECRETS_KEY"):
            await widgets.enable(session, "other", vault=foreign)


async def test_the_snippet_is_one_line_of_html_whatever_the_tenant_writes(shop: Shop) -> None:
    key = await shop.key()
    await shop.change(accent="#ffcc00", teaser='Questions? <"&>')
    line = widgets.snippet(await shop.site(), server_url="https://chat.example")
    assert line.startswith(
        f'<script async src="https://chat.example/widget.js" data-key="{key}" data-theme="--tt-'
    )
    assert "light-dark(#" in line
    assert ",#ffcc00)" in line
    assert line.endswith(' data-teaser="Questions? &lt;&quot;&amp;&gt;"></script>')
    assert "\n" not in line
