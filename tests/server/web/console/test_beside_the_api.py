"""The API beside the console: neither knows the other's credentials, nor its checks."""

import pytest


@pytest.mark.parametrize("path", ["/v1/models", "/admin/tenants"])
async def test_the_api_knows_nothing_of_the_consoles_cookie(sign_in, operator, path):
    browser = await sign_in()
    assert (await browser.get(path)).status_code == 401


async def test_the_api_stays_free_of_the_consoles_checks(client, operator):
    headers = {**operator, "sec-fetch-site": "cross-site", "origin": "https://shop.example"}
    made = await client.post("/admin/tenants", json={"slug": "acme"}, headers=headers)
    assert made.status_code == 201
