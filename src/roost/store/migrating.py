"""Move a database to a version of the schema, forward or back. Only this imports Alembic.

Each way is one transaction in both databases: what fails leaves the database as it was. Going back drops
what the older version has no place for; each migration says what that is.
"""

from __future__ import annotations

from sqlalchemy import Connection, Engine, inspect, text

from roost.store import database
from roost.store.errors import NewerSchema, StoreError
from roost.store.schema import SCHEMA_VERSION


class UnknownVersion(StoreError):
    """There is no such version of the schema."""

    def __init__(self, asked: str, known: list[str]) -> None:
        super().__init__(f"there is no schema {asked}; this version of Roost knows {', '.join(known)}")
        self.asked, self.known = asked, known


class NoSchema(StoreError):
    """The database holds no store."""

    def __init__(self, where: str) -> None:
        super().__init__(f"{where} holds no store of Roost; nothing is there to migrate")
        self.where = where


def versions() -> list[str]:
    """The versions of the schema, the oldest first."""
    return sorted(path.name[:4] for path in database.VERSIONS.glob("[0-9]*.py"))


def version_of(connection: Connection) -> str:
    """The schema's version in a database; empty when it has none."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""


def migrate_to(engine: Engine, version: str) -> tuple[str, str]:
    """Move the database to a version; the versions before and after.

    Raises UnknownVersion, NoSchema, NewerSchema; then nothing was changed.
    """
    if version not in versions():
        raise UnknownVersion(version, versions())
    with engine.begin() as connection:
        found = version_of(connection)
        if not found:
            raise NoSchema(engine.url.render_as_string(hide_password=True))
        if found > SCHEMA_VERSION:
            raise NewerSchema(found, SCHEMA_VERSION)
        run(connection, version)
    return found, version


def run(connection: Connection, version: str) -> None:
    """Run the migrations that lead to a version, within the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(database.VERSIONS.parent))
    config.attributes["connection"] = connection
    if version_of(connection) > version:
        command.downgrade(config, version)
    else:
        command.upgrade(config, version)
