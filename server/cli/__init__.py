"""The ``tenantune`` command. Commands do by hand what the API does, through the same services."""

import rich_click as click

from server.cli.console import RootGroup

_COMMANDS = {  # imported when one is run or described: all of them together take a second to import
    "up": "server.cli.up:up",
    "demo": "server.cli.demo.command:demo",
    "doctor": "server.cli.doctor:doctor",
    "tenants": "server.cli.tenants:tenants",
    "keys": "server.cli.tenants:keys",
    "people": "server.cli.people:people",
    "usage": "server.cli.usage:usage",
    "audit": "server.cli.audit:audit",
    "webhooks": "server.cli.webhooks:webhooks",
    "widget": "server.cli.widget:widget",
    "curation": "server.cli.curation:curation",
    "transcripts": "server.cli.transcripts:transcripts",
    "knowledge": "server.cli.knowledge:knowledge",
    "train": "server.cli.jobs:train",
    "jobs": "server.cli.jobs:jobs",
    "sweep": "server.cli.sweep:sweep",
    "adapters": "server.cli.adapters:adapters",
    "eval": "server.cli.adapters:evaluate",
    "heads": "server.cli.heads:heads",
    "bases": "server.cli.bases:bases",
    "settings": "server.cli.settings:list_settings",
}


@click.group(
    cls=RootGroup, elsewhere=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="tenantune")
def main() -> None:
    """Tune a chat assistant per tenant on its own transcripts, prove it, and serve them all.

    Start with `tenantune up`. Settings are environment variables: see `tenantune settings`.
    """
