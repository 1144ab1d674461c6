"""``tenantune people``: links alone on standard output, and what they print to people."""

import json
import re

import pytest

from server.cli.up import _offer_first_link
from server.db.models import Person
from tests.server.cli.test_commands import tenantune

__all__ = ["tenantune"]

LINK = r"http://127\.0\.0\.1:8000/console/link/tt_link_[0-9A-Za-z]{43}\n"


def test_a_link_is_all_that_standard_output_holds(tenantune):
    tenantune("tenants", "create", "acme")
    made = tenantune("people", "invite", "Ana@example.com", "--tenant", "acme", "--role", "admin")
    assert re.fullmatch(LINK, made.stdout), made.stderr
    again = tenantune("people", "link", "ana@EXAMPLE.com")
    assert re.fullmatch(LINK, again.stdout), again.stderr
    [listed] = json.loads(tenantune("people", "list", "--json").stdout)
    assert listed["memberships"] == [{"slug": "acme", "tenant_name": "acme", "role": "admin"}]
    assert listed["state"] == "invited"
    assert "tt_link_" not in json.dumps(listed)
    row = tenantune("people", "list").stdout.split("\t")
    assert row[:4] == ["ana@example.com", "", "acme:admin", "invited"]


def test_a_disabled_person_gets_no_link(tenantune):
    tenantune("people", "invite", "ana@example.com", "--operator")
    assert tenantune("people", "disable", "ana@example.com").exit_code == 0
    refused = tenantune("people", "link", "ana@example.com")
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert "enable" in refused.stderr
    assert tenantune("people", "enable", "ana@example.com").exit_code == 0
    assert "0 sessions" in tenantune("people", "sign-out", "ana@example.com").stderr
    assert tenantune("people", "link", "ana@example.com").exit_code == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("invite", "ana@example.com"), 2),
        (("invite", "ana", "--operator"), 2),
        (("invite", "ana@example.com", "--tenant", "nobody"), 3),
        (("link", "nobody@example.com"), 3),
    ],
)
def test_what_cannot_be_done_says_so(tenantune, words, code):
    refused = tenantune("people", *words)
    assert (refused.exit_code, refused.stdout) == (code, ""), refused.stderr
    assert refused.stderr


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


async def test_up_prints_a_link_while_nobody_can_sign_in(settings, database):
    said: list[str] = []
    await _offer_first_link(settings, on_progress=said.append)
    assert "30 minutes" in said[0]
    assert re.fullmatch(LINK, said[1].strip() + "\n")
    async with database.transaction() as session:
        session.add(Person(email="invited@example.com", is_operator=True))
    await _offer_first_link(settings, on_progress=said.append)
    assert len(set(said)) == 3, "another link: the one who was invited has never signed in"
    async with database.transaction() as session:
        session.add(Person(email="boss@example.com", is_operator=True, password_hash="there"))
    await _offer_first_link(settings, on_progress=said.append)
    assert len(said) == 4
