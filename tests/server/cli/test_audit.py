"""``tenantune audit``: what commands did, and who is said to have done it."""

import json
from pathlib import Path

from tests.server.cli.running import made, running


def test_commands_are_recorded_as_the_command_lines(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        made(run, "tenants", "create", "acme")
        made(run, "tenants", "update", "acme", "--limit", "requests_per_minute=5")
        key = made(run, "keys", "create", "--operator", "--label", "=1").stdout.strip()
        entries = json.loads(made(run, "audit", "--json").stdout)
        assert [each["text"] for each in entries] == [
            f"The command line made the API key =1 ({key[:17]}...).",
            "The command line changed the limits of the tenant acme.",
            "The command line added the tenant acme.",
        ]
        [row] = made(run, "audit", "--tenant", "acme", "--limit", "1").stdout.splitlines()
        assert row.split("\t")[1:] == ["acme", entries[1]["text"], ""]
        table = made(run, "audit", "--group", "key", "--csv").stdout
        assert table.count("\n") == 2
        assert "'=1 (tt_admin_" in table
        assert run("audit", "--csv", "--json").exit_code == 2
        assert run("audit", "--tenant", "nobody").exit_code == 3
