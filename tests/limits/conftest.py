"""Databases of both kinds, for the counts that copies of the server share."""

from tests.databases import (
    database,
    database_url,
    migrated_postgres,
    migrated_sqlite,
    postgres,
    postgres_url,
    settings,
    sqlite_url,
)

__all__ = [
    "database",
    "database_url",
    "migrated_postgres",
    "migrated_sqlite",
    "postgres",
    "postgres_url",
    "settings",
    "sqlite_url",
]
