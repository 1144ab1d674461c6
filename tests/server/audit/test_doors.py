"""Every way in: what changes something leaves an entry of who it was, from whichever door."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from litestar.routes import HTTPRoute

from server.accounts import service as people
from server.accounts import sessions
from server.audit import service as audit
from server.audit.schemas import AuditEntryView
from server.auth import keys
from server.conversations import inbox
from server.conversations.schemas import Said
from server.db.models import Article, ConversationRow, Head, LiveConversation, now
from server.db.scope import of_tenant
from server.tenants import service as tenants
from server.web.console.pages.training_form import empty_form
from server.web.console.session import SAFE_METHODS
from server.webhooks import service as webhooks
from server.webhooks.schemas import EVENT_TYPES
from tests.server.conversations.conftest import Shop, open_shop, shop, vault
from tests.server.heads.conftest import as_file, texts
from tests.server.jobs.fake_runs import make_run, make_version
from tests.server.web.conftest import sign_in
from tests.server.web.console.pages.conftest import (
    PASSWORD,
    browser,
    enter,
    make_link,
    make_person,
    token_in,
)
from tests.server.web.console.pages.test_data import CHATS, TABLE
from tests.server.web.console.pages.test_widget import FORM

__all__ = ["browser", "make_link", "make_person", "open_shop", "shop", "sign_in", "vault"]

C = "/console/t/{slug}"
A = "/admin/tenants/{slug}"
P = "/console/people/{person_id}"
J = f"{A}/jobs/{{job_id}}"
PARAMETERS = {
    "keys": "key_id",
    "webhooks": "webhook_id",
    "imports": "import_id",
    "uploads": "upload_id",
}
NOT_RECORDED = {
    f"POST {C}/release/ask": "a question to a model, which is use and no change",
    f"POST {C}/release/ask/stream": "the same",
    f"POST {C}/release/{{version}}/vote": "a blind vote is an opinion, kept with who gave it",
    f"POST {C}/release/{{version}}/vote/undo": "the same",
    f"POST {A}/webhooks/{{webhook_id}}/test": "it sends an event, and is among the deliveries",
    f"POST {A}/webhooks/{{webhook_id}}/deliveries/{{delivery_id}}/redeliver": "the same",
    f"POST {C}/webhooks/{{hook_id}}/test": "the same",
    f"POST {C}/webhooks/{{hook_id}}/deliveries/{{delivery_id}}/again": "the same",
    f"POST {C}/data/curation/scan": "it reads conversations, and changes nothing that is learnt",
    f"POST {A}/curation/scans": "the same",
    "POST /console/engine/restart": "needs an engine; its own test asks for the entry",
    f"POST {A}/heads/classify": "a question to a model, which is use and no change",
    f"POST {A}/adapters": "needs a base; it ends in create_job, as a job does here",
}


class Call(NamedTuple):
    """A request that changes something: what is recorded of it, and as what it is sent."""

    method: str
    path: str
    action: str
    body: Any = None
    files: Any = None

    @property
    def route(self) -> str:
        return f"{self.method} {self.path}"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def unsafe_routes(app: Any, start: str) -> set[str]:
    return {
        f"{method} {route.path_format}"
        for route in app.routes
        if isinstance(route, HTTPRoute) and route.path_format.startswith(start)
        for handler in route.route_handlers
        for method in handler.http_methods
        if method not in SAFE_METHODS
    }


async def newest(database: Any, count: int = 50) -> list[AuditEntryView]:
    async with database.reading() as session:
        return await audit.list_entries(session, None, for_operator=True, limit=count)


@pytest.fixture
async def ids(database: Any, make_tenant: Any, make_upload: Any, shop: Shop) -> dict[str, str]:
    """A tenant with something of each kind, by the names of the addresses' parameters."""
    visitor = await shop.enter(said=Said(name="Kim", email="kim@mail.example"))
    ask = await shop.talk(visitor, "Can I skip a week?", "Ask support")
    await shop.hand_off(visitor, note="Please call me.")
    async with database.transaction() as session:
        tenant = await tenants.get(session, "acme")
        [talk] = await inbox.list_conversations(session, tenant.id)
        marked = await of_tenant(tenant.id).get_one(session, LiveConversation, talk.id)
        marked.unsupported_since = now()
    found = {"slug": "acme", "conversation_id": talk.id, "message_id": ask.answer.id}
    for number in (1, 2):
        await make_version(
            database, tenant, await make_run(database, tenant, state="succeeded"), version=number
        )
    for number, name in ((3, "waiting"), (4, "waiting_too"), (5, "waiting_for_decision")):
        job = await make_run(database, tenant, state="awaiting_approval")
        await make_version(database, tenant, job, version=number, state="candidate")
        found[name] = job.id
    job = await make_run(database, tenant)
    found["job_id"] = job.id
    upload = await make_upload()
    row = ConversationRow(
        tenant_id=tenant.id,
        import_id=upload.id,
        external_id="a",
        digest="0" * 64,
        body={"id": "a", "turns": [{"role": "customer", "text": "Nobody?"}]},
    )
    async with database.transaction() as session:
        session.add(row)
        article = Article(tenant_id=tenant.id, name="box.md")
        session.add(article)
        await session.flush()
        found["article_id"] = article.id
    found["row_id"] = row.id
    async with database.transaction() as session:
        for number in (1, 2):
            head = Head(tenant_id=tenant.id, task="annoyance", version=number, texts=24)
            head.state, head.sha256 = "ready", "0" * 64
            head.manifest = {
                "labels": ["annoyed", "calm"],
                "dataset_sha256": "d" * 64,
                "verdict": {"passed": True, "gates": []},
            }
            shared = Head(task="sentiment", version=number, texts=24, state="ready")
            shared.sha256, shared.manifest = head.sha256, head.manifest
            session.add_all([head, shared])
    return found


async def walk(
    client: Any, calls: list[Call], ids: dict[str, str], database: Any, *, by: str, **sent: Any
) -> set[str]:
    """Send each; the newest entries are of it. What an answer tells of ids is kept for later ones."""
    done = set()
    for call in calls:
        url = re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], call.path)
        kind = "data" if by == "person" else "json"
        body = {"files": call.files} if call.files else {kind: call.body} if call.body else {}
        answer = await client.request(call.method, url, **body, **sent)
        assert answer.status_code < 400, (call.route, answer.status_code, answer.text[:500])
        of_it = [
            each
            for each in await newest(database)
            if each.request_id == answer.headers["x-request-id"]
        ]
        assert call.action in [each.action for each in of_it], (call.route, of_it)
        assert {each.actor.kind for each in of_it} == {by}, (call.route, of_it)
        assert {each.address for each in of_it} == {"127.0.0.1"}
        done.add(call.route)
        if "location" in answer.headers:
            ids["last"] = answer.headers["location"].rpartition("/")[2].partition("?")[0]
        elif "json" in answer.headers.get("content-type", ""):
            told = answer.json()
            ids["last"] = told.get("id") or told.get("details", {}).get("id", "")
    return done


async def test_no_form_of_the_console_goes_unrecorded(
    app: Any,
    database: Any,
    *,
    settings: Any,
    sign_in: Any,
    ids: dict[str, str],
    browser: Any,
    make_person: Callable[..., Any],
    make_link: Callable[..., Any],
) -> None:
    boss = await sign_in()
    person = await make_person("ana@example.com")
    ids["person_id"] = person.id
    file = {"file": ("a.jsonl", CHATS, "text/plain")}
    table = {"file": ("tickets.csv", TABLE, "text/plain")}
    form = {**FORM, "display_name": "Acme", "accent": "#112233"}
    done = await walk(
        boss,
        [
            Call("POST", "/console/account/name", "person.renamed", {"name": "Ann"}),
            Call("POST", "/console/tenants/new", "tenant.created", {"name": "Second"}),
            Call("POST", f"{C}/usage/limits", "tenant.limits_changed", {"whose": "own", "requests_per_minute": "9"}),
            Call("POST", "/console/people", "person.added", {"email": "new@example.com", "tenant": "acme", "role": "viewer"}),
            Call("POST", f"{P}/role", "person.role_changed", {"tenant": "acme", "role": "admin"}),
            Call("POST", f"{P}/link", "person.link_made"),
            Call("POST", f"{P}/disable", "person.disabled"),
            Call("POST", f"{P}/enable", "person.enabled"),
            Call("POST", f"{P}/operator", "person.made_operator", {"to": "yes"}),
            Call("POST", f"{C}/data", "transcripts.uploaded", files=file),
            Call("POST", f"{C}/data/sample", "transcripts.uploaded", {"a": "b"}),
            Call("POST", f"{C}/knowledge/answers", "tenant.changed", {"show_sources": "yes"}),
            Call("POST", f"{C}/knowledge/{{article_id}}/delete", "knowledge.deleted", {"a": "b"}),
            Call("POST", f"{C}/knowledge", "knowledge.uploaded", files={"file": ("a.md", b"# A")}),
            Call("POST", f"{C}/knowledge/uploads/{{last}}/stop", "knowledge.cancelled", {"a": "b"}),
            Call("POST", f"{C}/data", "transcripts.uploaded", files=table),
        ],
        ids,
        database,
        by="person",
    )  # fmt: skip
    ids["import_id"] = ids["last"]
    imported = {**ids, "conversation_id": ids["row_id"]}
    path = f"{C}/data/curation/conversations/{{conversation_id}}"
    call = Call("POST", path, "transcripts.conversation_chosen", {"keep": "yes"})
    done |= await walk(boss, [call], imported, database, by="person")
    done |= await walk(
        boss,
        [
            Call("POST", f"{C}/data/imports/{{import_id}}/columns", "transcripts.confirmed", {"do": "import"}),
            Call("POST", f"{C}/data/imports/{{import_id}}/delete", "transcripts.deleted", {"datasets": "yes"}),
            Call("POST", f"{C}/data/curation/decide", "transcripts.doubt_decided", {"rule": "greeting", "text": "Kasimir", "decision": "approve"}),
            Call("POST", f"{C}/data/curation/rules", "transcripts.rules_changed", {"no_reply": "ask"}),
            Call("POST", f"{C}/training/new", "job.started", empty_form(settings, "cpu-demo").values),
            Call("POST", f"{C}/training/{{job_id}}/pause", "job.paused"),
            Call("POST", f"{C}/training/{{job_id}}/resume", "job.resumed"),
            Call("POST", f"{C}/training/{{job_id}}/cancel", "job.cancelled"),
            Call("POST", f"{C}/conversations/{{conversation_id}}/better/{{message_id}}", "conversation.corrected", {"text": "Yes"}),
            Call("POST", f"{C}/conversations/{{conversation_id}}/looked-at", "conversation.looked_at"),
            Call("POST", f"{C}/conversations/{{conversation_id}}/answer", "conversation.answered", {"text": "I am Ana."}),
            Call("POST", f"{C}/conversations/{{conversation_id}}/give-back", "conversation.given_back"),
            Call("POST", f"{C}/conversations/{{conversation_id}}/take-again", "conversation.taken"),
            Call("POST", f"{C}/conversations/{{conversation_id}}/give-back", "conversation.given_back"),
            Call("POST", f"{C}/conversations/{{conversation_id}}/take", "conversation.taken"),
            Call("POST", f"{C}/widget/off", "widget.disabled"),
            Call("POST", f"{C}/widget/on", "widget.enabled"),
            Call("POST", f"{C}/widget", "widget.changed", form),
            Call("POST", f"{C}/widget/origins", "widget.origin_allowed", {"origin": "https://a.example"}),
            Call("POST", f"{C}/widget/origins/remove", "widget.origin_removed", {"origin": "https://a.example"}),
            Call("POST", f"{C}/widget/secret", "widget.secret_rotated", {"overlap": "3600"}),
        ],
        ids,
        database,
        by="person",
    )  # fmt: skip
    for version, route, action, sent in (
        ("1", "release/{version}/promote", "adapter.promoted", {"revision": "0"}),
        ("2", "release/{version}/promote", "adapter.promoted", {"revision": "1"}),
        ("", "release/roll-back", "adapter.rolled_back", {"revision": "2"}),
        ("3", "release/{version}/approve", "job.approved", {}),
        ("4", "release/{version}/reject", "job.rejected", {}),
    ):
        call = Call("POST", f"{C}/{route}", action, sent)
        done |= await walk(boss, [call], {**ids, "version": version}, database, by="person")
    for version, route, action, sent in (
        (
            "2",
            "release/{version}/canary",
            "adapter.canary_started",
            {"percent": "10", "revision": "3"},
        ),
        (
            "2",
            "release/{version}/canary",
            "adapter.canary_changed",
            {"percent": "25", "revision": "4"},
        ),
        ("", "release/take-back", "adapter.canary_ended", {"revision": "5"}),
    ):
        call = Call("POST", f"{C}/{route}", action, sent)
        done |= await walk(boss, [call], {**ids, "version": version}, database, by="person")
    for version, route, action, sent in (
        ("1", "{name}/{version}/promote", "head.promoted", {"revision": "0"}),
        ("2", "{name}/{version}/promote", "head.promoted", {"revision": "1"}),
        ("", "{name}/rules", "head.rules_changed", {"label": "annoyed", "percent": "80"}),
        ("", "{name}/shared", "head.sharing_changed", {"use": "no"}),
        ("", "{name}/roll-back", "head.rolled_back", {"revision": "2"}),
        ("", "{name}/retire", "head.retired", {"revision": "1"}),
        ("2", "{name}/{version}/delete", "head.deleted", {"a": "b"}),
    ):
        call = Call("POST", f"{C}/heads/{route}", action, sent)
        at = {**ids, "version": version, "name": "annoyance"}
        done |= await walk(boss, [call], at, database, by="person")
    labelled = {"file": ("a.jsonl", as_file(texts())), "task": (None, "annoyance")}
    call = Call("POST", f"{C}/heads", "head.uploaded", files=labelled)
    done |= await walk(boss, [call], ids, database, by="person")
    done |= await _walk_keys_and_webhooks(boss, ids, database)
    call = Call(
        "POST", f"{C}/training/{{job_id}}/decision", "job.approved", {"decision": "approved"}
    )
    later = {**ids, "job_id": ids["waiting_for_decision"]}
    done |= await walk(boss, [call], later, database, by="person")

    # those who sign in, and out
    answer = await enter(browser, "ana@example.com")
    assert answer.status_code == 303
    [entry] = [
        each for each in await newest(database) if each.request_id == answer.headers["x-request-id"]
    ]
    assert entry.text == "Ana (ana@example.com) signed in."
    link = await make_link("ana@example.com")
    token = token_in(await browser.get(link))
    used = await browser.post(link, data={"csrf_token": token, "name": "Ana", "password": PASSWORD})
    assert used.status_code == 303
    assert {each.action for each in (await newest(database))[:2]} == {
        "sign_in.succeeded",
        "person.password_set",
    }
    done |= {"POST /console/sign-in", "POST /console/link/{token}"}
    done |= await walk(boss, [Call("POST", f"{P}/sign-out", "person.signed_out")], ids, database, by="person")  # fmt: skip
    other = await sign_in("acme", "viewer")
    async with database.transaction() as session:
        me = await people.get_by_email(session, "acme-viewer@example.com")
        await sessions.begin(session, me, address="", agent="Another")
        await sessions.begin(session, me, address="", agent="A third")
        [_, last, *_] = await sessions.list_for(session, me.id)
    ids["session_id"] = last.id
    done |= await walk(
        other,
        [
            Call("POST", "/console/account/sessions/{session_id}/end", "sign_in.ended"),
            Call("POST", "/console/account/sign-out-others", "person.signed_out"),
            Call("POST", "/console/account/password", "person.password_set", {"current": "", "password": PASSWORD}),
        ],
        ids,
        database,
        by="person",
    )  # fmt: skip
    done |= await walk(boss, [Call("POST", "/console/sign-out", "sign_in.ended")], ids, database, by="person")  # fmt: skip
    done = {each.replace("/uploads/{last}/", "/uploads/{upload_id}/") for each in done}
    assert done | {each for each in NOT_RECORDED if " /console" in each} == unsafe_routes(
        app, "/console"
    )
    _expect_no_secret(await newest(database, 1000))


async def _walk_keys_and_webhooks(boss: Any, ids: dict[str, str], database: Any) -> set[str]:
    hook = {"url": "https://hooks.example.com/x", f"event-{EVENT_TYPES[0]}": "yes"}
    done = await walk(
        boss,
        [
            Call("POST", f"{C}/keys", "key.created", {"label": "Shop", "scope-chat": "yes", "expires": "90"}),
            Call("POST", "/console/keys", "key.created", {"label": "Nightly"}),
            Call("POST", f"{C}/webhooks", "webhook.created", hook),
        ],
        ids,
        database,
        by="person",
    )  # fmt: skip
    async with database.reading() as session:
        tenant = await tenants.get(session, "acme")
        [theirs], [ours] = [await keys.list_for(session, of) for of in (tenant, None)]
        [endpoint] = await webhooks.list_for(session, "acme")
    made = {**ids, "hook_id": endpoint.id}
    for path, key in ((f"{C}/keys", theirs.id), ("/console/keys", ours.id)):
        done |= await walk(
            boss,
            [
                Call("POST", f"{path}/{{key_id}}/rotate", "key.rotated", {"overlap": "3600"}),
                Call("POST", f"{path}/{{key_id}}/revoke", "key.revoked", {"confirm": "yes"}),
                Call("POST", f"{path}/{{key_id}}/restore", "key.restored"),
            ],
            {**made, "key_id": key},
            database,
            by="person",
        )
    return done | await walk(
        boss,
        [
            Call("POST", f"{C}/webhooks/{{hook_id}}", "webhook.changed", {**hook, "url": "https://hooks.example.com/y"}),
            Call("POST", f"{C}/webhooks/{{hook_id}}/off", "webhook.changed"),
            Call("POST", f"{C}/webhooks/{{hook_id}}/on", "webhook.changed"),
            Call("POST", f"{C}/webhooks/{{hook_id}}/secret", "webhook.secret_rotated", {"overlap": "3600"}),
            Call("POST", f"{C}/webhooks/{{hook_id}}/delete", "webhook.deleted", {"confirm": "yes"}),
        ],
        made,
        database,
        by="person",
    )  # fmt: skip


async def test_no_change_over_the_api_goes_unrecorded(
    app: Any, database: Any, client: Any, *, make_key: Any, ids: dict[str, str]
) -> None:
    sent = {"headers": await make_key()}
    hook = {"url": "https://hooks.example.com/services/T0/very-secret", "events": list(EVENT_TYPES)}
    done = await walk(
        client,
        [
            Call("POST", "/admin/tenants", "tenant.created", {"slug": "zoo"}),
            Call("DELETE", "/admin/tenants/{slug}", "tenant.deleted"),
        ],
        {**ids, "slug": "zoo"},
        database,
        by="operator_key",
        **sent,
    )
    done |= await walk(
        client,
        [
            Call("PATCH", A, "tenant.changed", {"name": "Acme Ltd", "limits": {"tokens_per_day": 9}}),
            Call("POST", f"{A}/transcripts", "transcripts.uploaded", files={"file": ("b.jsonl", CHATS)}),
            Call("DELETE", f"{A}/imports/{{last}}", "transcripts.deleted"),
            Call("POST", f"{A}/knowledge", "knowledge.uploaded", files={"file": ("a.md", b"# A")}),
            Call("DELETE", f"{A}/knowledge/uploads/{{last}}", "knowledge.cancelled"),
            Call("DELETE", f"{A}/knowledge/{{article_id}}", "knowledge.deleted"),
            Call("POST", f"{A}/curation/decisions", "transcripts.doubt_decided", {"rule": "greeting", "text": "Kasimir", "decision": "reject"}),
            Call("PUT", f"{A}/curation/rules", "transcripts.rules_changed", {"cut_off": "ask"}),
            Call("POST", f"{A}/jobs", "job.started", {"recipe": "cpu-demo"}),
            Call("POST", f"{J}/pause", "job.paused"),
            Call("POST", f"{J}/resume", "job.resumed"),
            Call("POST", f"{J}/cancel", "job.cancelled"),
            Call("POST", f"{A}/promote", "adapter.promoted", {"version": 1}),
            Call("POST", f"{A}/promote", "adapter.promoted", {"version": 2}),
            Call("POST", f"{A}/rollback", "adapter.rolled_back"),
            Call("PUT", f"{A}/canary", "adapter.canary_started", {"version": 2, "percent": 5}),
            Call("DELETE", f"{A}/canary", "adapter.canary_ended"),
            Call("DELETE", f"{A}/adapters/{{version}}", "adapter.deleted"),
            Call("POST", f"{A}/heads", "head.uploaded", files={"file": ("a.jsonl", as_file(texts())), "task": (None, "annoyance")}),
            Call("POST", f"{A}/heads/promote", "head.promoted", {"task": "annoyance", "version": 1}),
            Call("POST", f"{A}/heads/promote", "head.promoted", {"task": "annoyance", "version": 2}),
            Call("PUT", f"{A}/heads/rules", "head.rules_changed", {"task": "annoyance", "rules": [{"label": "annoyed", "at_least": 0.8}]}),
            Call("POST", f"{A}/heads/rollback", "head.rolled_back", {"task": "annoyance"}),
            Call("POST", f"{A}/heads/retire", "head.retired", {"task": "annoyance"}),
            Call("DELETE", f"{A}/heads/{{task}}/{{version}}", "head.deleted"),
            Call("PUT", f"{A}/heads/shared", "head.sharing_changed", {"task": "annoyance", "use": False}),
            Call("POST", "/admin/heads", "head.uploaded", files={"file": ("a.jsonl", as_file(texts())), "task": (None, "annoyance")}),
            Call("POST", "/admin/heads/promote", "head.promoted", {"task": "sentiment", "version": 1}),
            Call("POST", "/admin/heads/promote", "head.promoted", {"task": "sentiment", "version": 2}),
            Call("POST", "/admin/heads/rollback", "head.rolled_back", {"task": "sentiment"}),
            Call("POST", "/admin/heads/retire", "head.retired", {"task": "sentiment"}),
            Call("DELETE", "/admin/heads/{task}/{shared}", "head.deleted"),
            Call("POST", f"{A}/keys", "key.created", {"label": "helpdesk"}),
            Call("POST", f"{A}/keys/{{last}}/rotate", "key.rotated", {"overlap_seconds": 60}),
            Call("DELETE", f"{A}/keys/{{last}}", "key.revoked"),
            Call("POST", f"{A}/webhooks", "webhook.created", hook),
            Call("PATCH", f"{A}/webhooks/{{last}}", "webhook.changed", {"enabled": False}),
            Call("POST", f"{A}/webhooks/{{last}}/rotate-secret", "webhook.secret_rotated", {"overlap_seconds": 0}),
            Call("DELETE", f"{A}/webhooks/{{last}}", "webhook.deleted"),
        ],
        {**ids, "version": "2", "task": "annoyance", "shared": "1"},
        database,
        by="operator_key",
        **sent,
    )  # fmt: skip
    imported = {**ids, "conversation_id": ids["row_id"]}
    path = f"{A}/curation/conversations/{{conversation_id}}"
    call = Call("PUT", path, "transcripts.conversation_chosen", {"keep": False})
    done |= await walk(client, [call], imported, database, by="operator_key", **sent)
    later = {**ids, "job_id": ids["waiting_for_decision"]}
    call = Call("POST", f"{J}/decision", "job.rejected", {"decision": "rejected"})
    done |= await walk(client, [call], later, database, by="operator_key", **sent)
    done = {
        re.sub(r"/(\w+)/\{last\}", lambda of: f"/{of[1]}/{{{PARAMETERS[of[1]]}}}", each)
        for each in done
    }
    done = {each.replace("{task}/{shared}", "{task}/{version}") for each in done}
    assert done | {each for each in NOT_RECORDED if " /admin" in each} == unsafe_routes(
        app, "/admin"
    )
    found = await newest(database, 1000)
    _expect_no_secret(found)
    assert "very-secret" not in str(found)
    limits = next(each for each in found if each.action == "tenant.limits_changed")
    assert limits.tenant == "acme"


async def test_a_key_acts_in_its_tenant_under_its_label(
    client: Any, database: Any, make_tenant: Any, operator: Any
) -> None:
    await make_tenant()
    made = await client.post(
        f"{A.format(slug='acme')}/keys",
        json={"label": "robot", "scopes": ["admin"]},
        headers=operator,
    )
    key = {"authorization": f"Bearer {made.json()['key']}"}
    await client.patch("/admin/tenants/acme", json={"name": "Robots"}, headers=key)
    [entry] = await newest(database, 1)
    assert entry.text == "An API key, robot changed settings of the tenant acme."
    refused = await client.patch("/admin/tenants/acme", json={"limits": None}, headers=key)
    assert refused.status_code == 403
    assert await newest(database, 1) == [entry]


async def test_files_of_the_api_are_recorded(
    client: Any, database: Any, make_tenant: Any, make_key: Any
) -> None:
    await make_tenant()
    key = await make_key("acme", "train")
    sent = await client.post(
        "/v1/files", files={"file": ("t.jsonl", CHATS)}, data={"purpose": "user_data"}, headers=key
    )
    await client.delete(f"/v1/files/{sent.json()['id']}", headers=key)
    assert [
        (each.action, each.subject and each.subject.name, each.actor.kind)
        for each in await newest(database, 2)
    ] == [
        ("file.deleted", "t.jsonl", "key"),
        ("file.created", "t.jsonl", "key"),
    ]


def _expect_no_secret(found: list[AuditEntryView]) -> None:
    text = str(found)
    assert len(found) > 20
    # prefixes of keys are shown, 8 characters of 43, and nothing longer
    for secret in (
        r"tt_(?:admin_)?[0-9A-Za-z]{9}",
        "whsec_",
        "tt_jwt_",
        "tt_link_",
        "tt_session_",
        PASSWORD,
    ):
        assert not re.search(secret, text), secret
