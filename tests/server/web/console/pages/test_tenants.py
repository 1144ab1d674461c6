"""Setting up a company."""

import pytest

from server.tenants import service as tenants
from server.web.console.pages.tenants import PATH, slug_of


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Lumen & Loaf", "lumen-loaf"),
        ("  Société Générale d'Été  ", "societe-generale-d-ete"),
        ("Ünïq3", "uniq3"),
        ("日本", ""),
        ("x" * 39 + " yz", "x" * 39),
    ],
)
def test_a_short_name_is_made_of_a_companys(name, slug):
    assert slug_of(name) == slug


async def test_an_operator_sets_up_a_company_and_lands_on_its_home(sign_in, database):
    browser = await sign_in()
    assert (await browser.get(PATH)).status_code == 200
    form = {"name": " Lumen & Loaf ", "slug": "", "system_prompt": "Be warm."}
    answer = await browser.post(PATH, data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/t/lumen-loaf")
    async with database.reading() as session:
        made = await tenants.get(session, "lumen-loaf")
    assert (made.name, made.system_prompt) == ("Lumen & Loaf", "Be warm.")
    home = (await browser.get("/console/t/lumen-loaf")).text
    assert "Lumen &amp; Loaf is set up." in home


@pytest.mark.parametrize(
    ("form", "status", "field"),
    [
        ({"name": " "}, 422, "name"),
        ({"name": "n" * 201}, 422, "name"),
        ({"name": "日本"}, 422, "slug"),
        ({"name": "Acme", "slug": "Acme Ltd"}, 422, "slug"),
        ({"name": "Acme", "slug": "a" * 41}, 422, "slug"),
        ({"name": "Acme", "system_prompt": "p" * 20_001}, 422, "system_prompt"),
        ({"name": "Acme"}, 409, "slug"),
    ],
)
async def test_what_cannot_be_is_said_at_its_field(sign_in, make_tenant, form, status, field):
    await make_tenant("acme")
    answer = await (await sign_in()).post(PATH, data=form)
    assert answer.status_code == status
    assert f'id="{field}-error"' in answer.text
    assert f'href="#{field}"' in answer.text


async def test_the_bases_name_is_taken(sign_in, settings):
    form = {"name": "Base", "slug": settings.base}
    answer = await (await sign_in()).post(PATH, data=form)
    assert answer.status_code == 409
