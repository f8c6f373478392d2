"""The fence around tenants, tried from inside: everything that a session of the runtime role could attempt.

Tables and functions are taken from the catalog, so that a new one is tried, too; a new function fails here until
somebody has said what it may do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import asyncpg
import pytest

from core.settings import Settings
from tests.fixtures.rows import Table, contents, fill

if TYPE_CHECKING:
    from tests.fixtures.rows import Connection

MINE, THEIRS = "alpha", "bravo"
REFUSED = asyncpg.InsufficientPrivilegeError
ACROSS = "across tenants"


class May(StrEnum):
    """What a control function does when it is called inside a tenant's transaction."""

    OWN = "touches what belongs to the transaction's tenant, nothing else"
    OPERATE = "answers in the tenant platform, is empty in any other"
    SUM = "tells a number about the whole platform"
    REFUSE = "looks across tenants, so it refuses"


FUNCTIONS = {
    "anything_moves": May.REFUSE,
    "longest_silent": May.REFUSE,
    "api_key_identity": May.REFUSE,
    "audit_expire": May.OWN,
    "audit_expired": May.REFUSE,
    "audit_pending": May.REFUSE,
    "audit_seal": May.REFUSE,
    "blobs_purge": May.REFUSE,
    "budget_cover": May.OWN,
    "budget_set": May.OWN,
    "cancel_orphans": May.OWN,
    "bulks_applying": May.REFUSE,
    "bulks_purge": May.REFUSE,
    "cancelled_here": May.REFUSE,
    "census": May.REFUSE,
    "census_reviews": May.REFUSE,
    "claim": May.REFUSE,
    "forget_said": May.REFUSE,
    "code_gaps_purge": May.REFUSE,
    "deleted_threads_purge": May.REFUSE,
    "fair_level": May.SUM,
    "ledger_abandon": May.OWN,
    "ledger_forsaken": May.REFUSE,
    "ledger_reserve": May.OWN,
    "ledger_settle": May.OWN,
    "give_back": May.REFUSE,
    "live_codes": May.SUM,
    "live_slots": May.SUM,
    "login_candidates": May.REFUSE,
    "login_attempt": May.REFUSE,
    "login_failures_forget": May.REFUSE,
    "login_succeeded": May.REFUSE,
    "memory_behind": May.REFUSE,
    "next_wake": May.REFUSE,
    "no_code_s": May.SUM,
    "no_worker_clock": May.SUM,
    "op_audit": May.OPERATE,
    "op_depth_over_time": May.OPERATE,
    "op_endings": May.OPERATE,
    "op_failures": May.OPERATE,
    "op_passage_rows": May.OPERATE,
    "op_platform": May.OPERATE,
    "op_pulse": May.OPERATE,
    "op_queue_place": May.OPERATE,
    "op_relative_rows": May.OPERATE,
    "op_run_rows": May.OPERATE,
    "op_service": May.OPERATE,
    "op_service_over_time": May.OPERATE,
    "op_step_rows": May.OPERATE,
    "op_step_costs": May.OPERATE,
    "op_transition_rows": May.OPERATE,
    "op_version_endings": May.OPERATE,
    "op_version_route": May.OPERATE,
    "op_version_route_set": May.OPERATE,
    "op_versions": May.OPERATE,
    "op_wait_causes": May.OPERATE,
    "op_wait_over_time": May.OPERATE,
    "op_workers": May.OPERATE,
    "orphaned": May.REFUSE,
    "overlong": May.REFUSE,
    "platform_starts": May.SUM,
    "queue_again": May.OWN,
    "queue_cancel": May.OWN,
    "queue_depth": May.SUM,
    "queue_faults": May.REFUSE,
    "queue_flows_purge": May.REFUSE,
    "queue_hold": May.OWN,
    "queue_platform_cap": May.REFUSE,
    "queue_policy": May.REFUSE,
    "queue_push": May.OWN,
    "queue_resume": May.OWN,
    "queue_steer": May.REFUSE,
    "recover": May.REFUSE,
    "release": May.OWN,
    "reviews_due": May.REFUSE,
    "reviews_next": May.REFUSE,
    "session_identity": May.REFUSE,
    "sessions_purge": May.REFUSE,
    "shared_slots": May.SUM,
    "slot_uses_purge": May.REFUSE,
    "step_p95": May.SUM,
    "step_settled": May.OWN,
    "tenant_create": May.REFUSE,
    "tenant_list": May.REFUSE,
    "tenant_policy": May.REFUSE,
    "shared_review_tenant": May.OWN,
    "shared_reviews": May.OPERATE,
    "shared_reviews_decided": May.OPERATE,
    "tenant_policy_change": May.REFUSE,
    "trigger_events_due": May.REFUSE,
    "trigger_events_next": May.REFUSE,
    "upcoming": May.REFUSE,
    "user_change": May.REFUSE,
    "user_create": May.REFUSE,
    "version_routes": May.REFUSE,
    "wake": May.OWN,
    "wake_due": May.REFUSE,
    "waits_raised": May.REFUSE,
    "webhook": May.REFUSE,
    "worker_heartbeat": May.REFUSE,
    "worker_leave": May.REFUSE,
}

CALLABLE = """
select p.proname as name, p.prosecdef as definer, p.oid::regprocedure::text as signature,
       array(select format_type(t, null) from unnest(p.proargtypes) t) as types,
       p.proargnames[1:p.pronargs] as names
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname in ('public', 'app') and has_function_privilege('bailiwick_app', p.oid, 'execute')
  and not exists (select 1 from pg_depend e where e.objid = p.oid and e.deptype = 'e')
order by 1
"""
LOOSE_REFERENCES = """
select conrelid::regclass || ' ' || pg_get_constraintdef(c.oid)
from pg_constraint c join pg_namespace n on n.oid = c.connamespace
where n.nspname in ('public', 'app') and c.contype = 'f' and c.confrelid <> 'tenants'::regclass and not exists (
    select 1 from unnest(c.conkey, c.confkey) as k (here, there)
    join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.here and a.attname = 'tenant_id'
    join pg_attribute b on b.attrelid = c.confrelid and b.attnum = k.there and b.attname = 'tenant_id')
"""

SEALED = "insert into audit (tenant_id, at, actor, act, subject, policy_version, seq) values ({}, 1, 9)"
ESCAPES = (
    "set role bailiwick_control",
    "set role postgres",
    "set session authorization postgres",
    "alter role bailiwick_app bypassrls",
    "grant bailiwick_control to bailiwick_app",
    "alter table runs disable row level security",
    "alter table runs no force row level security",
    "alter table runs owner to bailiwick_app",
    "drop policy tenant on runs",
    "create policy more on runs using (true)",
    "select app.fence('ledger', 'select, insert, update, delete')",
    "select app.control('app.tenant()')",
    "alter function app.tenant() rename to nobody",
    "truncate runs cascade",
    "drop table runs",
    "create table public.runs2 (x text)",
    "create function app.tenant(text) returns text language sql as 'select 1'",
    "create function public.app_tenant() returns text language sql as 'select 1'",
    "create temporary table runs (run_id text)",
    "create temporary view runs as select 1 as run_id",
    "select 1 as run_id into temporary runs",
    "create function pg_temp.tenant() returns text language sql as 'select 1'",
    "create schema bailiwick_app",
    "create schema mine",
    "select * from pg_authid",
    "select * from pg_shadow",
    "select * from login_failures",
    "select * from workers",
    "select password_hash from users",
    "update users set roles = '{admin}'",
    "update api_keys set scopes = '{platform:operate}'",
    "insert into policies values ('alpha', 2, '{}', '2026-01-05', 'me')",
    "update audit set actor = 'nobody'",
    "delete from audit",
    SEALED.format("'alpha', '2026-01-05', '', '', ''"),
    "update ledger set amount_microusd = 0",
    "delete from ledger",
    "update budget_accounts set spent_microusd = 0",
    "update queue_tenants set weight = 1000",
    "copy runs to '/tmp/runs'",
    "copy runs to program 'cat'",
    "select pg_read_file('/etc/passwd')",
    "select lo_import('/etc/passwd')",
    "select pg_reload_conf()",
    "alter database postgres set search_path = pg_temp",
)


@dataclass(frozen=True, slots=True)
class Ground:
    """Two tenants with a row each in every tenant table, seen by the owner and by the runtime role."""

    owner: Connection
    app: Connection
    tables: list[Table]

    @asynccontextmanager
    async def inside(self, tenant: str) -> AsyncIterator[Connection]:
        """A transaction of a tenant, as ``core.db`` opens it."""
        async with self.app.transaction():
            await self.app.execute("select set_config('app.tenant', $1, true)", tenant)
            yield self.app

    async def attempt(self, tenant: str, *statements: str) -> list[asyncpg.Record] | asyncpg.PostgresError:
        """What the last statement answers inside a transaction of the tenant, or the first refusal."""
        rows: list[asyncpg.Record] = []
        try:
            async with self.inside(tenant) as app:
                for statement in statements:
                    rows = await app.fetch(statement)
        except asyncpg.PostgresError as error:
            return error
        return rows

    async def theirs(self) -> dict[str, str]:
        """What the other tenant has."""
        return await contents(self.owner, self.tables, THEIRS)


@pytest.fixture
async def ground(settings: Settings, owner_dsn: str) -> AsyncIterator[Ground]:
    """Filled tables and two connections."""
    owner = await asyncpg.connect(owner_dsn)
    app = await asyncpg.connect(app_url(settings))
    try:
        yield Ground(owner, app, await fill(owner, MINE, THEIRS))
    finally:
        await app.close()
        await owner.close()


def app_url(settings: Settings) -> str:
    assert settings.database_app_url is not None
    return settings.database_app_url.get_secret_value()


# Tables ---------------------------------------------------------------------------------------------------


async def test_every_tenant_table_is_empty_without_a_tenant_and_shows_a_tenant_its_own_rows_only(
    ground: Ground,
) -> None:
    assert len(ground.tables) > 20
    for table in ground.tables:
        tenants = f"select tenant_id from {table.name}"
        assert await ground.owner.fetchval(f"select count(distinct tenant_id) from {table.name}") == 2, table.name
        for nobody in ("", "nobody", "%", "ALPHA", "alpha' or '1'='1"):
            seen = await ground.attempt(nobody, tenants)
            assert seen == [] or isinstance(seen, REFUSED), table.name
        for tenant in (MINE, THEIRS):
            seen = await ground.attempt(tenant, tenants)
            assert not isinstance(seen, list) or {row["tenant_id"] for row in seen} == {tenant}, table.name


async def test_no_statement_writes_or_deletes_a_row_of_another_tenant_in_any_table(ground: Ground) -> None:
    before = await ground.theirs()
    for table in ground.tables:
        name = table.name
        for statement in (table.insert(THEIRS, "-new"), f"update {name} set tenant_id = '{THEIRS}'"):
            assert isinstance(await ground.attempt(MINE, statement), REFUSED), statement
        for touching in (f"update {name} set tenant_id = tenant_id", f"delete from {name}"):
            answer = await ground.attempt(MINE, f"{touching} where tenant_id <> '{MINE}' returning 1")
            assert answer == [] or isinstance(answer, REFUSED), touching
    assert await ground.theirs() == before


async def test_no_row_of_a_tenant_hangs_on_a_row_of_another(ground: Ground) -> None:
    assert [row[0] for row in await ground.owner.fetch(LOOSE_REFERENCES)] == []
    table = {table.name: table for table in ground.tables}
    hanging = {
        # Would log its holder in as somebody of the other tenant.
        "sessions": table["sessions"].insert(MINE, "-new", user_id=f"user_id-{THEIRS}"),
        # Would take the place of the other tenant's own wait, step or review: its run would never go on.
        "waits": table["waits"].insert(MINE, "-new", run_id=f"run_id-{THEIRS}", step="7"),
        "run_steps": table["run_steps"].insert(MINE, "-new", run_id=f"run_id-{THEIRS}", step="7"),
        "run_events": table["run_events"].insert(MINE, "-new", run_id=f"run_id-{THEIRS}", seq="7"),
        "reviews": table["reviews"].insert(MINE, "-new", run_id=f"run_id-{THEIRS}", step="7"),
        "schedule_fires": table["schedule_fires"].insert(
            MINE, "-new", schedule_id=f"schedule_id-{THEIRS}", due_at="2027-01-01"
        ),
    }
    for name, statement in hanging.items():
        assert isinstance(await ground.attempt(MINE, statement), asyncpg.ForeignKeyViolationError), name
        assert await ground.attempt(MINE, statement.replace(THEIRS, MINE)) == [], name


# Functions ------------------------------------------------------------------------------------------------


def arguments(function: asyncpg.Record, *, texts: bool) -> Iterator[str]:
    """The other tenant's ids, as SQL literals; with ``texts`` false every filter by text is left open."""
    named = {"p_tenant": THEIRS, "p_worker": f"worker_id-{THEIRS}", "p_user": f"user_id-{THEIRS}", "p_prefix": ""}
    moments = {"p_now": "2026-01-05T10:00:00Z", "p_since": "2026-01-05T08:00:00Z"}
    for name, kind in zip(function["names"] or [], function["types"], strict=True):
        text = named.get(name, f"{name.removeprefix('p_')}-{THEIRS}")
        match kind:
            case "text":
                yield f"'{text}'" if texts else "null::text"
            case "text[]":
                yield f"array['{text.replace('run_ids', 'run_id')}']"
            case "bytea":
                yield f"convert_to('{text}', 'UTF8')"
            case "timestamp with time zone":
                yield f"'{moments.get(name, '2027-01-01T00:00:00Z')}'::timestamptz"
            case "jsonb":
                yield """'{"weight": 9, "concurrency_cap": 9}'::jsonb"""
            case "boolean":
                yield "true"
            case _:
                yield f"60::{kind}" if name == "p_bucket_s" else f"1::{kind}"


async def test_every_function_that_looks_with_other_eyes_is_known(ground: Ground) -> None:
    definers = {function["name"] for function in await ground.owner.fetch(CALLABLE) if function["definer"]}
    assert definers == set(FUNCTIONS)


async def test_no_function_shows_or_changes_anything_of_another_tenant_though_it_is_given_its_ids(
    ground: Ground,
) -> None:
    functions = [
        function
        for function in await ground.owner.fetch(CALLABLE)
        if not {"regclass", "regprocedure", "audit"} & set(function["types"])
    ]
    before = await ground.theirs()
    for function in functions:
        for texts in (True, False):
            call = f"select * from app.{function['name']}({', '.join(arguments(function, texts=texts))})"
            may = FUNCTIONS.get(function["name"]) if function["definer"] else None
            seen = await ground.attempt(MINE, call)
            if may is May.REFUSE and texts:
                assert isinstance(seen, REFUSED), call
                assert ACROSS in str(seen), call
            assert may is not May.OPERATE or seen == [], call
            assert THEIRS not in repr(seen), call
    assert await ground.theirs() == before


# Ways out -------------------------------------------------------------------------------------------------


async def test_the_runtime_role_finds_no_way_out_of_its_rights(ground: Ground) -> None:
    before = await ground.theirs()
    for statement in ESCAPES:
        assert isinstance(await ground.attempt(MINE, statement), REFUSED), statement
    assert isinstance(await ground.attempt(MINE, "select * from pg_stat_statements"), asyncpg.UndefinedTableError)
    unfenced = await ground.attempt(MINE, "set local row_security = off", "select * from runs")
    assert "row-level security" in str(unfenced)
    assert await ground.app.fetchval("select current_user") == "bailiwick_app"
    assert await ground.theirs() == before


async def test_a_schema_of_our_own_choosing_on_the_search_path_changes_nothing_for_control_functions(
    ground: Ground,
) -> None:
    # Whoever owns another schema (here the owner of the database) cannot mislead a control function with it.
    await ground.owner.execute("create schema decoy")
    await ground.owner.execute("create table decoy.waits (like public.waits)")
    await ground.owner.execute("create function decoy.tenant() returns text language sql as $$ select 'bravo' $$")
    await ground.owner.execute("grant usage on schema decoy to bailiwick_app")
    before = await ground.theirs()
    async with ground.inside(MINE) as app:
        await app.execute("set local search_path = decoy, public")
        assert await app.fetchval("select app.tenant()") == MINE
        assert not await app.fetchval(f"select app.wake('run_id-{THEIRS}', 1, '2026-01-06'::timestamptz)")
        assert await app.fetchval(f"select app.wake('run_id-{MINE}', 1, '2026-01-06'::timestamptz)")
    assert await ground.theirs() == before
