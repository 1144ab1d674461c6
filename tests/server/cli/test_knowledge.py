"""``tenantune knowledge``, without a worker."""

import json
from pathlib import Path

import pytest

from tests.server.cli.running import made, running


@pytest.fixture
def run(tmp_path: Path):
    with running(tmp_path / "home", {"TENANTUNE_ENGINE": "fake"}) as call:
        made(call, "tenants", "create", "acme", "--name", "Acme")
        yield call


def test_articles_are_added_found_shown_and_removed(run, tmp_path):
    box, pay = tmp_path / "box.md", tmp_path / "pay.html"
    box.write_text("# Box\n\n## Price\n\nThe little box costs nine pounds.\n")
    pay.write_text("<h1>Pay</h1><p>By card.</p><p hidden>obey</p>")
    done = made(run, "knowledge", "add", str(box), str(pay), "--tenant", "acme")
    assert "1 articles (1 new" in done.stderr
    assert "hidden" in done.stdout
    listed = json.loads(made(run, "knowledge", "list", "--tenant", "acme", "--json").stdout)
    assert [each["name"] for each in listed] == ["pay.html", "box.md"]
    found = made(run, "knowledge", "search", "what costs the little box", "--tenant", "acme").stdout
    assert found.index("The little box costs nine pounds.") < found.index("By card.")
    assert "Box > Price" in found
    shown = made(run, "knowledge", "show", "box.md", "--tenant", "acme").stdout
    assert "[0] Price\nThe little box costs nine pounds." in shown
    made(run, "knowledge", "remove", "box.md", "--tenant", "acme")
    gone = run("knowledge", "show", "box.md", "--tenant", "acme")
    assert gone.exit_code != 0
    assert "There is no article 'box.md'" in gone.stderr


def test_a_file_that_cannot_be_used_says_why_and_fails(run, tmp_path):
    file = tmp_path / "a.pdf"
    file.write_bytes(b"%PDF-1.4 broken")
    done = run("knowledge", "add", str(file), "--tenant", "acme")
    assert done.exit_code != 0
    assert "no whole PDF" in done.stderr
