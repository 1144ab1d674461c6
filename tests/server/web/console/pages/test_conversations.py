"""The pages of conversations, without a browser: who may do what, and forms without a script."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from bs4 import BeautifulSoup, Tag

from server.conversations import inbox, passing_on, service
from server.conversations.inbox import Opened, Place
from server.conversations.schemas import OpinionRequest, Said
from server.conversations.service import Ask
from server.datasets import corrections
from server.db.models import LiveConversation
from server.db.scope import of_tenant
from server.errors import Conflict
from server.retrieval import receipts
from server.retrieval.schemas import Grounding
from server.web.console.pages import conversations
from tests.server.conversations.conftest import OpenShop, Shop, open_shop, shop, vault
from training.references import Reference

__all__ = ["open_shop", "shop", "vault"]

PAGE = "/console/t/acme/conversations"
INJECTED = "<script>alert(1)</script>"


def soup(answer: Any) -> BeautifulSoup:
    return BeautifulSoup(answer.text, "html.parser")


def words(answer: Any, element: str = "main") -> str:
    found = soup(answer).select_one(element)
    assert found is not None, f"no {element}"
    return " ".join(found.get_text(" ").split())


def form_to(answer: Any, ending: str) -> tuple[str, dict[str, str]]:
    """Where a form leads, and the fields that it sends as it is."""
    form = soup(answer).select_one(f'form[action*="{ending}"]')
    assert isinstance(form, Tag), f"no form leads to {ending}"
    fields = {str(each["name"]): str(each.get("value", "")) for each in form.select("input[name]")}
    for each in form.select("textarea[name]"):
        fields[str(each["name"])] = each.get_text()
    return str(form["action"]), fields


def topics(answer: Any) -> list[str]:
    return [each.get_text() for each in soup(answer).select(".talks .topic")]


async def rated(shop: Shop) -> Ask:
    """A conversation whose answer the visitor marked down."""
    visitor = await shop.enter(said=Said(name="Kim", email="kim@mail.example"))
    ask = await shop.talk(visitor, f"Where is my parcel? {INJECTED}", "No idea")
    caller = await shop.caller(visitor)
    async with shop.database.transaction() as session:
        request = OpinionRequest(vote="down", reasons=("wrong",), text="Useless")
        await service.give_opinion(session, caller, ask.answer.id, request)
    return ask


async def passed_on(shop: Shop) -> Ask:
    """A conversation that a person has."""
    visitor = await shop.enter()
    ask = await shop.talk(visitor, "Can I skip a week?", "Ask support")
    await shop.hand_off(visitor, note="Please call me.", copy=True)
    return ask


async def only(shop: Shop, **asked: Any) -> Opened:
    tenant_id = (await shop.site()).tenant.id
    async with shop.database.reading() as session:
        [found] = await inbox.list_conversations(session, tenant_id, **asked)
        return await inbox.read(session, tenant_id, found.id)


async def test_a_tenant_without_conversations_is_told_where_they_come_from(
    sign_in: Any, shop: Shop
) -> None:
    answer = await (await sign_in("acme", "viewer")).get(PAGE)
    assert answer.status_code == 200
    assert "No conversation yet" in words(answer)
    assert "An admin of this tenant sets it up." in words(answer)


async def test_the_list_has_queues_search_and_counts(sign_in: Any, shop: Shop) -> None:
    await rated(shop)
    await passed_on(shop)
    browser = await sign_in("acme", "viewer")
    answer = await browser.get(PAGE)
    assert topics(answer) == ["Can I skip a week?", f"Where is my parcel? {INJECTED}"]
    assert words(answer, ".seg") == "All 2 Needs a person 1 Thumbs down 1 Annoyed 0 Not verified 2"
    assert "Kim" in words(answer, ".talks")
    assert "says so, not verified" in words(answer, ".talks")
    assert "1 need" in words(answer, "nav.side")  # the number beside the page's name
    assert topics(await browser.get(f"{PAGE}?queue=needs_person")) == ["Can I skip a week?"]
    found = await browser.get(f"{PAGE}?queue=thumbs_down&q=PARCEL")
    assert len(topics(found)) == 1
    # a conversation's address keeps the list beside it
    [link] = soup(found).select(".talks a")
    assert parse_qs(urlsplit(str(link["href"])).query) == {
        "queue": ["thumbs_down"],
        "q": ["PARCEL"],
    }
    assert "Nothing found" in words(await browser.get(f"{PAGE}?q=zeppelin"))
    odd = await browser.get(f"{PAGE}?queue=nothing&after=x")
    assert len(topics(odd)) == 2


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("queue=needs_person", "Nobody waits"),
        ("queue=thumbs_down", "No answer was marked down"),
        ("after=0-0", "There are no older conversations"),
    ],
)
async def test_an_empty_queue_says_what_would_stand_there(
    sign_in: Any, shop: Shop, query: str, said: str
) -> None:
    await shop.talk(await shop.enter(), "Hello", "Hi")
    assert said in words(await (await sign_in("acme", "viewer")).get(f"{PAGE}?{query}"))


async def test_the_list_is_paged(sign_in: Any, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "PAGE", 2)
    for number in range(3):
        await shop.talk(await shop.enter(), f"Question {number}", "Answer")
    browser = await sign_in("acme", "viewer")
    first = await browser.get(f"{PAGE}?q=question")
    older = soup(first).select_one("a[rel=next]")
    assert older is not None
    second = await browser.get(str(older["href"]))
    assert topics(first) + topics(second) == ["Question 2", "Question 1", "Question 0"]
    assert not soup(second).select("a[rel=next]")
    newest = soup(second).select_one("a[rel=prev]")
    assert newest is not None
    assert newest["href"] == f"{PAGE}?q=question"


def test_a_place_in_a_list_survives_its_address() -> None:
    place = Place(datetime(2031, 5, 6, 7, 8, 9, 123457, tzinfo=UTC), "0" * 32)
    near = place._replace(last_at=datetime.now(UTC) - timedelta(microseconds=1))
    assert conversations.place_of(conversations.place_text(near)) == near
    for text in ("", "x", "1-", "-1-a", "٣-a", conversations.place_text(place)):
        assert conversations.place_of(text) is None, text


async def test_a_conversation_shows_who_wrote_and_the_receipt(sign_in: Any, shop: Shop) -> None:
    await rated(shop)
    opened = await only(shop)
    answer = await (await sign_in("acme", "viewer")).get(f"{PAGE}/{opened.id}")
    said = words(answer, "#pane")
    assert "Not verified says they are Kim , kim@mail.example" in said
    assert "Model acme@1 Took 340 ms, first word after 12 ms Tokens 20 read, 9 written" in said
    assert "Thumbs down wrong Useless" in said
    assert INJECTED not in answer.text
    # a viewer changes nothing
    assert not soup(answer).select("#pane form")


async def test_an_answer_that_is_an_agents_own_reply_says_so(sign_in: Any, shop: Shop) -> None:
    visitor = await shop.enter()
    ask = await shop.ask(visitor, "Where is my order?")
    await shop.finish(ask, "Look under My Orders.")
    references = tuple(
        Reference(kind="exchange", id=f"c{number}:1", title="Where", text=text, score=0.9)
        for number, text in enumerate(("Under My Orders.", "Look under My Orders."))
    )
    async with shop.database.transaction() as session:
        await receipts.keep(
            session,
            (await shop.site()).tenant.id,
            ask.answer.id,
            model="acme",
            version=3,
            dataset="d" * 64,
            grounding=Grounding(supported=True, references=references, quoted="c1:1"),
        )
    browser = await sign_in("acme", "reviewer")
    said = words(await browser.get(f"{PAGE}/{ask.conversation_id}"), "details.given")
    assert said.startswith("What it was given Supported An agent's own reply")
    assert "Exchange Sent word for word 0.900" in said
    assert said.count("word for word") == 1


async def test_an_answer_shows_what_it_was_given_and_a_person_looks_where_that_is_nothing(
    sign_in: Any, shop: Shop
) -> None:
    visitor = await shop.enter()
    ask = await shop.ask(visitor, "Do you repair clocks?")
    await shop.finish(ask, "Of course!", needs_person=True)
    tenant_id = (await shop.site()).tenant.id
    given = Grounding(
        supported=False,
        references=(
            Reference(
                kind="exchange", id="c1:1", title=INJECTED, text="By box. " * 200, score=0.31
            ),
            Reference(
                kind="article", id=f"{'a' * 32}@2#0", title="Delivery", text="On Friday.", score=0.2
            ),
        ),
    )
    async with shop.database.transaction() as session:
        await receipts.keep(
            session,
            tenant_id,
            ask.answer.id,
            model="acme",
            version=3,
            dataset="d" * 64,
            grounding=given,
        )
    browser = await sign_in("acme", "reviewer")
    listed = await browser.get(f"{PAGE}?queue=needs_person")
    assert "Nothing supports an answer" in words(listed, ".talks")
    assert "1 conversation waits for a person" in words(await browser.get("/console/t/acme"))
    here = f"{PAGE}/{ask.conversation_id}"
    page = await browser.get(here)
    said = words(page, "details.given:not([open])")
    assert said.startswith("What it was given Not supported")
    assert "Nearest exchange of the training data 0.310" in said
    assert "Article 0.200 deleted since Delivery On Friday." in said
    assert "Version 3, dataset dddddddd" in said
    assert "word for word" not in said
    assert len(said) < 1_800  # as much as the model read
    assert INJECTED not in page.text
    action, fields = form_to(page, "/looked-at")
    assert (await browser.post(action, data=fields)).status_code == 303
    assert "Nobody waits" in words(await browser.get(f"{PAGE}?queue=needs_person"))
    # an answer by a person is a look as well, and so is a hand-off
    for settle in ("answer", "take"):
        await shop.finish(ask, "Of course!", needs_person=True)
        assert (await only(shop, queue="needs_person")).unsupported_since
        if settle == "answer":
            await browser.post(f"{here}/answer", data={"text": "We do not."})
        else:
            await shop.hand_off(visitor)
        assert not (await only(shop)).unsupported_since


async def test_a_hand_off_is_read_given_back_and_taken_again(sign_in: Any, shop: Shop) -> None:
    await passed_on(shop)
    opened = await only(shop)
    browser = await sign_in("acme", "reviewer")
    here = f"{PAGE}/{opened.id}?queue=needs_person"
    page = await browser.get(here)
    said = words(page, ".handoff")
    assert said.startswith("Hand-off 1 Needs a person Asked")
    assert "Answer to kim@mail.example" in said
    assert "Passed on the last 2 messages, and wants a copy" in said
    assert "Please call me." in said
    action, fields = form_to(page, "/give-back")
    del browser.headers["x-csrf-token"]  # the form has it
    answer = await browser.post(action, data=fields)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{here}&done=given_back"
    assert (await only(shop)).state == "open"
    page = await browser.get(answer.headers["location"])
    assert "by Ana" in words(page, ".handoff")
    assert "the assistant answers here again" in words(page, "#toasts")
    action, fields = form_to(page, "/take-again")
    assert (await browser.post(action, data=fields)).status_code == 303
    assert (await only(shop)).state == "handed_over"


async def test_home_says_that_visitors_wait(sign_in: Any, shop: Shop) -> None:
    browser = await sign_in("acme", "viewer")
    assert "waits for a person" not in words(await browser.get("/console/t/acme"))
    await passed_on(shop)
    page = await browser.get("/console/t/acme")
    assert "1 conversation waits for a person" in words(page)
    [link] = soup(page).select(f'main a[href^="{PAGE}"]')
    assert topics(await browser.get(str(link["href"]))) == ["Can I skip a week?"]


async def test_a_better_answer_is_kept_changed_and_taken_back(sign_in: Any, shop: Shop) -> None:
    ask = await rated(shop)
    opened = await only(shop)
    browser = await sign_in("acme", "reviewer")
    page = await browser.get(f"{PAGE}/{opened.id}")
    action, fields = form_to(page, "/better/")
    assert fields["text"].strip() == "No idea"  # what is there is the beginning
    del browser.headers["x-csrf-token"]
    answer = await browser.post(action, data={**fields, "text": "It comes today."})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{PAGE}/{opened.id}?done=better#m-{ask.answer.id}"
    tenant_id = (await shop.site()).tenant.id
    async with shop.database.reading() as session:
        assert await corrections.count(session, tenant_id) == 1
    page = await browser.get(answer.headers["location"])
    assert "Should have said by Ana" in words(page, ".better")
    assert "The next dataset version has it" in words(page, "#toasts")
    action, fields = form_to(page, "/better/")
    answer = await browser.post(action, data={**fields, "do": "withdraw"})
    assert "done=withdrawn" in answer.headers["location"]
    async with shop.database.reading() as session:
        assert await corrections.count(session, tenant_id) == 0


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        ("/better/", "  ", "Write what it should have said."),
        ("/better/", "x" * 4001, "Write 1 to 4000 characters."),
        ("/answer", " ", "Write 1 to 4000 characters."),
    ],
)
async def test_a_mistake_is_said_at_its_field_and_in_the_summary(
    sign_in: Any, shop: Shop, *, form: str, text: str, said: str
) -> None:
    ask = await rated(shop)
    opened = await only(shop)
    browser = await sign_in("acme", "reviewer")
    action, fields = form_to(await browser.get(f"{PAGE}/{opened.id}"), form)
    answer = await browser.post(action, data={**fields, "text": text})
    assert answer.status_code == 422
    field = "answer" if form == "/answer" else f"better-{ask.answer.id}"
    [link] = soup(answer).select(".summary a")
    assert (link["href"], link.get_text()) == (f"#{field}", said)
    [wrong] = soup(answer).select("[aria-invalid=true]")
    assert (wrong["id"], wrong.get_text().strip()) == (field, text.strip())
    details = soup(answer).select("details.more[open]")
    assert len(details) == (form != "/answer")


async def test_a_person_answers_in_the_chat(sign_in: Any, shop: Shop) -> None:
    await passed_on(shop)
    opened = await only(shop)
    browser = await sign_in("acme", "reviewer")
    action, fields = form_to(await browser.get(f"{PAGE}/{opened.id}"), "/answer")
    answer = await browser.post(action, data={**fields, "text": "I am Ana."})
    assert answer.status_code == 303
    page = await browser.get(answer.headers["location"])
    assert words(page, "li.person").startswith("Ana")
    last = (await only(shop)).messages[-1]
    assert (last.message.role, last.message.text) == ("person", "I am Ana.")


async def test_a_viewer_may_change_nothing(sign_in: Any, shop: Shop) -> None:
    ask = await passed_on(shop)
    opened = await only(shop)
    browser = await sign_in("acme", "viewer")
    for what in (f"better/{ask.answer.id}", "answer", "give-back", "take-again"):
        answer = await browser.post(f"{PAGE}/{opened.id}/{what}", data={"text": "x"})
        assert answer.status_code == 403, what
    assert (await only(shop)).state == "handed_over"


async def test_another_tenants_conversations_are_not_there(
    sign_in: Any, shop: Shop, open_shop: OpenShop
) -> None:
    await open_shop("zoo")
    ask = await passed_on(shop)
    opened = await only(shop)
    browser = await sign_in("zoo", "admin")
    theirs = "/console/t/zoo/conversations"
    assert (await browser.get(f"{theirs}/{opened.id}")).status_code == 404
    assert (await browser.get(f"{PAGE}/{opened.id}")).status_code == 404
    for what in (f"better/{ask.answer.id}", "answer", "give-back", "take-again"):
        answer = await browser.post(f"{theirs}/{opened.id}/{what}", data={"text": "x"})
        assert answer.status_code == 404, what
    assert (await only(shop)).state == "handed_over"


async def test_an_annoyed_customer_is_offered_to_a_person_where_the_tenant_wants_it(
    shop: Shop, sign_in: Any
) -> None:
    ask = await rated(shop)
    talk = ask.conversation_id
    async with shop.database.transaction() as session:
        row = await of_tenant((await shop.site()).tenant.id).get_one(
            session, LiveConversation, talk
        )
        row.annoyed_messages = 1
    reviewer = await sign_in("acme", "reviewer")
    listed = await reviewer.get(f"{PAGE}?queue=annoyed")
    assert "Annoyed 1" in words(listed, ".pick-queue")
    assert len(topics(listed)) == 1
    assert "seems annoyed" not in words(await reviewer.get(f"{PAGE}/{talk}"))  # off at first
    await shop.change(offer_when_annoyed=True)
    viewer = await sign_in("acme", "viewer")
    assert soup(await viewer.get(f"{PAGE}/{talk}")).select_one('form[action$="/take"]') is None
    shown = await reviewer.get(f"{PAGE}/{talk}")
    assert "the answer comes to kim@mail.example" in words(shown)
    action, fields = form_to(shown, "/take")
    done = await reviewer.post(action, data=fields)
    assert done.status_code == 303
    after = await reviewer.get(f"{PAGE}/{talk}")
    assert "Needs a person" in words(after, ".handoff")
    assert "seems annoyed" not in words(after)
    again = await reviewer.post(action, data=fields)  # changes nothing
    assert again.status_code == 303
    async with shop.database.reading() as session:
        opened = await inbox.read(session, (await shop.site()).tenant.id, talk)
    assert opened.handoff is not None
    assert opened.handoff.number == 1


async def test_a_visitor_without_an_address_is_answered_in_the_chat(
    shop: Shop, sign_in: Any
) -> None:
    visitor = await shop.enter()
    ask = await shop.talk(visitor, "Useless!", "Sorry")
    await shop.change(offer_when_annoyed=True)
    tenant_id = (await shop.site()).tenant.id
    async with shop.database.transaction() as session:
        row = await of_tenant(tenant_id).get_one(session, LiveConversation, ask.conversation_id)
        row.annoyed_messages = 1
    reviewer = await sign_in("acme", "reviewer")
    shown = await reviewer.get(f"{PAGE}/{ask.conversation_id}")
    assert "No e-mail address is known" in words(shown)
    assert soup(shown).select_one('form[action$="/take"]') is None
    with pytest.raises(Conflict):
        async with shop.database.transaction() as session:
            await passing_on.take(session, tenant_id, ask.conversation_id, actor="person:x")


async def test_a_rule_that_asks_for_a_person_is_named_until_one_has_looked(
    sign_in: Any, shop: Shop
) -> None:
    tenant_id = (await shop.site()).tenant.id
    addresses = ("", "kim@mail.example")
    for email in addresses:
        visitor = await shop.enter(said=Said(email=email) if email else None)
        ask = await shop.talk(visitor, "Does anybody listen?", "Sorry")
        async with shop.database.transaction() as session:
            talk = await of_tenant(tenant_id).get_one(
                session, LiveConversation, ask.conversation_id, lock=True
            )
            await passing_on.take_by_rule(
                session, talk, reason="annoyance: annoyed, 87 %", written_at=talk.last_at
            )
    browser = await sign_in("acme", "reviewer")
    queue = await browser.get(f"{PAGE}?queue=needs_person")
    assert "A rule asks for a person" in words(queue)
    async with shop.database.reading() as session:
        passed, waits = await inbox.list_conversations(session, tenant_id, queue="needs_person")
    opened = words(await browser.get(f"{PAGE}/{waits.id}"))
    assert "labelled annoyance: annoyed, 87 %. No e-mail address" in opened
    assert "By your rule annoyance: annoyed, 87 %" in words(
        await browser.get(f"{PAGE}/{passed.id}")
    )
    await browser.post(f"{PAGE}/{waits.id}/looked-at")
    assert "A rule asks" not in words(await browser.get(f"{PAGE}?queue=needs_person"))
