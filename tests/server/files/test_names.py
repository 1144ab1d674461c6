"""Names of uploaded files are cleaned by one rule, wherever they come in and wherever they are shown."""

import unicodedata
from typing import Any
from urllib.parse import quote

import pytest
from httpx2 import AsyncClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from server.cli.console import escape_controls
from server.db.models import File, SourceFile
from server.db.session import Database
from server.files.names import MAX_NAME, clean_name

CASES = [
    ("a.csv", "a.csv"),
    ("../../etc/passwd", "passwd"),
    (r"C:\exports\März.csv", "März.csv"),
    ("line\r\none\n.csv", "lineone.csv"),
    ("photo\u202egnp.exe", "photognp.exe"),
    ("\u2066a\u2069\u200e\u200f\u061c.csv", "a.csv"),
    ("zero\u200b\u200d\ufeff\u00adwidth\u2060.csv", "zerowidth.csv"),
    ("tag\U000e0041\U000e007f.csv", "tag.csv"),
    ("two\u2028lines\u2029.csv", "twolines.csv"),
    ("nul\x00bell\x07\x1b[31mred\x85.csv", "nulbell[31mred.csv"),
    ("half\ud800.csv", "half.csv"),
    ("no\u00a0break\u3000wide\u202f.csv", "no break wide .csv"),
    ("e\u0301te\u0301.csv", "\u00e9t\u00e9.csv"),
    ("  a.csv  ", "a.csv"),
    ("要望.csv", "要望.csv"),
    ("x" * 300 + ".csv", "x" * (MAX_NAME - 4) + ".csv"),
    ("", "file"),
    ("folder/", "file"),
    ("..", "file"),
    ("\u202e\n", "file"),
]


@pytest.mark.parametrize(("given_name", "clean"), CASES)
def test_a_name_is_one_line_that_can_be_seen(given_name: str, clean: str) -> None:
    assert clean_name(given_name) == clean


@given(st.text(max_size=400))
def test_a_clean_name_is_clean_whatever_came(name: str) -> None:
    clean = clean_name(name)
    assert clean_name(clean) == clean
    assert 0 < len(clean) <= MAX_NAME
    kinds = {unicodedata.category(character) for character in clean}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not set(clean) & set("/\\")
    clean.encode()


WRONG, RIGHT = "exports/a\n\u202evsc.exe", "avsc.exe"


@pytest.fixture
async def headers(make_tenant: Any, make_key: Any) -> dict[str, str]:
    await make_tenant("acme")
    header: dict[str, str] = await make_key("acme", "train")
    return header


async def test_every_door_stores_and_shows_the_clean_name(
    client: AsyncClient, headers: dict[str, str], database: Database
) -> None:
    made = await client.post(
        "/v1/uploads",
        json={"bytes": 1, "filename": WRONG, "mime_type": "text/plain", "purpose": "batch"},
        headers=headers,
    )
    raw = await client.post(
        f"/admin/tenants/acme/transcripts?filename={quote(WRONG)}", content=b"{}", headers=headers
    )
    boundary = "xyz"
    form = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; '
        'filename="exports/a\u202evsc.exe"\r\n\r\n{}\n\r\n'
        f"--{boundary}--\r\n"
    ).encode()
    kind = {"content-type": f"multipart/form-data; boundary={boundary}"}
    file = await client.post("/v1/files", content=form, headers=headers | kind)
    for answer in (made, raw, file):
        assert answer.status_code < 300, answer.text
        assert answer.json()["filename"] == RIGHT
    async with database.reading() as session:
        for row in (File, SourceFile):
            names = await session.scalars(select(row.filename))
            assert names.all() == [RIGHT]


async def test_names_that_were_stored_before_are_shown_clean(
    client: AsyncClient, headers: dict[str, str], database: Database
) -> None:
    form: dict[str, Any] = {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", b"{}\n")}}
    made = (await client.post("/v1/files", headers=headers, **form)).json()
    await client.post("/admin/tenants/acme/transcripts", content=b"{}", headers=headers)
    async with database.transaction() as session:
        for row in (File, SourceFile):
            await session.execute(update(row).values(filename=WRONG))
    shown = await client.get(f"/v1/files/{made['id']}", headers=headers)
    assert shown.json()["filename"] == RIGHT
    listed = await client.get("/admin/tenants/acme/imports", headers=headers)
    assert listed.json()[0]["filename"] == RIGHT
    content = await client.get(f"/v1/files/{made['id']}/content", headers=headers)
    assert content.headers["content-disposition"].endswith(f"''{RIGHT}")


def test_a_terminal_is_not_turned_around() -> None:
    assert escape_controls("a\u202eb\u2066c\nd") == r"a\u202eb\u2066c\nd"
    assert escape_controls("a\u202eb\nc", lines=True) == "a\\u202eb\nc"
    assert escape_controls("مرحبا é \u200d") == "مرحبا é \u200d"
