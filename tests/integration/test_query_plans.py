"""The hot queries stay on their indexes as tables grow, seen as the runtime role under row-level security."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import pytest

from core.db.pool import Database, Transaction
from core.db.queries import Query
from core.ids import RunId, TenantId, WorkerId
from core.queue import store
from core.queue.model import HEADROOM, Claim
from core.reviews.store import SQL as REVIEWS
from core.runs.budgets import SQL as BUDGETS
from core.runs.family import SQL as CHILDREN
from core.runs.history import SQL as HISTORY
from core.runs.model import Lane, RunRequest
from core.runs.store import SQL as RUNS
from core.runs.store import NewRun, insert_runs
from core.settings import Settings
from core.usage.store import SQL as USAGE
from ops_dashboard.data import SQL as DASHBOARD
from tests.benchmarks.queue.claimer import context
from tests.benchmarks.queue.places import careless
from tests.benchmarks.queue.scale import fill

NOW = datetime(2026, 1, 5, tzinfo=UTC)
PLANNED = "select sum(custom_plans)::integer from pg_prepared_statements where statement like $1"
TENANTS, RUNS_EACH = 40, 250

FILL = """
insert into tenants (tenant_id, name, org_id, region, created_at)
select 't' || t, 'T', 'o', 'us-east-1', now() from generate_series(1, $1) t;
insert into queue_tenants (tenant_id, weight, cap, burst_slots, burst_credit_s, queued, virtual_time, clock_at)
select 't' || t, 1, 3, t % 2, 1, 1, t, now() from generate_series(1, $1) t;
insert into queue_flows (tenant_id, lane, workflow, code, user_key, fresh, queued, head_rank, virtual_time)
select 't' || t, lane, 'w', 'w@1', 'u' || u, true, 1, t, t
from generate_series(1, $1) t, generate_series(0, 2) lane, generate_series(1, 9) u;
insert into runs (run_id, tenant_id, workflow, version, lane, state, source, batch_id, idempotency_key, request_hash,
                  input, policy_version, budget_microusd, submitted_at, queued_at, parent_run_id, parent_step)
select 'run_' || t || '_' || n, 't' || t, 'w', '1', 1, (array['succeeded', 'queued', 'waiting'])[1 + n % 3], 'api',
       'b' || (n / 25), 'k' || n, '\\x00', '{}', 1, 0, now() - n * interval '1 minute', now(),
       case when n > 25 then 'run_' || t || '_' || n / 25 end, 1
from generate_series(1, $1) t, generate_series(1, $2) n;
insert into queue_entries (run_id, tenant_id, flow_id, rank, capped_s, paused_s, no_worker_s)
select run_id, r.tenant_id, f.flow_id, row_number() over (), 0, 0, 0
from runs r join queue_flows f on f.tenant_id = r.tenant_id and f.lane = 1 and f.user_key = 'u1'
where state = 'queued';
insert into waits (run_id, step, tenant_id, cause, key, wake_at, since)
select run_id, 1, tenant_id, 'timer', 'k', now() + interval '1 hour', now() from runs where state = 'waiting';
insert into slot_uses (run_id, tenant_id, worker_id, queued_at, claimed_at, released_at, burst, capped_s, paused_s,
                       no_worker_s, no_code_s)
select run_id, tenant_id, 'w', submitted_at, submitted_at, submitted_at, false, 0, 0, 0, 0 from runs;
insert into budget_accounts (tenant_id, account, limit_microusd, spent_microusd)
select tenant_id, 'run:' || run_id, 9, 10 from runs union all select 't' || t, 'month:2026-01', 9, 10
from generate_series(1, $1) t;
insert into reviews (review_id, tenant_id, run_id, step, pool, title, evidence, choices, state, created_at, due_at)
select 'rev_' || run_id, tenant_id, run_id, 1, 'p', 't', '{}', '{a}', 'open', now(), now() from runs;
analyze;
"""

HOT: dict[str, tuple[Query, tuple[Any, ...]]] = {
    "recent runs": (RUNS["views"], (None, None, None, None, None, None, 51, None)),
    "children of a run": (RUNS["views"], (None, None, None, None, None, None, 51, "run_7_9")),
    "relatives of a run": (HISTORY["relative_rows"], ("run_7_9",)),
    "children to begin anew": (CHILDREN["undone"], ("run_7_9", ["run_7_226"])),
    "how a window of children stands": (CHILDREN["stands"], ("run_7_9", 1, "run_7_9/1/1/")),
    "children of a step": (CHILDREN["brood"], ("run_7_9", 1, 1_000)),
    "how far children are": (CHILDREN["tell_parent"], ("run_7_9", 1)),
    "what children returned": (CHILDREN["ends"], (["run_7_9", "run_7_10"],)),
    "runs of a batch": (RUNS["batch_counts"], ("b3",)),
    "open runs": (RUNS["open_runs"], (50,)),
    "runs that ended lately": (RUNS["ended_since"], (NOW,)),
    "one run": (RUNS["views_by_id"], (["run_7_9"],)),
    "replayed submissions": (RUNS["by_idempotency_keys"], (["k1", "k2"],)),
    "who waits for an event": (RUNS["waits_on_key"], ("timer", "k", 1_000)),
    "open reviews": (REVIEWS["open"], (100,)),
    "who asks for money": (BUDGETS["short"], ("run_7_9",)),
}


def watched(lately: datetime) -> dict[str, tuple[Query, tuple[Any, ...]]]:
    """What the dashboard asks every few seconds."""
    return {
        "what stands now": (DASHBOARD["pulse"], (NOW,)),
        "what ended in a window": (DASHBOARD["endings"], (lately, lately)),
        "what failed in a window": (DASHBOARD["failures"], (lately, lately)),
        "who got slots in a window": (DASHBOARD["service"], (lately, lately)),
        "why they had waited": (DASHBOARD["wait_causes"], (lately, lately)),
        "how waits went over time": (DASHBOARD["wait_over_time"], (lately, lately, 30, 8)),
        "a page of runs": (DASHBOARD["run_rows"], (*[None] * 9, 51)),
    }


GROWING = {"runs", "run_events", "run_steps", "slot_uses", "waits", "reviews", "audit", "ledger"}
"""Tables that grow with what happens, not with what is installed or queued."""

CLAIM = {
    "next tenant": "select * from queue_tenants q where q.eligible order by q.virtual_time, q.tenant_id limit 1",
    "next newcomer": "select * from queue_tenants q where q.eligible and q.newcomer "
    "order by q.virtual_time, q.tenant_id limit 1",
    "next quiet tenant": "select * from queue_tenants q where q.eligible and q.virtual_time <= 9 "
    "and q.running < 3 order by q.running, q.virtual_time, q.tenant_id limit 1",
    "next tenant that may burst": "select * from queue_tenants q where q.may_burst "
    "order by q.virtual_time, q.tenant_id limit 1",
    "next flow": "select * from queue_flows f where f.tenant_id = 't7' and f.queued > 0 "
    "and f.code = any (array['v@1', 'w@1']) "
    "order by f.lane, f.fresh, f.virtual_time, f.user_key, f.workflow, f.head_rank, f.code limit 1",
    "oldest flow": "select * from queue_flows f where f.tenant_id = 't7' and f.queued > 0 "
    "order by f.head_rank, f.lane limit 1",
    "anything of some code": "select from queue_flows f where f.queued > 0 and f.code = any (array['v@1', 'v@2'])",
    "tenant with some code": "select * from queue_tenants q "
    "where q.eligible and app.serves(array['v@1'], array['t1'], q.tenant_id) "
    "order by q.virtual_time, q.tenant_id limit 1",
    "flows of a user": "select * from queue_flows f where f.tenant_id = 't7' and f.user_key = 'u3'",
    "head of a flow": "select * from queue_entries e where e.flow_id = 7 order by e.rank, e.run_id limit 1",
    "what enters the queue": "select * from app.queue_pushed('t7', array['run_7_4', 'run_7_7'])",
    "waits that are due": "select * from waits w where w.wake_at <= now() order by w.wake_at limit 10",
    "open children of a run": "select * from app.open_children('t7', 'run_7_9')",
    "an open sibling": "select from runs c where c.tenant_id = 't7' and c.parent_run_id = 'run_7_9' "
    "and c.parent_step = 1 and c.state in ('queued', 'running', 'waiting') limit 1",
    "who waits for its children": "select w.step from waits w where w.run_id = 'run_7_9' and w.tenant_id = 't7' "
    "and w.cause = 'children' and w.key = '1'",
    "slots of a worker": "select * from slots s where s.worker_id = 'w'",
}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


EMPTY = {"run_events", "run_steps"}
"""Tables without a row here."""


@pytest.fixture
async def filled(settings: Settings, owner_dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A database with forty tenants of 250 runs, seen by its owner."""
    connection = await asyncpg.connect(owner_dsn)
    try:
        for statement in FILL.split(";\n"):
            if statement.strip():
                arguments = [value for sign, value in (("$1", TENANTS), ("$2", RUNS_EACH)) if sign in statement]
                await connection.execute(statement, *arguments)
        await connection.execute("set enable_sort = on")
        yield connection
    finally:
        await connection.close()


Session: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

READ = {
    "estimates": ("run_estimates", "run_estimates_pkey"),
    "slots": ("slots", "slots_pkey", "slots_worker"),
    "runs": ("runs", "runs_pkey", "runs_tenant_id_run_id_key", "runs_recent", "runs_by_state"),
    "entries": ("queue_entries", "queue_entries_pkey", "queue_entries_head"),
    "tenants": ("queue_tenants", "queue_tenants_next"),
    "reviews": ("reviews", "reviews_open", "reviews_recent", "reviews_of_run", "reviews_run_id_step_key"),
}


async def read(session: Session | Transaction) -> dict[str, int]:
    """What the session has read so far, rows from end to end and entries of indexes; inside a transaction."""
    query = Query(
        "select sum(pg_stat_get_xact_tuples_returned(name::regclass))::integer from unnest($1::text[]) as u(name)"
    )
    return {what: await session.fetchval(query, names) for what, names in READ.items()}


async def give_back(session: Session, claim: Claim) -> None:
    """In a transaction."""
    await session.execute("select set_config('app.tenant', $1, true)", claim.tenant_id)
    assert await store.release(Transaction(session), claim.held, NOW + timedelta(seconds=2)) is not None


async def sequential(connection: asyncpg.Connection[asyncpg.Record], query: str, *arguments: Any) -> list[str]:
    """Tables of more than a page that the plan of a query reads from end to end."""
    plan = json.loads(await connection.fetchval(f"explain (format json) {query}", *arguments))[0]["Plan"]
    return [node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"]


async def test_tenant_queries_use_their_indexes_under_row_level_security(
    filled: asyncpg.Connection[asyncpg.Record],
) -> None:
    found = {}
    for name, (query, arguments) in HOT.items():
        async with filled.transaction():
            await filled.execute("set local role bailiwick_app")
            await filled.execute("select set_config('app.tenant', 't7', true)")
            tables = set(await sequential(filled, query, *arguments)) - EMPTY
        if tables:
            found[name] = tables
    assert found == {}


async def test_what_is_asked_of_a_familys_accounts_reads_these_and_none_of_the_tenants_others(
    filled: asyncpg.Connection[asyncpg.Record],
) -> None:
    for name, arguments in (("overrun", ("run_7_9", "2026-01")), ("tightest_above", ("run_7_9",))):
        async with filled.transaction():
            await filled.execute("set local role bailiwick_app")
            await filled.execute("select set_config('app.tenant', 't7', true)")
            explained = await filled.fetchval(f"explain (analyze, format json) {USAGE[name]}", *arguments)
        read = [
            node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
            for node in nodes(json.loads(explained)[0]["Plan"])
            if node.get("Relation Name") == "budget_accounts"
        ]
        assert sum(read) <= 2, name


async def test_what_the_dashboard_asks_every_few_seconds_reads_no_growing_table_from_end_to_end(
    filled: asyncpg.Connection[asyncpg.Record],
) -> None:
    found = {}
    queries = watched(datetime.now(UTC) - timedelta(minutes=5))
    for role, tenant in (
        ("bailiwick_app", "t7"),
        ("bailiwick_control", "platform"),
    ):  # its own; as operators' functions
        for name, (query, arguments) in queries.items():
            async with filled.transaction():
                await filled.execute(f"set local role {role}")
                await filled.execute("select set_config('app.tenant', $1, true)", tenant)
                if tables := GROWING & set(await sequential(filled, query, *arguments)):
                    found[role, name] = tables
    assert found == {}


async def test_a_page_of_all_runs_reads_the_newest_of_each_tenant_and_pages_of_no_more_than_fit_it(
    filled: asyncpg.Connection[asyncpg.Record],
) -> None:
    """Also by a session that has asked so often that it would keep a plan for all that can be looked for."""
    page = 5
    read = (
        "select pg_stat_get_xact_tuples_returned('runs'::regclass) + pg_stat_get_xact_tuples_fetched('runs'::regclass)"
    )
    middle = await filled.fetchval("select submitted_at from runs where run_id = 'run_7_100'")
    looked_for: dict[str, tuple[dict[int, Any], int]] = {
        "all": ({}, TENANTS + page**2),
        "of a state": ({2: "waiting"}, TENANTS + page**2),
        "of a workflow": ({3: "w"}, TENANTS + page**2),
        "the next page": ({7: middle, 8: "run_7_100"}, TENANTS + page**2),
        "of one tenant": ({0: "t7"}, 1 + page),
        "of this id": ({6: "run_7_9"}, 1),
        "with this key": ({6: "k9"}, TENANTS),
    }
    found = {}
    for name, (given, most) in [*looked_for.items(), *looked_for.items()]:
        async with filled.transaction():
            await filled.execute("set local role bailiwick_app")
            await filled.execute("select set_config('app.tenant', 'platform', true)")
            before = await filled.fetchval(read)
            assert await filled.fetch(DASHBOARD["op_run_rows"], *map(given.get, range(9)), page)
            if (rows := await filled.fetchval(read) - before) > most:
                found[name] = rows
    assert found == {}


async def test_a_list_of_what_hardly_any_run_is_reads_no_other_runs(
    filled: asyncpg.Connection[asyncpg.Record],
) -> None:
    read = (
        "select pg_stat_get_xact_tuples_returned('runs'::regclass) + pg_stat_get_xact_tuples_fetched('runs'::regclass)"
    )
    await filled.execute("update runs set workflow = 'rare', outcome = 'odd', user_id = 'u1' where run_id = 'run_7_99'")
    seen = "select relallvisible = relpages from pg_class where oid = 'runs'::regclass"
    async with asyncio.timeout(30):
        while not await filled.fetchval(seen):  # whoever began to look before the update holds it back
            await filled.execute("vacuum (index_cleanup on) runs")
    rare = {"workflow": {3: "rare"}, "workflow and state": {2: "succeeded", 3: "rare"}, "outcome": {5: "odd"}}
    never = {"workflow": {3: "never"}, "workflow and state": {2: "queued", 3: "rare"}, "user": {1: "u2", 5: "odd"}}
    found = {}
    for tenant, query in (("platform", "op_run_rows"), ("t7", "run_rows"), ("t8", "run_rows")):
        for looked_for, rows in ((rare, tenant != "t8"), (never, 0)):
            for name, given in looked_for.items():
                async with filled.transaction():
                    await filled.execute("set local role bailiwick_app")
                    await filled.execute("select set_config('app.tenant', $1, true)", tenant)
                    before = await filled.fetchval(read)
                    listed = await filled.fetch(DASHBOARD[query], *map(given.get, range(9)), 51)
                    assert [row["run_id"] for row in listed] == ["run_7_99"] * rows
                    if (runs := await filled.fetchval(read) - before) > rows:
                        found[tenant, name, rows] = runs
    assert found == {}


async def test_the_claim_uses_its_indexes(filled: asyncpg.Connection[asyncpg.Record]) -> None:
    async with filled.transaction():
        await filled.execute("set local role bailiwick_control")
        await filled.execute("set local enable_seqscan = off")  # forty tenants fit a page: ask what is possible
        found = {name: tables for name, query in CLAIM.items() if (tables := await sequential(filled, query))}
    assert found == {}


async def test_claims_and_releases_read_the_same_however_much_is_held_and_left_behind(settings: Settings) -> None:
    """By a session that made its plans while nothing was held, and beside a reader for whom what is old is kept."""
    await fill(settings, TENANTS, 60)
    worker, held = WorkerId("w"), list[Claim]()
    async with (
        careless(settings.required("database_url")) as session,
        careless(settings.required("database_url")) as old,
    ):
        tx = Transaction(session)
        await store.heartbeat(tx, worker, 1_000_000, False, NOW)
        async with old.transaction(isolation="repeatable_read"):
            await old.fetch("select from queue_tenants")
            for batch in range(60):
                claims, _ = await store.claim(tx, worker, 10, HEADROOM, NOW + timedelta(milliseconds=batch))
                held += claims
                async with session.transaction():
                    await give_back(session, held.pop(0))
            async with session.transaction():
                before = await read(session)
                assert len((await store.claim(tx, worker, 10, HEADROOM, NOW + timedelta(seconds=1)))[0]) == 10
                claiming = {name: number - before[name] for name, number in (await read(session)).items()}
            async with session.transaction():
                before = await read(session)
                await give_back(session, held[-1])
                releasing = {name: number - before[name] for name, number in (await read(session)).items()}
    assert claiming["estimates"] <= 10
    assert claiming["tenants"] <= 700  # the 600 that others left behind: once, not ten times
    assert releasing["slots"] == 1


async def test_a_run_is_submitted_without_a_look_at_what_was_submitted_before(
    settings: Settings, owner_dsn: str
) -> None:
    """By a session that made its plans while there was hardly anything, before anything was counted."""
    numbers, ctx = itertools.count(), context(TenantId("t1"))
    db = await Database.open(settings.required("database_app_url"), size=1)

    async def filled_with(*tables: str) -> None:
        async with careless(owner_dsn) as owner:
            for table in tables:
                (statement,) = [one for one in FILL.split(";\n") if one.strip().startswith(f"insert into {table} ")]
                await owner.execute(statement.replace("$1", "1").replace("$2", "2000"))

    async def submitted() -> dict[str, int]:
        new = NewRun(RunId(f"run_{next(numbers)}"), RunRequest("w", {}), "1", Lane.NORMAL, {}, 0, None)
        async with db.tenant_transaction(ctx) as tx:
            before = await read(tx)
            now = datetime.now(UTC)
            await insert_runs(tx, ctx, [new], now)
            assert await store.push(tx, [new.run_id], False, now) == 1
            return {name: number - before[name] for name, number in (await read(tx)).items()}

    await filled_with("tenants", "queue_tenants")
    for _ in range(20):
        await submitted()
    await filled_with("runs")
    async with db.tenant_transaction(ctx) as tx:
        assert await store.push(tx, [f"run_1_{number}" for number in range(1, 2_000, 3)], False, NOW) == 667
    reads = await submitted()
    async with db.tenant_transaction(ctx) as tx:
        planned = await tx.fetchval(Query(PLANNED), "%insert into runs%")
    await db.close()
    assert reads["entries"] == 0
    assert reads["runs"] <= 5
    assert planned <= 5  # the tries after which a session keeps a plan, if none was cheaper for what it was made for


async def test_the_end_of_a_run_reads_what_it_asks_and_not_all_that_its_tenant_asks(
    settings: Settings, owner_dsn: str
) -> None:
    """Whether its session made its plans while nobody asked anything or just now, before anything was counted."""
    app = settings.required("database_app_url")

    async def closing(session: Session) -> int:
        async with session.transaction():
            await session.execute("select set_config('app.tenant', 't1', true)")
            before = await read(session)
            await session.execute("select app.lock_reviews('run_1_7'), app.close_reviews('run_1_8', now())")
            return (await read(session))["reviews"] - before["reviews"]

    async with careless(owner_dsn) as owner, careless(app) as old, careless(app) as new:
        assert [await closing(old) for _ in range(7)] == [0] * 7
        for table in ("tenants", "runs", "reviews"):
            (statement,) = [one for one in FILL.split(";\n") if one.strip().startswith(f"insert into {table} ")]
            await owner.execute(statement.replace("$1", "1").replace("$2", "2000"))
        assert [await closing(session) for session in (old, new)] == [2, 2]
