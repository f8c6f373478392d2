"""Bring a database to the current schema: roles, then every file of ``migrations/`` not applied yet.

Files are applied in order of name, each in one transaction, under one advisory lock, with a short lock
timeout. A file that was changed after it was applied is refused. Safe to run from several places at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from core.db.queries import load_queries
from core.errors import SetupError
from core.settings import APP_ROLE, LOCK_ROLE

MIGRATIONS = Path(__file__).with_name("migrations")
SQL = load_queries(__file__, "migrate.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file and the checksum of its text."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def known_migrations() -> list[Migration]:
    """All files, in the order in which they are applied."""
    return [Migration(path.stem, path.read_text("utf-8")) for path in sorted(MIGRATIONS.glob("*.sql"))]


async def migrate(owner_dsn: str, *, app_password: str, lock_password: str) -> list[str]:
    """Create or update roles and schema; the names applied now, oldest first.

    ``owner_dsn`` is a direct connection (no pooler) of a role that may create roles. Raises ``SetupError``
    when the server cannot be used or a migration was changed after the fact.
    """
    try:
        connection = await asyncpg.connect(owner_dsn, timeout=10)
    except (OSError, asyncpg.PostgresError) as error:
        raise SetupError(f"Cannot connect to Postgres to migrate it: {error}") from error
    try:
        await connection.execute(SQL["lock"])
        await _prepare_roles(connection, {APP_ROLE: app_password, LOCK_ROLE: lock_password})
        return await _apply(connection)
    finally:
        await connection.close()


async def _prepare_roles(connection: asyncpg.Connection[asyncpg.Record], passwords: dict[str, str]) -> None:
    for role, password in passwords.items():
        await connection.execute(SQL["set_password_argument"], role, password)
        await connection.execute(SQL["login_role"])
    await connection.execute(SQL["control_role_and_rights"])


async def _apply(connection: asyncpg.Connection[asyncpg.Record]) -> list[str]:
    await connection.execute(SQL["create_register"])
    applied = {row["name"]: row["checksum"] for row in await connection.fetch(SQL["applied"])}
    done: list[str] = []
    for migration in known_migrations():
        if (checksum := applied.get(migration.name)) is not None:
            if checksum != migration.checksum:
                raise SetupError(
                    f"Migration {migration.name} was changed after it had been applied: this database was made by"
                    " another version before the first release. Run that version, or begin with an empty database;"
                    " that of `make up` is in the folder BAILIWICK_HOME (.bailiwick): removing it removes all data."
                )
            continue
        async with connection.transaction():
            await connection.execute(SQL["short_lock_timeout"])
            await connection.execute(migration.text)
            await connection.execute(SQL["register"], migration.name, migration.checksum)
        done.append(migration.name)
    return done
