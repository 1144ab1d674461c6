"""What the frame and the page around it accept from each other, and from nobody else."""

from tests.browser.widget.conftest import Chat, Visitors, Widget, until

QUESTION = "Can I skip a week?"


def test_messages_that_the_panel_did_not_send_do_nothing(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    widget.page.evaluate("""() => {
      window.heard = [];
      for (const name of ["close", "answer", "error"]) Tenantune.on(name, () => heard.push(name));
      for (const [type, more] of [["close"], ["refused"], ["visitor", { token: "stolen" }],
        ["event", { name: "answer" }], ["constructor"], ["unread", { count: 9, text: ", 9" }]])
        postMessage({ t: "tt", v: 1, type, ...more }, "*");
    }""")
    widget.page.wait_for_timeout(200)
    assert widget.page.evaluate("heard") == []
    assert widget.page.evaluate("localStorage.length") == 0
    assert widget.button.get_attribute("aria-label") == "Questions?"
    widget.ask(QUESTION)


def test_another_frame_of_the_page_cannot_speak_for_it(chat: Chat, visitor: Visitors) -> None:
    """A frame with an advertisement says hello, with a token of its choice, before the page does."""
    other = chat.shop.write("", policy="default-src 'self' 'unsafe-inline'")
    path = other.removeprefix(chat.shop.url)
    forge = """
      addEventListener("message", () => {});
      setInterval(() => {
        for (let at = 0; at < parent.frames.length; at++)
          for (const type of ["hello", "signOut", "close", "language"])
            parent.frames[at].postMessage({t: "tt", v: 1, type, visitor: "forged", lang: "de", open: false}, "*");
      }, 5);
    """
    server = chat.site.url
    policy = f"script-src {server}; frame-src {server} 'self'"
    url = chat.shop.write(
        f'<iframe src="{path}" title="advertisement"></iframe>',
        chat.shop.tag(chat.keys["loaf"], label="Questions?"),
        policy=policy,
    )
    widget = visitor(url)
    advertisement = next(frame for frame in widget.page.frames if frame.url == other)
    advertisement.evaluate(forge)
    with widget.page.expect_request("**/session") as begun:
        widget.open()
    assert "visitor" not in (begun.value.post_data_json or {"visitor": "nothing sent"})
    widget.ask(QUESTION)
    widget.panel.get_by_role("button", name="Talk to a person").wait_for()  # still English


def test_another_version_of_the_handshake_is_not_spoken(chat: Chat, visitor: Visitors) -> None:
    widget = visitor(chat.page()).open()
    widget.page.evaluate("""() => document.querySelector("tenantune-chat").shadowRoot.querySelector("iframe")
      .contentWindow.postMessage({ t: "tt", v: 2, type: "language", lang: "de" }, "*")""")
    widget.page.wait_for_timeout(200)
    widget.panel.get_by_role("button", name="Talk to a person").wait_for()


def test_a_site_that_is_not_allowed_shows_nothing_and_says_why(
    chat: Chat, visitor: Visitors
) -> None:
    chat.change("northgate", allow_localhost=False)
    try:
        widget = visitor(chat.page("northgate"))
        lines: list[str] = []
        widget.page.on("console", lambda message: lines.append(message.text))
        widget.button.click()
        widget.page.locator("tenantune-chat").wait_for(state="detached")
    finally:
        chat.change("northgate", allow_localhost=True)
    told = [line for line in lines if line.startswith("Tenantune: ")]
    assert len(told) == 1
    assert chat.shop.url in told[0]
    assert f"{chat.site.url}/console" in told[0]


def test_a_frame_that_its_page_hides_from_the_server_is_refused_by_the_browser(
    chat: Chat, visitor: Visitors
) -> None:
    chat.change("northgate", allow_localhost=False)
    try:
        source = f"{chat.site.url}/widget/{chat.keys['northgate']}/panel?v=1"
        frame = f'<iframe src="{source}" referrerpolicy="no-referrer" title="x"></iframe>'
        policy = f"frame-src {chat.site.url}; script-src {chat.site.url}"
        url = chat.shop.write(frame, chat.shop.tag(chat.keys["loaf"]), policy=policy)
        widget = visitor(url)
        until(widget.page, "document.readyState === 'complete'")
        assert widget.page.frames[1].locator("main").count() == 0
    finally:
        chat.change("northgate", allow_localhost=True)
    visitor.forgive("frame-ancestors")


def test_a_token_of_one_tenant_is_worth_nothing_at_another(chat: Chat, visitor: Visitors) -> None:
    first = visitor(chat.page()).open()
    first.ask(QUESTION)
    token = first.page.evaluate("localStorage.getItem(Object.keys(localStorage)[0])")
    second = visitor(chat.page("northgate"))
    key = f"tenantune:{chat.keys['northgate']}"
    second.page.evaluate("([key, token]) => localStorage.setItem(key, token)", [key, token])
    second.page.reload()
    second = Widget(second.page).open()
    assert second.panel.locator(".me").count() == 0
