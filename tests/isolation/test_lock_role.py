"""The role that holds the scheduler's lock on a direct connection: it may connect, and nothing else."""

from __future__ import annotations

import asyncpg
import pytest

from core.db.lock import LEADER
from core.settings import LOCK_ROLE, Settings

RELATIONS = """
select format('%I.%I', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('public', 'app') and c.relkind in ('r', 'p', 'v', 'm')
"""
CALLABLE = """
select p.oid::regprocedure::text
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname in ('public', 'app') and has_schema_privilege($1, n.oid, 'usage')
  and has_function_privilege($1, p.oid, 'execute')
  and not exists (select from pg_depend e where e.objid = p.oid and e.deptype = 'e')
"""
ROOMS = """
select nspname from pg_namespace where has_schema_privilege($1, oid, 'create')
union all
select datname from pg_database
where datname = current_database() and has_database_privilege($1, oid, 'create, temporary')
"""
ACTS = ("select count(*) from {}", "insert into {} default values", "delete from {}", "truncate {}", "drop table {}")
ESCAPES = (
    "create table mine (x text)",
    "create temporary table mine (x text)",
    "create function mine() returns text language sql as 'select 1'",
    "create schema mine",
    "select app.claim('worker', 1, now())",
    "select app.tenant()",
    "set role bailiwick_app",
    "set role bailiwick_control",
    "grant bailiwick_app to bailiwick_lock",
    "alter role bailiwick_app password 'mine'",
    "select * from pg_authid",
)


async def test_it_reads_no_table_calls_no_function_and_makes_nothing(settings: Settings, owner_dsn: str) -> None:
    owner = await asyncpg.connect(owner_dsn)
    lock = await asyncpg.connect(settings.required("database_lock_url"))
    try:
        assert await lock.fetchval("select current_user") == LOCK_ROLE
        assert await lock.fetchval("select pg_try_advisory_lock($1)", LEADER)
        relations = [row[0] for row in await owner.fetch(RELATIONS)]
        assert len(relations) > 20
        for statement in (*ESCAPES, *(act.format(name) for name in relations for act in ACTS)):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await lock.execute(statement)
        assert await owner.fetch(CALLABLE, LOCK_ROLE) == []
        assert await owner.fetch(ROOMS, LOCK_ROLE) == []
    finally:
        await lock.close()
        await owner.close()
