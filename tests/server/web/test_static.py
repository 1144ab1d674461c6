"""The pages' files: found by content, compressed, kept for good."""

import gzip
import re
from pathlib import Path

import pytest

from server.web.static import FOLDERS, StaticFiles, static_files

TEMPLATES = Path(__file__).parents[3] / "server" / "web"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


async def test_a_file_is_kept_for_good_and_sent_compressed(client):
    url = static_files().url("console.css")
    answer = await client.get(url, headers={"accept-encoding": "br, gzip"})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert answer.headers["vary"] == "accept-encoding"
    assert answer.content == static_files()["console.css"].content
    assert int(answer.headers["content-length"]) < len(answer.text) / 2


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("*", True),
        ("gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("", False),
        ("br", False),
    ],
)
async def test_a_file_is_compressed_only_for_those_who_take_it(client, accepted, compressed):
    answer = await client.get(
        static_files().url("icons.svg"), headers={"accept-encoding": accepted}
    )
    assert ("content-encoding" in answer.headers) is compressed
    assert answer.text.startswith("<svg")


async def test_a_file_that_is_known_is_not_sent_again(client):
    url = static_files().url("console.js")
    known = (await client.get(url)).headers["etag"]
    again = await client.get(url, headers={"if-none-match": known})
    assert (again.status_code, again.content) == (304, b"")
    changed = await client.get(url, headers={"if-none-match": '"other"'})
    assert changed.status_code == 200


async def test_a_page_of_another_version_gets_a_file_that_is_not_kept(client):
    answer = await client.get("/static/0123456789abcdef/console.css")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "path", ["nothing.css", "vendor.toml", "htmx.LICENSE", "..%2Fheaders.py", "%2e%2e/static.py"]
)
async def test_nothing_else_is_served(client, path):
    answer = await client.get(f"/static/{static_files().hash}/{path}")
    assert answer.status_code == 404


def test_the_address_changes_with_any_file(tmp_path):
    (tmp_path / "a.js").write_text("1")
    (tmp_path / "b.css").write_text("2")
    before = StaticFiles([tmp_path])
    (tmp_path / "b.css").write_text("3")
    after = StaticFiles([tmp_path])
    assert before.url("a.js") != after.url("a.js")
    assert gzip.decompress(after["b.css"].compressed) == b"3"


def test_scripts_are_sent_without_what_only_their_readers_need(tmp_path):
    (tmp_path / "a.js").write_text("// why\nif (a) {\n  /** How. */\n  go(); // now\n}\n")
    (tmp_path / "b.min.js").write_text("  // as published\n")
    files = StaticFiles([tmp_path])
    assert files["a.js"].content == b"\nif (a) {\n\ngo(); // now\n}\n"
    assert files["b.min.js"].content == b"  // as published\n"


def test_two_files_of_one_name_are_refused(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.js").write_text(folder)
    with pytest.raises(ValueError, match=r"two static files are called a\.js"):
        StaticFiles([tmp_path / "one", tmp_path / "two"])


def test_a_name_that_is_not_there_is_an_error():
    with pytest.raises(KeyError, match=r"no static file is called 'nothing\.js'"):
        static_files().url("nothing.js")


def test_every_file_that_templates_name_exists():
    named = {
        (template.name, name)
        for template in TEMPLATES.rglob("*.html")
        for name in re.findall(r"static\(\s*['\"]([^'\"]+)['\"]", template.read_text())
    }
    assert ("base.html", "console.css") in named
    for template, name in named:
        assert static_files().url(name), template


def test_every_icon_that_templates_and_pages_name_exists():
    sprite = (FOLDERS[0] / "icons.svg").read_text()
    have = set(re.findall(r'<symbol id="(\w+)"', sprite))
    used = {
        name
        for template in TEMPLATES.rglob("*.html")
        for name in re.findall(r"\bicon(?:\(|=)\s*\"(\w+)\"", template.read_text())
    }
    assert "brand" in used
    assert used <= have
