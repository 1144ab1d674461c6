"""The page of curation, without a browser: forms without a script, roles, what is remembered."""

from typing import Any

import msgspec
import pytest
from bs4 import BeautifulSoup

from server.curation import service
from server.curation.schemas import Flagged, Scan, ScanTopic
from server.db.models import ConversationRow, CurationScan, Import
from server.db.scope import of_tenant
from server.tenants import service as tenants
from tests.browser.curated import SCAN

PAGE = "/console/t/acme/data/curation"
PAGES = ("curation",)


def soup(answer: Any) -> BeautifulSoup:
    return BeautifulSoup(answer.text, "html.parser")


def words(answer: Any) -> str:
    found = soup(answer).select_one("main")
    assert found is not None
    return " ".join(found.get_text(" ").split())


def fields(answer: Any, form: str) -> dict[str, str]:
    return {
        str(each["name"]): str(each["value"])
        for each in soup(answer).select(f"{form} input[type=hidden]")
    }


@pytest.fixture
async def tenant(make_tenant, make_upload, database):
    made = await make_tenant("acme")
    upload = await make_upload()
    body = {"id": "ticket-7", "turns": [{"role": "customer", "text": "Is nobody there?"}]}
    row = ConversationRow(
        tenant_id=made.id, import_id=upload.id, external_id="a", digest="0" * 64, body=body
    )
    async with database.transaction() as session:
        session.add(row)
        await session.flush()
        flags = {"no_reply": [Flagged(row.id, 0, "no reply")]}
        found: Scan = msgspec.structs.replace(SCAN, flags=flags)
        session.add(
            CurationScan(tenant_id=made.id, conversations=1, body=msgspec.to_builtins(found))
        )
    return made


async def test_before_a_scan_the_page_offers_one_and_the_scan_fills_it(
    sign_in, make_tenant
) -> None:
    await make_tenant("acme")
    browser = await sign_in("acme", "reviewer")
    assert "Nobody has looked through the conversations yet" in words(await browser.get(PAGE))
    done = await browser.post(f"{PAGE}/scan", follow_redirects=True)
    assert "Looked through 0 of 0 conversations" in words(done)


async def test_a_reviewer_decides_one_doubt_after_the_other_with_plain_forms(
    sign_in, tenant, database
) -> None:
    browser = await sign_in("acme", "reviewer")
    shown = await browser.get(PAGE)
    assert "Is “Kasimir” personal?" in words(shown)
    sent = {**fields(shown, "#decide"), "decision": "reject"}
    shown = await browser.post(f"{PAGE}/decide", data=sent, follow_redirects=True)
    assert "Is “80331 München” personal?" in words(shown)
    sent = {**fields(shown, "#decide"), "decision": "edit", "masked": "80331"}
    shown = await browser.post(f"{PAGE}/decide", data=sent, follow_redirects=True)
    assert "Nothing is left to decide." in words(shown)
    async with database.reading() as session:
        made = await service.decisions(session, await tenants.get(session, "acme"))
    assert {(one.text, one.decision, one.masked, one.entity_type) for one in made} == {
        ("kasimir", "reject", "", "NAME"),
        ("80331 münchen", "edit", "80331", "ADDRESS"),
    }


async def test_a_flag_leads_to_its_conversations_in_one_click_and_each_can_be_left_out(
    sign_in, tenant, database
) -> None:
    browser = await sign_in("acme", "reviewer")
    link = soup(await browser.get(PAGE)).select_one('a[href$="?flag=no_reply"]')
    assert link is not None
    shown = await browser.get(str(link["href"]))
    assert "ticket-7: no reply" in words(shown)
    assert "Customer This message Is nobody there?" in words(shown)
    form = soup(shown).select_one('form[action*="/conversations/"]')
    assert form is not None
    await browser.post(str(form["action"]), data={"keep": "no"})
    async with database.reading() as session:
        made = await service.load_decisions(session, await tenants.get(session, "acme"))
    assert list(made.choices.values()) == [False]


async def test_an_admin_sets_the_rules_and_a_reviewer_cannot(sign_in, tenant, database) -> None:
    reviewer = await sign_in("acme", "reviewer")
    refused = await reviewer.post(f"{PAGE}/rules", data={"no_reply": "ask"})
    assert refused.status_code == 403
    admin = await sign_in("acme", "admin")
    saved = await admin.post(
        f"{PAGE}/rules", data={"no_reply": "ask", "bot_only": "nonsense"}, follow_redirects=True
    )
    assert "The rules are saved" in saved.text
    async with database.reading() as session:
        rules = service.rules_of(await tenants.get(session, "acme"))
    assert (rules.no_reply, rules.bot_only, rules.secret) == ("ask", "keep", "leave_out")


async def test_a_viewer_sees_what_was_found_and_can_change_nothing(sign_in, tenant) -> None:
    viewer = await sign_in("acme", "viewer")
    shown = await viewer.get(PAGE)
    assert "Is “Kasimir” personal?" in words(shown)
    assert soup(shown).select('main form[action*="curation/"] button') == []
    for path in ("scan", "decide", "rules", "conversations/x"):
        assert (await viewer.post(f"{PAGE}/{path}")).status_code == 403
    assert (await viewer.get(PAGE.replace("acme", "other"))).status_code == 404


@pytest.mark.parametrize(
    ("questions", "by_meaning", "told"),
    [
        (31, 31, "Questions were compared by meaning."),
        (31, 20, "The newest 20 of 31 questions were compared by meaning"),
        (31, 0, "compared by their wording alone"),
    ],
)
async def test_the_page_says_how_questions_were_compared(
    sign_in, tenant, database, *, questions, by_meaning, told
) -> None:
    found = msgspec.structs.replace(SCAN, questions=questions, questions_by_meaning=by_meaning)
    async with database.transaction() as session:
        session.add(
            CurationScan(tenant_id=tenant.id, conversations=1, body=msgspec.to_builtins(found))
        )
    browser = await sign_in("acme", "viewer")
    assert told in words(await browser.get(PAGE))


@pytest.fixture
async def multilingual(tenant, database):
    """Two English conversations, and 22 German ones, to one of which the agent answers in English."""
    labels = {}
    async with database.transaction() as session:
        upload_id = await session.scalar(of_tenant(tenant.id).select(Import.id))
        for number in range(24):
            turns = [
                {
                    "role": "customer",
                    "text": "Wo ist mein Paket?" if number > 1 else "Where is it?",
                },
                {"role": "agent", "text": "On its way."},
            ]
            row = ConversationRow(
                tenant_id=tenant.id,
                import_id=upload_id,
                external_id=f"m{number}",
                digest=f"{number + 1:064x}",
                body={"id": f"talk-{number}", "turns": turns},
            )
            session.add(row)
            await session.flush()
            spoken = "de" if number > 1 else "en"
            labels[row.id] = {"language": spoken, "languages": [spoken, "en"]}
        found = msgspec.structs.replace(
            SCAN,
            languages={"de": 22, "en": 2},
            flags={"no_reply": [Flagged(name, 0, "no reply") for name in labels]},
        )
        session.add(
            CurationScan(
                tenant_id=tenant.id,
                conversations=24,
                body=msgspec.to_builtins(found),
                labels=labels,
            )
        )
    return labels


async def test_conversations_are_filtered_by_language_and_messages_say_theirs(
    sign_in, multilingual
) -> None:
    browser = await sign_in("acme", "viewer")
    start = soup(await browser.get(PAGE))
    assert start.select_one('a[href$="?language=de"]') is not None
    german = await browser.get(f"{PAGE}?language=de")
    assert "1 to 20 of 22 conversations." in words(german)
    assert "talk-23 (de)" in words(german)
    assert "talk-0" not in words(german)
    assert "Agent en On its way." in words(german)
    following = soup(german).find("a", string="The next 2")
    assert following is not None
    last = words(await browser.get(PAGE + str(following["href"])))
    assert "21 to 22 of 22" in last
    assert "talk-2 (de)" in last
    english = words(await browser.get(f"{PAGE}?flag=no_reply&language=en"))
    assert "talk-0: no reply (en)" in english
    assert "talk-5" not in english
    assert "All de 22 en 2" in english


async def test_one_language_leaves_no_trace_on_conversations(
    sign_in, multilingual, tenant, database
) -> None:
    found = msgspec.structs.replace(
        SCAN,
        languages={"en": 2},
        flags={"no_reply": [Flagged(name, 0, "no reply") for name in [*multilingual][:2]]},
    )
    async with database.transaction() as session:
        session.add(
            CurationScan(
                tenant_id=tenant.id,
                conversations=2,
                body=msgspec.to_builtins(found),
                labels={name: multilingual[name] for name in [*multilingual][:2]},
            )
        )
    shown = await (await sign_in("acme", "viewer")).get(f"{PAGE}?flag=no_reply")
    assert "talk-0: no reply Customer This message Where is it? Agent On its" in words(shown)
    assert soup(shown).select('nav[aria-label="Language"]') == []


async def test_topics_of_what_is_stored_lead_to_their_conversations(
    sign_in, multilingual, tenant, database, make_tenant
) -> None:
    topics = [
        ScanTopic(words=["late"], example="Wo ist mein Paket?", conversations=22),
        ScanTopic(words=[], example="Where is it?", conversations=2),
    ]
    found = msgspec.structs.replace(SCAN, topics=topics)
    labels = {
        name: {**each, "topic": 1 if each["language"] == "de" else 2}
        for name, each in multilingual.items()
    }
    async with database.transaction() as session:
        session.add(
            CurationScan(
                tenant_id=tenant.id,
                conversations=24,
                body=msgspec.to_builtins(found),
                labels=labels,
            )
        )
    browser = await sign_in("acme", "viewer")
    page = await browser.get("/console/t/acme/data/topics")
    assert "2 topics of the stored conversations" in words(page)
    assert "No words of its own Where is it? 2" in words(page)
    link = soup(page).select_one('a[href$="curation?topic=2"]')
    assert link is not None
    shown = words(await browser.get(str(link["href"])))
    assert "About Where is it?" in shown
    assert "talk-1 Customer" in shown
    assert "talk-5" not in shown
    await make_tenant("other")
    other = await sign_in("other", "admin")
    assert "No topics yet" in words(await other.get("/console/t/other/data/topics"))
