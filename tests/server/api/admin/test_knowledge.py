"""Knowledge over HTTP: from an upload to what a question finds."""

from typing import Any

import pytest
from litestar import Litestar

from server.app import create_app
from server.embeddings.service import build_embeddings
from server.knowledge import importing
from server.settings import Settings

URL = "/admin/tenants/acme/knowledge"
RETURNS = b"# Returns\n\n## How long\n\nYou have thirty days.\n\n## Cost\n\nReturns are free.\n"


@pytest.fixture
def embeddings(settings: Settings):
    return build_embeddings(Settings(home=settings.home, engine="fake"))


@pytest.fixture
def app(settings, database, blobs, embeddings) -> Litestar:
    return create_app(settings, database=database, blobs=blobs, embeddings=embeddings)


@pytest.fixture
async def key(make_tenant, make_key):
    await make_tenant("acme")
    return await make_key("acme", "train")


@pytest.fixture
def read(client, key, database, *, settings, blobs, embeddings):
    """Do the work of an upload; returns it as it is then."""

    async def work(upload: dict[str, Any]) -> Any:
        await importing.run_upload(
            database, upload["id"], settings=settings, embeddings=embeddings, blobs=blobs
        )
        return (await client.get(f"{URL}/uploads/{upload['id']}", headers=key)).json()

    return work


async def send(client, key, data: bytes = RETURNS, filename: str = "returns.md", **fields) -> Any:
    answer = await client.post(URL, files={"file": (filename, data)}, data=fields, headers=key)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def test_an_article_is_uploaded_read_found_and_deleted(client, key, read):
    upload = await send(client, key)
    assert (upload["state"], upload["report"]) == ("queued", None)
    upload = await read(upload)
    assert (upload["state"], upload["chunks"], upload["embedded"]) == ("done", 2, 2)
    [article] = (await client.get(URL, headers=key)).json()
    assert article["name"] == "returns.md"
    assert (article["current"]["version"], article["coming"]) == (1, None)
    one = f"{URL}/{article['id']}"
    await read(await send(client, key, RETURNS.replace(b"thirty", b"sixty")))
    history = (await client.get(one, headers=key)).json()
    assert [each["version"] for each in history["versions"]] == [2, 1]
    chunks = (await client.get(f"{one}/chunks", headers=key)).json()
    assert [each["text"] for each in chunks] == ["You have sixty days.", "Returns are free."]
    first = (await client.get(f"{one}/chunks?version=1&limit=1", headers=key)).json()
    assert [each["text"] for each in first] == ["You have thirty days."]
    rest = (await client.get(f"{one}/chunks?version=1&after=0", headers=key)).json()
    assert [each["ordinal"] for each in rest] == [1]
    found = (await client.get(f"{URL}/search?q=how long sixty days&count=1", headers=key)).json()
    assert [(each["text"], each["version"]) for each in found] == [("You have sixty days.", 2)]
    used = (await client.get(f"{URL}/usage", headers=key)).json()
    assert (used["articles"], used["chunks"], used["max_chunks"]) == (1, 2, 100_000)
    assert (await client.delete(one, headers=key)).status_code == 204
    assert (await client.get(f"{URL}/search?q=sixty days", headers=key)).json() == []
    assert (await client.get(one, headers=key)).status_code == 404


async def test_lists_go_on_behind_the_last_id(client, key, database):
    for number in range(3):
        await send(client, key, filename=f"{number}.md", data=f"# {number}".encode())
    first = (await client.get(f"{URL}/uploads?limit=2", headers=key)).json()
    assert [each["filename"] for each in first] == ["2.md", "1.md"]
    rest = (await client.get(f"{URL}/uploads?limit=2&after={first[-1]['id']}", headers=key)).json()
    assert [each["filename"] for each in rest] == ["0.md"]


async def test_an_upload_is_stopped_once(client, key):
    upload = await send(client, key)
    stopped = await client.delete(f"{URL}/uploads/{upload['id']}", headers=key)
    assert stopped.json()["state"] == "cancelled"
    again = await client.delete(f"{URL}/uploads/{upload['id']}", headers=key)
    assert (again.status_code, again.json()["code"]) == (409, "upload_ended")


async def test_what_is_too_large_or_not_asked_is_refused(client, key, monkeypatch):
    monkeypatch.setattr("server.knowledge.service.MAX_FILE_BYTES", 100)
    answer = await client.post(URL, content=b"a" * 200_000, headers=key)
    assert answer.status_code == 413
    assert "100 bytes" in answer.text
    assert (await client.get(f"{URL}/search", headers=key)).status_code == 400
    assert (await client.get(f"{URL}/search?q=%20", headers=key)).status_code == 400
    assert (await client.get(f"{URL}/search?q=a&count=51", headers=key)).status_code == 400


async def test_a_name_given_with_the_file_is_the_articles(client, key, read):
    upload = await send(client, key, filename="x.md", name="How to send back")
    await read(upload)
    [article] = (await client.get(URL, headers=key)).json()
    assert article["name"] == "How to send back"
    [named] = (await client.get(f"{URL}?name=How to send back", headers=key)).json()
    assert named["id"] == article["id"]
