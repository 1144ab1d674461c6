"""The served document is complete and true, and its page needs nothing from elsewhere."""

import asyncio
import base64
import hashlib
import inspect
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jsonschema
import pytest
import pytest_asyncio
import schemathesis
from litestar import Litestar, post
from litestar.routes import HTTPRoute
from structlog.testing import capture_logs

from server.api.reference.document import METHODS, build, operations
from server.api.reference.html import html
from server.api.reference.text import summary_and_description
from server.app import create_app
from server.auth.schemas import SCOPES
from server.db.session import Database
from server.settings import Settings
from tests.server.api.reference.schema_cases import KEY_OF_ITS_OWN, MEANINGFUL, Outcome, Plan, run
from tests.server.serving import Serving, serving

Document = dict[str, Any]
# free-form on purpose: a report's type would load the page templates with every start
FREE_ANSWERS = {"adapter_report"}
UNLISTED = ("/internal", "/docs", "/openapi.json", "/console", "/widget", "/static")


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One kind of database is enough here."""
    return sqlite_url


@pytest.fixture
def document(app: Litestar) -> Document:
    return build(app)


@pytest_asyncio.fixture
async def acme(make_tenant, operator) -> dict[str, str]:
    """A tenant, and the operator's header."""
    await make_tenant()
    header: dict[str, str] = operator
    return header


@pytest_asyncio.fixture
async def server(settings: Settings, database: Database) -> AsyncIterator[Serving]:
    """A server whose engine is done at once."""
    with capture_logs():
        async with serving(settings, database, tokens_per_second=1e6) as made:
            yield made


def each(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def contents(operation: Document) -> Iterator[tuple[str, Document]]:
    """(media type, schema) of everything that an operation takes and gives."""
    holders = [operation.get("requestBody", {}), *operation["responses"].values()]
    for holder in holders:
        for media_type, content in holder.get("content", {}).items():
            yield media_type, content["schema"]


def validator(document: Document, schema: Document) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]})


def test_every_public_route_is_in_the_document_and_no_other(
    app: Litestar, document: Document
) -> None:
    served = {
        (method, route.path_format)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method in route.methods
        if method in METHODS and not route.path.startswith(UNLISTED)
    }
    assert {(method, path) for method, path, _ in each(document)} == served
    assert len(served) > 30


def test_it_is_a_valid_document_with_every_reference_resolved(document: Document) -> None:
    schemathesis.openapi.from_dict(document).validate()
    for reference in set(re.findall(r'"#/([^"]+)"', json.dumps(document))):
        found: Any = document
        for part in reference.split("/"):
            found = found[part]


def test_every_operation_says_what_it_does_under_a_name_of_its_own(document: Document) -> None:
    names = [operation["operationId"] for _, _, operation in each(document)]
    assert len(names) == len(set(names))
    for method, path, operation in each(document):
        where = f"{method} {path}"
        assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", operation["operationId"]), where
        assert len(operation["summary"]) > 5, where
        assert not operation["summary"][0].islower(), where
        assert "``" not in operation["summary"] + operation["description"], where
        assert "Raises:" not in operation["description"], where


def test_every_chapter_says_what_it_is_about(document: Document) -> None:
    told = {tag["name"] for tag in document["tags"] if tag["description"]}
    assert {tag for _, _, operation in each(document) for tag in operation["tags"]} == told


def test_nothing_that_is_taken_or_given_is_of_any_type(document: Document) -> None:
    for method, path, operation in each(document):
        for media_type, schema in contents(operation):
            free = schema in ({}, {"type": "object"})
            assert not free or operation["operationId"] in FREE_ANSWERS, (method, path, media_type)


def test_who_reads_the_raw_request_says_what_is_in_it(app: Litestar) -> None:
    for operation in operations(app):
        if (
            operation.method != "GET"
            and "request" in operation.handler.parsed_fn_signature.parameters
        ):
            declared = {"body", "form", "raw"} & operation.handler.opt.keys()
            assert declared, f"{operation.method} {operation.path}"


def test_a_key_is_asked_for_where_one_is_needed(document: Document) -> None:
    for method, path, operation in each(document):
        where = f"{method} {path}"
        if path == "/metrics":  # none from private addresses
            assert operation["security"] == [{"bearer": ["operator"]}, {}]
            assert "operator" in operation["description"]
            assert {"401", "403"} <= operation["responses"].keys()
        elif path.startswith("/health"):
            assert operation["security"] == [], where
            assert "401" not in operation["responses"], where
        else:
            ((name, scopes),) = operation["security"][0].items()
            assert name == "bearer", where
            assert len(scopes) == 1, where
            assert scopes[0] in operation["description"], where
            assert {"401", "403", "429", "503"} <= operation["responses"].keys(), where


def test_bounds_of_the_types_are_bounds_of_the_document(document: Document) -> None:
    schemas = document["components"]["schemas"]
    body = schemas["CompletionBody"]
    assert body["additionalProperties"] is False
    assert {"model", "messages"} <= set(body["required"])
    temperature = {"type": "number", "minimum": 0, "maximum": 2}
    assert body["properties"]["temperature"]["anyOf"][0] == temperature
    assert body["properties"]["messages"]["maxItems"] == 1000
    slug = schemas["TenantRequest"]["properties"]["slug"]
    assert {"pattern", "minLength", "maxLength", "description"} <= slug.keys()


def test_answers_promise_every_field_that_is_always_there(document: Document) -> None:
    schemas = document["components"]["schemas"]
    assert set(schemas["Model"]["required"]) == {"id", "object", "created", "owned_by"}
    # the server leaves these out where there is nothing to say
    assert "role" not in schemas["Delta"].get("required", ())
    assert "usage" not in schemas["ChatCompletionChunk"]["required"]


def test_every_media_type_is_one(document: Document) -> None:
    named = {
        name
        for path in document["paths"].values()
        for operation in path.values()
        for answer in [operation.get("requestBody", {}), *operation["responses"].values()]
        for name in answer.get("content", {})
    }
    assert all(re.fullmatch(r"[a-z]+/[a-z.+-]+", name) for name in named), named


def test_a_chat_is_answered_with_json_or_with_events(document: Document) -> None:
    operation = document["paths"]["/v1/chat/completions"]["post"]
    content = operation["responses"]["200"]["content"]
    assert content["application/json"]["schema"]["$ref"].endswith("/ChatCompletion")
    data = content["text/event-stream"]["schema"]["properties"]["data"]
    assert data["anyOf"][0]["contentSchema"]["$ref"].endswith("/ChatCompletionChunk")
    assert {"const": "[DONE]"} in data["anyOf"]


@pytest.mark.parametrize("path", ["/v1/models/none", "/admin/tenants/none"])
async def test_errors_have_the_described_shape(client, make_tenant, make_key, document, path):
    await make_tenant()
    header = await make_key("acme", "chat", "train")
    for headers, status in ((header, 404), ({}, 401)):
        answer = await client.get(path, headers=headers)
        assert answer.status_code == status
        template = "/v1/models/{model}" if path.startswith("/v1") else "/admin/tenants/{slug}"
        reference = document["paths"][template]["get"]["responses"][str(status)]["$ref"]
        described = document["components"]["responses"][reference.rpartition("/")[2]]
        media_type = answer.headers["content-type"].partition(";")[0]
        validator(document, described["content"][media_type]["schema"]).validate(answer.json())
        required = {
            name
            for name, header in document["components"]["headers"].items()
            if name in described["headers"] and header.get("required")
        }
        assert required <= answer.headers.keys()


async def test_the_document_is_open_to_all_and_the_same_everywhere(client, settings, database):
    first, again = await client.get("/openapi.json"), await client.get("/openapi.json")
    assert first.status_code == 200
    assert first.headers["content-type"].startswith("application/json")
    assert first.content == again.content
    assert first.json() == json.loads(json.dumps(build(create_app(settings, database=database))))
    assert "/internal" not in first.text


def test_two_operations_of_one_name_are_refused(settings: Settings) -> None:
    @post("/v1/a")
    async def create_thing() -> str:
        return ""

    @post("/v1/b", operation_id="create_thing")
    async def other() -> str:
        return ""

    with pytest.raises(ValueError, match="create_thing names both POST /v1/a and POST /v1/b"):
        build(Litestar([create_thing, other], openapi_config=None))


async def test_the_page_runs_nothing_and_asks_for_nothing_from_elsewhere(client):
    answer = await client.get("/docs")
    page = answer.text
    assert answer.status_code == 200
    assert not re.search(r"<(script|link|img|iframe|object|form)\b|\bon\w+=|style=|url\(", page)
    links = set(re.findall(r'\b(?:href|src)="([^"]*)"', page))
    assert {link for link in links if not link.startswith("#")} == {"openapi.json"}
    assert "@import" not in page
    policy = answer.headers["content-security-policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in policy


async def test_the_page_shows_every_operation_and_schema_and_its_links_lead_somewhere(client):
    page = (await client.get("/docs")).text
    document = (await client.get("/openapi.json")).json()
    anchors = re.findall(r'\bid="([^"]+)"', page)
    assert len(anchors) == len(set(anchors))
    assert {operation["operationId"] for _, _, operation in each(document)} <= set(anchors)
    assert {f"schema-{name}" for name in document["components"]["schemas"]} <= set(anchors)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(anchors)


async def test_the_page_gives_a_command_that_the_schema_accepts(client):
    page = (await client.get("/docs")).text
    document = (await client.get("/openapi.json")).json()
    commands = re.findall(r"<h4>Example</h4>\n<pre><code>(.*?)</code></pre>", page, re.DOTALL)
    assert len(commands) == len(list(each(document)))
    (chat,) = [
        command
        for command in commands
        if "/v1/chat/completions&#34; " in command and "-d" in command
    ]
    text = chat.replace("&#39;", "'").replace("&#34;", '"')
    body = json.loads(text.partition("-d '")[2].removesuffix("'"))
    schema = {"$ref": "#/components/schemas/CompletionBody"}
    validator(document, schema).validate(body)
    assert body["messages"][0]["content"]


def test_descriptions_become_html_and_nothing_else_does() -> None:
    assert (
        html("a <b> `c<d>` **e**", inline=True)
        == "a &lt;b&gt; <code>c&lt;d&gt;</code> <strong>e</strong>"
    )
    assert html("one\n\ntwo") == "<p>one</p>\n<p>two</p>\n"
    assert html("- one\n- two").count("<li>") == 2
    assert html("one\n\n    `two` of a docstring") == (
        "<p>one</p>\n<p><code>two</code> of a docstring</p>\n"
    )
    assert "<a" not in html("[x](javascript:alert(1)) <a href='y'>z</a>")


def test_descriptions_have_no_indentation_of_the_source(document: Document) -> None:
    def descriptions(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(text := node.get("description"), str):
                yield text
            node = list(node.values())
        if isinstance(node, list):
            for inner in node:
                yield from descriptions(inner)

    found = list(descriptions(document["components"]["schemas"]))
    assert sum("\n\n" in text for text in found) > 10
    for text in found:
        assert text == inspect.cleandoc(text)


def test_docstrings_lose_what_only_python_callers_need() -> None:
    text = "Do ``it``.\n\n    More.\n\n    Raises:\n        Invalid: never.\n    "
    assert summary_and_description(text) == ("Do `it`", "More.")
    assert summary_and_description(None) == ("", "")


async def test_options_names_every_method_of_a_path(client, acme):
    answer = await client.options("/admin/tenants/acme/keys", headers=acme)
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    answer = await client.options("/admin/tenants")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    refused = await client.put("/admin/tenants")
    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) >= {"GET", "HEAD", "POST"}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("promote", {"version": "1"}, "version"),
        ("promote", {"version": 1, "force": 0}, "force"),
        ("promote", {"version": 1, "wrong": 0}, "wrong"),
        ("promote", {}, "version"),
        ("jobs", {"require_approval": 1}, "require_approval"),
        ("jobs", {"seed": 1 << 40}, "seed"),
        ("jobs", {"recipe": "no such"}, "recipe"),
    ],
)
async def test_admin_bodies_are_read_as_strictly_as_they_are_described(
    client, acme, path, body, param
):
    answer = await client.post(f"/admin/tenants/acme/{path}", json=body, headers=acme)
    assert answer.status_code == 400
    assert answer.json()["param"] == param


async def test_an_optional_body_may_be_left_out(client, acme):
    answer = await client.post("/admin/tenants/acme/rollback", headers=acme)
    assert answer.status_code == 409
    broken = await client.post("/admin/tenants/acme/rollback", content=b"{", headers=acme)
    assert broken.json()["code"] == "invalid_json"


async def test_an_empty_upload_is_refused(client, acme):
    for sent in ({"content": b""}, {"files": {"file": ("a.jsonl", b"")}}):
        answer = await client.post("/admin/tenants/acme/transcripts", headers=acme, **sent)
        assert answer.status_code == 400
        assert answer.json()["param"] == "file"


# python -m tests.bench.schema_cases makes thousands of these


async def ask(server: Serving, **plan: Any) -> Outcome:
    outcome = await asyncio.to_thread(run, server.url, Plan(**plan))
    assert not outcome.failures, "\n\n".join(map("\n".join, outcome.failures.items()))
    return outcome


@pytest.mark.timeout(300)  # over a thousand requests
async def test_a_tenants_key_is_answered_as_the_document_says(server: Serving) -> None:
    await server.tenant()
    await server.adapter()
    key = await server.key("acme", *SCOPES)
    plan = {"key": key, "slug": "acme", "model": "acme", "leave_out": KEY_OF_ITS_OWN}
    asked = await ask(server, **plan, examples=3)
    assert asked.cases > 1000
    answered = await ask(server, **plan, examples=9, meaningful=True)
    for path in MEANINGFUL:
        assert answered.good[f"POST {path}"] > 3, path


@pytest.mark.timeout(300)  # over a thousand requests
async def test_the_operators_key_is_answered_as_the_document_says(server: Serving) -> None:
    outcome = await ask(server, key=await server.key(None), examples=5, coverage=False)
    assert outcome.cases > 200
    assert outcome.statuses[201] > 1
