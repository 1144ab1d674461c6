"""Alembic, run from the program: no ini file, on the connection of the caller's transaction."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, inspect

from server.db.models import Record
from server.errors import ServerError

SCRIPTS = Path(__file__).parent / "migrations"


class SchemaError(ServerError):
    """The database has a schema that this version does not know."""


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for our scripts."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def head() -> str | None:
    """The newest revision that this version knows."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing, inside the caller's transaction.

    A new database gets the newest tables at once, a third of the work of all the migrations (as in Alembic's
    cookbook, "Building an Up to Date Database from Scratch").

    Raises:
        SchemaError: the database has a revision that this version does not know.
    """
    config = alembic_config(connection)
    known = {"alembic_version", *Record.metadata.tables}
    try:
        if known.isdisjoint(inspect(connection).get_table_names()):
            Record.metadata.create_all(connection)
            command.stamp(config, "head")
        else:
            command.upgrade(config, "head")
    except CommandError as exc:
        raise SchemaError(
            f"cannot migrate the database: {exc}. It was made by a newer version of tenantune: "
            "update this installation, or point TENANTUNE_DATABASE_URL elsewhere."
        ) from exc
