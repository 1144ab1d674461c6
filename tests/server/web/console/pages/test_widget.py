"""The page of a widget's settings, without a browser: who may do what, and forms without a script."""

from datetime import UTC, datetime
from typing import Any

import pytest
from bs4 import BeautifulSoup

from server.conversations import colours, retention, widgets
from server.conversations.widgets import Site
from server.db.models import UsageDay
from server.errors import TooMany
from server.schemas import WidgetBudgets
from tests.server.conversations.conftest import OpenShop, Shop, open_shop, shop, vault

__all__ = ["open_shop", "shop", "vault"]

PAGE = "/console/t/acme/widget"
FORM = {
    "display_name": "Acme bakery",
    "greeting": "Hello!",
    "suggestions": "Where is my bread?\r\n\r\n  Skip a week ",
    "teaser": "Questions?",
    "accent": "#E8A33D",
    "language": "de",
    "handoff_expected": "In two hours",
    "handoff_hours": "9 to 18",
    "keep_days": "30",
    "allow_localhost": "yes",
    "offer_when_annoyed": "yes",
    "visitor_messages_per_minute": "10",
    "visitor_messages_per_day": "200",
    "address_messages_per_minute": "30",
    "address_sessions_per_minute": "30",
    "address_handoffs_per_day": "20",
    "tokens_per_day": "2000000",
}


def soup(answer: Any) -> BeautifulSoup:
    return BeautifulSoup(answer.text, "html.parser")


def words(answer: Any, element: str = "main") -> str:
    found = soup(answer).select_one(element)
    assert found is not None, f"no {element}"
    return " ".join(found.get_text(" ").split())


async def token_of(browser: Any) -> str:
    """The token of the page's forms; scripts' header is taken away, so that only the form has it."""
    found = soup(await browser.get(PAGE)).select_one("main input[name=csrf_token]")
    assert found is not None
    del browser.headers["x-csrf-token"]
    return str(found["value"])


def uses(answer: Any) -> dict[str, str]:
    """Today's use, by the field that it stands beside."""
    found = {}
    for row in soup(answer).select(".budget"):
        field, use = row.select_one("input"), row.select_one(".use")
        assert field is not None
        assert use is not None
        found[str(field["name"])] = " ".join(use.get_text(" ").split())
    return found


async def site_of(shop: Shop) -> Site:
    return await shop.site()


async def test_a_tenant_without_a_widget_makes_one(
    sign_in: Any, make_tenant: Any, database: Any
) -> None:
    await make_tenant("acme", name="Acme")
    browser = await sign_in("acme")
    assert "No widget yet" in words(await browser.get(PAGE))
    token = await token_of(browser)
    answer = await browser.post(f"{PAGE}/on", data={"csrf_token": token})
    assert (answer.status_code, answer.headers["location"]) == (303, f"{PAGE}?done=on")
    page = await browser.get(answer.headers["location"])
    async with database.reading() as session:
        key = (await widgets.get(session, "acme")).widget.public_key
    assert f'data-key="{key}"' in words(page, ".code")
    frame = soup(page).select_one("iframe")
    assert frame is not None
    assert frame["data-preview"] == f"{PAGE}/preview"


async def test_settings_are_saved_by_a_form_without_a_script(sign_in: Any, shop: Shop) -> None:
    browser = await sign_in("acme")
    token = await token_of(browser)
    answer = await browser.post(PAGE, data={**FORM, "csrf_token": token})
    assert (answer.status_code, answer.headers["location"]) == (303, f"{PAGE}?done=saved")
    view = widgets.view(await site_of(shop))
    assert (view.name, view.greeting, view.teaser) == ("Acme bakery", "Hello!", "Questions?")
    assert view.suggestions == ["Where is my bread?", "Skip a week"]
    assert (view.language, view.keep_days, view.theme.given) == ("de", 30, "#e8a33d")
    assert (view.handoff_expected, view.handoff_hours) == ("In two hours", "9 to 18")
    assert view.allow_localhost
    without = {name: value for name, value in FORM.items() if name != "allow_localhost"}
    await browser.post(PAGE, data={**without, "csrf_token": token})
    assert not widgets.view(await site_of(shop)).allow_localhost


async def test_a_colour_is_shown_corrected_and_with_the_reason(sign_in: Any, shop: Shop) -> None:
    await shop.change(accent="#e8a33d")
    browser = await sign_in("acme")
    said = words(await browser.get(PAGE), "#shades")
    theme = widgets.view(await site_of(shop)).theme
    assert f"Light: {theme.light.colour} Darker than yours: #e8a33d has a contrast of" in said
    assert f"Dark: {theme.dark.colour} As you chose it" in said
    part = await browser.get(f"{PAGE}/colours", params={"accent": "#101010"})
    assert part.status_code == 200
    assert "<html" not in part.text
    assert "Lighter than yours: #101010 has a contrast of" in part.text
    assert "six hexadecimal digits" in (await browser.get(f"{PAGE}/colours?accent=red")).text


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("display_name", "x" * 201, "Use 200 characters at most."),
        ("greeting", "x" * 1001, "Use 1,000 characters at most."),
        ("suggestions", "\n".join("abcdefg"), "Write six lines at most, of 120 characters each."),
        ("suggestions", "x" * 121, "Write six lines at most, of 120 characters each."),
        ("accent", "red", "Write six hexadecimal digits, as #9a3d12."),
        ("language", "xx", "Choose one of the languages."),
        ("keep_days", "0", "Give a whole number of days from 1 to 3,650."),
        ("keep_days", "9" * 30, "Give a whole number of days from 1 to 3,650."),
        ("keep_days", "", "Give a whole number of days from 1 to 3,650."),
        ("visitor_messages_per_day", "", "Give a whole number from 1 to 2,147,483,648."),
        ("address_sessions_per_minute", "0", "Give a whole number from 1 to 2,147,483,648."),
        ("tokens_per_day", "many", "Give a whole number from 1 to 2,147,483,648, or nothing."),
        ("tokens_per_day", "9" * 11, "Give a whole number from 1 to 2,147,483,648, or nothing."),
    ],
)
async def test_a_mistake_is_said_at_its_field_and_in_the_summary(
    sign_in: Any, shop: Shop, *, field: str, value: str, said: str
) -> None:
    browser = await sign_in("acme")
    answer = await browser.post(PAGE, data={**FORM, field: value})
    assert answer.status_code == 422
    [link] = soup(answer).select(".summary a")
    assert (link["href"], link.get_text()) == (f"#{field}", said)
    [wrong] = soup(answer).select("[aria-invalid=true]")
    assert wrong["id"] == field
    # what was typed is still there, and nothing was saved
    greeting = soup(answer).select_one("#greeting")
    assert greeting is not None
    assert greeting.get_text().strip() == (value if field == "greeting" else "Hello!")
    assert widgets.view(await site_of(shop)).greeting == ""


async def test_two_mistakes_are_both_said(sign_in: Any, shop: Shop) -> None:
    browser = await sign_in("acme")
    answer = await browser.post(PAGE, data={**FORM, "keep_days": "x", "accent": "red"})
    assert [link["href"] for link in soup(answer).select(".summary a")] == ["#accent", "#keep_days"]


async def test_budgets_are_changed_and_what_is_as_by_default_stays_the_default(
    sign_in: Any, shop: Shop
) -> None:
    browser = await sign_in("acme")
    await browser.post(PAGE, data={**FORM, "visitor_messages_per_day": "5", "tokens_per_day": ""})
    assert (await site_of(shop)).budgets == WidgetBudgets(
        visitor_messages_per_day=5, tokens_per_day=None
    )
    await browser.post(PAGE, data=FORM)
    assert (await site_of(shop)).widget.budgets is None


async def test_todays_use_stands_beside_each_budget(sign_in: Any, shop: Shop) -> None:
    await shop.change(budgets=WidgetBudgets(visitor_messages_per_minute=2))
    visitor = await shop.enter()
    await shop.ask(visitor, "One")
    browser = await sign_in("acme")
    assert uses(await browser.get(PAGE)) == {
        "visitor_messages_per_minute": "Most today: 1",
        "visitor_messages_per_day": "Most today: 1",
        "address_messages_per_minute": "Most today: 1",
        "address_sessions_per_minute": "Most today: 1",
        "address_handoffs_per_day": "Not used today",
        "tokens_per_day": "Not used today",
    }
    await shop.ask(visitor, "Two")
    await shop.hand_off(await shop.enter(), note="Please call")
    site = await site_of(shop)
    async with shop.database.transaction() as session:
        for key_id, tokens in ((site.widget.id, 1_200), ("another", 7)):
            session.add(
                UsageDay(
                    tenant_id=site.tenant.id,
                    key_id=key_id,
                    model="acme",
                    day=datetime.now(UTC).date(),
                    prompt_tokens=tokens,
                    completion_tokens=34,
                )
            )
    found = uses(await browser.get(PAGE))
    assert found["visitor_messages_per_minute"] == "Used up today Most today: 2"
    assert found["address_handoffs_per_day"] == "Most today: 1"
    assert found["tokens_per_day"] == "Used today: 1,234"


async def test_the_preview_has_what_is_not_saved_and_visitors_have_not(
    sign_in: Any, shop: Shop
) -> None:
    await shop.change(greeting="Saved greeting", accent="#0a665a")
    key = await shop.key()
    admin = await sign_in("acme")
    fields = {**FORM, "greeting": "Another one", "keep_days": "x", "scheme": "dark", "lang": ""}
    answer = await admin.get(f"{PAGE}/preview", params=fields)
    panel = soup(answer)
    assert panel.body is not None
    assert panel.body["data-greeting"] == "Another one"
    assert panel.body["data-address"] == f"/widget/{key}"
    assert panel.select("html[lang=de]")
    policy = answer.headers["content-security-policy"]
    assert "frame-ancestors 'self'" in policy
    assert "script-src 'self'; style-src 'self'" in policy
    assert answer.headers["cache-control"] == "no-store"
    # its colours are corrected, in the scheme that was chosen
    [sheet] = panel.select("link[rel=stylesheet]")
    styles = await admin.get(str(sheet["href"]))
    assert styles.headers["content-type"].startswith("text/css")
    dark = colours.theme(FORM["accent"]).dark
    assert f"@media all{{:root{{--tt-accent:{dark.colour}" in styles.text
    assert "prefers-color-scheme" not in styles.text
    assert "color-scheme: dark" in styles.text
    # a mistake leaves what is saved in its place
    fields["greeting"] = "x" * 1001
    wrong = soup(await admin.get(f"{PAGE}/preview", params=fields))
    assert wrong.body is not None
    assert wrong.body["data-greeting"] == "Saved greeting"
    assert (await admin.get(f"{PAGE}/preview.css?accent=red&scheme=dark")).status_code == 422
    # nothing of it was saved
    assert widgets.view(await site_of(shop)).greeting == "Saved greeting"
    visitors = await admin.get(f"/widget/{key}/panel", params=fields)
    assert 'data-greeting="Saved greeting"' in visitors.text
    alone = await admin.get(f"{PAGE}/preview", headers={"sec-fetch-dest": "document"})
    assert alone.status_code == 403


async def test_previews_cost_nothing_of_the_addresss_sessions(sign_in: Any, shop: Shop) -> None:
    await shop.change(budgets=WidgetBudgets(address_sessions_per_minute=1))
    admin = await sign_in("acme")
    for _ in range(3):
        panel = soup(await admin.get(f"{PAGE}/preview"))
        [nonce] = panel.select("meta[name=tt-nonce]")
        assert (await shop.enter(nonce=str(nonce["content"]))).visitor
    await shop.enter()
    with pytest.raises(TooMany):
        await shop.enter()


async def test_a_site_that_was_refused_is_allowed_and_removed(sign_in: Any, shop: Shop) -> None:
    origin = "https://staging.acme.example"
    async with shop.database.transaction() as session:
        await retention.note_refused(session, await shop.site(), origin)
    browser = await sign_in("acme")
    assert f"{origin} 1 time, last" in words(await browser.get(PAGE))
    token = await token_of(browser)
    answer = await browser.post(f"{PAGE}/origins", data={"csrf_token": token, "origin": origin})
    assert answer.headers["location"] == f"{PAGE}?done=allowed#sites"
    assert (await site_of(shop)).widget.origins == [origin]
    said = words(await browser.get(PAGE))
    assert "No other site asked for it in the last day." in said
    form = {"csrf_token": token, "origin": origin}
    assert (await browser.post(f"{PAGE}/origins/remove", data=form)).status_code == 303
    assert (await site_of(shop)).widget.origins == []
    assert origin in words(await browser.get(PAGE))  # it was refused, and is again


@pytest.mark.parametrize("origin", ["", "nonsense", "ftp://acme.example", "https://a.example/page"])
async def test_what_is_no_origin_is_said_at_its_field(
    sign_in: Any, shop: Shop, origin: str
) -> None:
    browser = await sign_in("acme")
    answer = await browser.post(f"{PAGE}/origins", data={"origin": origin})
    assert answer.status_code == 422
    [wrong] = soup(answer).select("[aria-invalid=true]")
    assert (wrong["id"], wrong["value"]) == ("origin", origin)
    assert soup(answer).select_one('.summary a[href="#origin"]')
    assert (await site_of(shop)).widget.origins == []


async def test_a_widget_is_switched_off_and_on_again(sign_in: Any, shop: Shop) -> None:
    browser = await sign_in("acme")
    answer = await browser.post(f"{PAGE}/off")
    assert answer.status_code == 303
    page = await browser.get(answer.headers["location"])
    assert "The widget is off. Switch it on to see it here." in words(page)
    assert not soup(page).select("iframe")
    assert soup(page).select(f'#toasts form[action="{PAGE}/on"]')
    await browser.post(f"{PAGE}/on")
    assert (await site_of(shop)).widget.enabled
    assert soup(await browser.get(PAGE)).select("iframe")
    async with shop.database.transaction() as session:
        await widgets.forget_secrets(session, "acme")
    assert not soup(await browser.get(PAGE)).select("iframe")


async def test_a_secret_is_shown_once_and_the_old_one_overlaps(sign_in: Any, shop: Shop) -> None:
    browser = await sign_in("acme")
    asked = await browser.get(f"{PAGE}/secret")
    assert "Make a secret?" in words(asked)
    assert not soup(asked).select("select")
    first = await browser.post(f"{PAGE}/secret")
    assert first.status_code == 201
    secret = words(first, ".code pre")
    assert secret.startswith(widgets.SECRET_PREFIX)
    page = await browser.get(PAGE)
    assert secret not in page.text
    assert f"...{secret[-4:]}" in words(page)
    assert "Rotate the secret?" in words(await browser.get(f"{PAGE}/secret"))
    second = await browser.post(f"{PAGE}/secret", data={"overlap": "3600"})
    assert words(second, ".code pre") != secret
    keys = widgets.identity_keys((await site_of(shop)).widget, shop.vault)
    assert [key.decode() for key in keys] == [words(second, ".code pre"), secret]
    assert (await browser.post(f"{PAGE}/secret", data={"overlap": "-1"})).status_code == 422


async def test_only_admins_see_the_page(sign_in: Any, shop: Shop, open_shop: OpenShop) -> None:
    await open_shop("zoo")
    for role in ("viewer", "reviewer"):
        browser = await sign_in("acme", role)
        for method, path in (
            ("GET", ""),
            ("GET", "/secret"),
            ("GET", "/preview"),
            ("GET", "/preview.css"),
            ("POST", ""),
            ("POST", "/off"),
            ("POST", "/origins"),
            ("POST", "/origins/remove"),
            ("POST", "/secret"),
        ):
            answer = await browser.request(method, f"{PAGE}{path}")
            assert answer.status_code == 403, (role, method, path)
        assert not soup(await browser.get("/console/t/acme")).select(f'a[href="{PAGE}"]')
    theirs = await (await sign_in("zoo")).get(PAGE)
    assert theirs.status_code == 404
    assert (await site_of(shop)).widget.enabled
