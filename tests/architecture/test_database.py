"""Rules about the schema: the fence around tenants, the rights of the roles, migrations and named queries."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from core.db import migrate as migrations
from core.db.migrate import known_migrations, migrate
from core.db.queries import Queries, load_queries
from core.errors import SetupError
from core.settings import Settings
from tests.architecture.tree import ROOT, name_of, parsed, sources, texts
from tests.fixtures.servers import ROLE_PASSWORDS

CATALOG = load_queries(__file__, "catalog.sql")

# Tables that belong to no tenant, with the reason. The runtime role reaches them through control functions only.
SHARED_TABLES = {
    "code_gaps": "from when to when no worker had the code of a version",
    "login_failures": "failed logins are counted before anybody is known",
    "migrations": "what was applied",
    "queue_platform": "the virtual time of the fair queue, and its cap",
    "version_routes": "to which version of a workflow new runs of all tenants go",
    "workers": "processes that execute runs of all tenants",
}
TENANT_POLICY = "tenant to bailiwick_app: (tenant_id = app.tenant()) / (tenant_id = app.tenant())"
CONTROL_POLICY = "control to bailiwick_control: true / true"
# Files of named statements that are not prepared one by one: commands of the owner, run when a server is set up, and
# what begins and ends every transaction, several statements at once.
UNPREPARED = {"core/db/migrate.sql", "core/db/pool.sql", "core/embedded/postgres.sql"}


@pytest.fixture
async def owner(owner_dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection as the owner to a migrated database."""
    connection = await asyncpg.connect(owner_dsn)
    yield connection
    await connection.close()


async def catalog(owner: asyncpg.Connection[asyncpg.Record], name: str) -> list[asyncpg.Record]:
    return await owner.fetch(CATALOG[name])


async def test_every_tenant_table_stands_behind_forced_row_level_security(
    owner: asyncpg.Connection[asyncpg.Record],
) -> None:
    tables = await catalog(owner, "tenant_tables")
    assert len(tables) > 10
    unfenced = [table["name"] for table in tables if not (table["enabled"] and table["forced"])]
    assert unfenced == []
    # A table without the second policy is out of reach of the control functions too: conversations, memories.
    allowed = ([CONTROL_POLICY, TENANT_POLICY], [TENANT_POLICY])
    other = {table["name"]: table["policies"] for table in tables if table["policies"] not in allowed}
    assert other == {}


async def test_a_table_without_a_tenant_is_known_and_out_of_reach(owner: asyncpg.Connection[asyncpg.Record]) -> None:
    tables = {table["name"]: table["reachable"] for table in await catalog(owner, "shared_tables")}
    assert set(tables) <= set(SHARED_TABLES)
    assert [name for name, reachable in tables.items() if reachable] == []
    assert await catalog(owner, "views") == []


async def test_the_runtime_roles_own_nothing_and_bypass_nothing(owner: asyncpg.Connection[asyncpg.Record]) -> None:
    roles = {role["name"]: role for role in await catalog(owner, "roles")}
    assert set(roles) >= {"bailiwick_app", "bailiwick_control", "bailiwick_lock"}
    assert [name for name, role in roles.items() if role["mighty"] or role["member_of"]] == []
    assert not roles["bailiwick_control"]["may_log_in"]
    assert await catalog(owner, "owned_by_runtime_roles") == []
    assert await catalog(owner, "creatable_schemas") == []


async def test_every_function_that_looks_across_tenants_is_a_control_function(
    owner: asyncpg.Connection[asyncpg.Record],
) -> None:
    functions = await catalog(owner, "definers")
    assert len(functions) > 10
    wrong = {
        function["name"]: (function["owner"], function["settings"], function["open_to_all"])
        for function in functions
        if function["owner"] != "bailiwick_control"
        or function["open_to_all"]
        or "search_path=public, app, pg_temp" not in function["settings"]
    }
    assert wrong == {}


def query_files() -> list[Path]:
    files = [path for path in sources(".sql") if "migrations" not in path.parts]
    return [path for path in files if name_of(path) not in UNPREPARED]


async def test_every_named_query_prepares_against_the_schema(settings: Settings) -> None:
    assert settings.database_app_url
    connection = await asyncpg.connect(settings.database_app_url.get_secret_value())
    problems = []
    for path in query_files():
        for name, query in Queries(path).items():
            try:
                await connection.prepare(query)
            except asyncpg.PostgresError as error:
                problems.append(f"{name_of(path)}: {name}: {error}")
    await connection.close()
    assert problems == []


def test_every_named_query_says_what_it_is_and_is_used() -> None:
    problems = []
    for path in query_files():
        used = {text for module in path.parent.glob("*.py") for _, text in texts(parsed(module))}
        for name, query in Queries(path).items():
            if not query.startswith("--"):
                problems.append(f"{name_of(path)}: {name} has no comment")
            # A question that is asked per tenant and over all of them is one name, with and without the prefix.
            if name not in used and not (name.removeprefix("op_") in used and "op_" in used):
                problems.append(f"{name_of(path)}: {name} is used by no module beside it")
    assert problems == []


def test_no_statement_asks_the_database_what_time_it_is() -> None:
    clock = re.compile(
        r"\b(now|clock_timestamp|statement_timestamp|transaction_timestamp)\s*\(|\bcurrent_(date|time)\b"
    )
    files = [path for path in sources(".sql") if name_of(path) not in UNPREPARED]
    asking = [name_of(path) for path in files if clock.search(re.sub(r"--[^\n]*", "", path.read_text("utf-8")))]
    assert asking == []


async def test_a_fresh_schema_equals_one_that_was_migrated_step_by_step(
    owner_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = await asyncpg.connect(owner_dsn)
    await fresh.execute("create database stepwise")
    stepwise_dsn = owner_dsn.rpartition("/")[0] + "/stepwise"
    monkeypatch.setattr(migrations, "MIGRATIONS", tmp_path)
    files = sorted((ROOT / "core/db/migrations").glob("*.sql"))
    for path in files:
        (tmp_path / path.name).write_bytes(path.read_bytes())
        assert await migrate(stepwise_dsn, **ROLE_PASSWORDS) == [path.stem]
    assert await migrate(stepwise_dsn, **ROLE_PASSWORDS) == []

    stepwise = await asyncpg.connect(stepwise_dsn)
    lines = [row["line"] for row in await catalog(stepwise, "definitions")]
    await stepwise.close()
    assert len(lines) > 100
    assert lines == [row["line"] for row in await catalog(fresh, "definitions")]
    await fresh.execute("drop database stepwise")
    await fresh.close()


async def test_a_migration_that_was_changed_after_the_fact_is_refused(
    owner_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for migration in known_migrations():
        (tmp_path / f"{migration.name}.sql").write_text(migration.text)
    first = known_migrations()[0]
    (tmp_path / f"{first.name}.sql").write_text(first.text + "-- a word more\n")
    monkeypatch.setattr(migrations, "MIGRATIONS", tmp_path)
    with pytest.raises(SetupError, match=f"{first.name}.*begin with an empty database"):
        await migrate(owner_dsn, **ROLE_PASSWORDS)
