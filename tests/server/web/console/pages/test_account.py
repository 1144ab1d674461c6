"""Your account: one's own name, password and sessions."""

from tests.server.web.console.pages.conftest import EMAIL, PASSWORD, enter, token_in

ACCOUNT = "/console/account"
NEW = "another long password"


async def test_a_name_is_changed(browser, make_person):
    await make_person()
    await enter(browser)
    token = token_in(await browser.get(ACCOUNT))
    for name, status in (("", 422), ("x" * 201, 422), ("  Ana <b>B</b> ", 303)):
        form = {"csrf_token": token, "name": name}
        assert (await browser.post(f"{ACCOUNT}/name", data=form)).status_code == status
    page = await browser.get(f"{ACCOUNT}?done=name")
    assert 'value="Ana &lt;b&gt;B&lt;/b&gt;"' in page.text
    assert "Your name is changed." in page.text


async def test_a_new_password_keeps_this_browser_and_ends_the_others(browser, sign_in, make_person):
    await make_person()
    await enter(browser)
    old = browser.cookies["tt"]
    page = await browser.get(ACCOUNT)
    form = {"csrf_token": token_in(page), "current": "wrong", "password": NEW}
    refused = await browser.post(f"{ACCOUNT}/password", data=form)
    assert refused.status_code == 422
    assert 'href="#current"' in refused.text
    done = await browser.post(f"{ACCOUNT}/password", data={**form, "current": PASSWORD})
    assert done.status_code == 303
    assert browser.cookies["tt"] != old
    assert (await browser.get(ACCOUNT)).status_code == 200
    browser.cookies.clear()
    assert (await browser.get(ACCOUNT, headers={"cookie": f"tt={old}"})).status_code == 303
    assert (await enter(browser)).status_code == 422
    assert (await enter(browser, EMAIL, NEW)).status_code == 303


async def test_others_are_signed_out_one_by_one_or_all(browser, client, make_person):
    await make_person()
    cookies = []
    for _ in range(3):
        browser.cookies.clear()
        agent = {"user-agent": "Mozilla/5.0 (Windows NT 10.0) Gecko/20100101 Firefox/153.0"}
        token = token_in(await browser.get("/console/sign-in"))
        form = {"csrf_token": token, "email": EMAIL, "password": PASSWORD}
        await browser.post("/console/sign-in", data=form, headers=agent)
        cookies.append(browser.cookies["tt"])
    page = await browser.get(ACCOUNT)
    assert page.text.count("Firefox on Windows</b>") == 3
    assert page.text.count("This browser") == 1
    path = page.text.split('action="/console/account/sessions/')[1].split('"')[0]
    form = {"csrf_token": token_in(page)}
    done = await browser.post(f"{ACCOUNT}/sessions/{path}", data=form)
    assert done.headers["location"] == f"{ACCOUNT}?done=session"
    assert (await browser.post(f"{ACCOUNT}/sessions/{path}", data=form)).status_code == 404

    async def alive():
        headers = [{"cookie": f"tt={cookie}"} for cookie in cookies]
        return [(await client.get(ACCOUNT, headers=each)).status_code for each in headers]

    assert sorted(await alive()) == [200, 200, 303]
    await browser.post(f"{ACCOUNT}/sign-out-others", data=form)
    assert await alive() == [303, 303, 200]


async def test_a_session_of_somebody_else_cannot_be_ended(browser, sign_in, make_person):
    await make_person()
    await enter(browser)
    other = await sign_in()
    page = await other.get("/console/people")
    person = page.text.split(EMAIL)[0].rpartition('href="/console/people/')[2].split('"')[0]
    assert person
    form = {"csrf_token": token_in(await browser.get(ACCOUNT))}
    mine = await other.post(f"{ACCOUNT}/sessions/{person}/end", data=form)
    assert mine.status_code == 404
