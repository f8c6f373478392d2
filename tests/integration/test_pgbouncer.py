"""Everything still works when the platform's own SQL goes through PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from core.clock import FakeClock
from core.db.pool import Database
from core.db.queries import Query
from core.embedded.process import Reaper
from core.runs.model import Cause, RunRequest, RunState
from core.schedules.service import ScheduleService
from core.settings import Port, Settings
from core.tenancy import TenantContext
from tests.fixtures.pgbouncer import SERVERS, pooler_before
from tests.fixtures.ports import free_port_base
from tests.fixtures.serving import serving
from tests.fixtures.work import work_in
from tests.fixtures.workers import Site, site_in, working

SECRETS = ("database_app_url", "database_lock_url", "redis_url", "secret_key")


@pytest.fixture
async def pooled(settings: Settings, server_home: Path, reaper: Reaper, tmp_path: Path) -> AsyncIterator[Settings]:
    """The installation with a pooler before its database. The leader's lock goes the direct way."""
    base = free_port_base()
    dsn = settings.required("database_app_url")
    async with pooler_before(dsn, server_home / f"pgbouncer-{base}", base, reaper) as address:
        yield settings.model_copy(update={"database_app_url": SecretStr(address)})


async def test_tenants_that_share_server_connections_at_once_each_see_their_own(pooled: Settings) -> None:
    async with work_in(pooled, FakeClock()) as work:
        tenants = [await work.tenant(f"tenant-{number}") for number in range(3 * SERVERS)]
    seen = Query("select tenant_id, '{}'::jsonb as held from tenants where $1::jsonb is not null")
    asleep = Query("select pg_sleep(600), $1::jsonb")

    async def looking(ctx: TenantContext) -> None:
        # Each connects at the same moment; PgBouncer has fewer connections to the server than there are of us.
        db = await Database.open(pooled.required("database_app_url"), size=2)
        for _ in range(10):
            for opened in (db.tenant_transaction, db.tenant_statement):
                async with opened(ctx) as tx:
                    assert [tuple(row) for row in await tx.fetch(seen, {"of": ctx.tenant_id})] == [(ctx.tenant_id, {})]
            async with db.control_transaction() as tx:
                assert await tx.fetch(seen, {}) == []
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02), db.tenant_transaction(ctx) as tx:
                    await tx.fetch(asleep, {})
        await db.close()

    async with asyncio.timeout(90):  # or what was cancelled would go on
        await asyncio.gather(*(looking(ctx) for ctx in tenants))


async def test_runs_waits_reviews_schedules_and_cancellations_work_through_a_pooler(
    pooled: Settings, reaper: Reaper, tmp_path: Path
) -> None:
    log = str(tmp_path / "effects")
    async with site_in(pooled) as site, working(site):
        given = site.settings.model_copy(update={"port_base": free_port_base()})
        async with serving(given, "scheduler", Port.SCHEDULER, reaper, secrets=SECRETS):
            runs, reviews = site.platform.runs, site.platform.reviews
            hold = tmp_path / "hold"
            hold.touch()
            plain = [RunRequest("sample-plain", {"log": log, "number": number}) for number in range(10)]
            started = await runs.submit_many(site.admin, plain)
            waits, reviewed, parked, held = await runs.submit_many(
                site.admin,
                [
                    RunRequest("sample-waits", {"log": log, "number": 3, "sleep_s": 0.05}),
                    RunRequest("sample-review", {"log": log, "number": 7}),
                    RunRequest("sample-review", {"log": log, "number": 8}),
                    RunRequest("sample-plain", {"log": log, "hold": str(hold)}),
                ],
            )
            await site.runs_until([reviewed, parked], lambda run: run.cause is Cause.REVIEW)
            await site.until(lambda: said(log, f"holding {held.run_id}"))
            titles = {review.title: review.review_id for review in await reviews.open(site.reviewer)}
            await reviews.decide(site.reviewer, titles["Work 7"], "approve")
            for run in (parked, held):
                await site.platform.control.cancel(site.admin, run.run_id)
            await site.runs_until([waits], lambda run: run.cause is Cause.EVENT)  # the leader ended its timer
            assert await runs.send_event(site.admin, "go", "3", {"x": 5})
            ended = await site.ended([*started, waits, reviewed, parked, held])
            assert Counter(run.state for run in ended) == {RunState.SUCCEEDED: 12, RunState.CANCELLED: 2}
            fired = await overdue(site, log)
            await site.until(lambda: fired_once(site, fired))


async def said(log: str, line: str) -> bool | None:
    """Whether a sample run has written it."""
    return (Path(log).exists() and line in Path(log).read_text()) or None


async def overdue(site: Site, log: str) -> str:
    """A schedule with one occurrence that is due: only a leader fires it."""
    platform = site.platform
    clock = FakeClock(platform.clock.now() - timedelta(minutes=10))
    earlier = ScheduleService(platform.db, platform.bus, platform.runs, platform.audit, platform.workflows, clock)
    cron = (platform.clock.now() - timedelta(minutes=5)).strftime("%M %H %d %m *")
    view = await earlier.create(
        site.admin, name="Due", cron=cron, timezone="UTC", workflow="sample-plain", input={"log": log}
    )
    return view.schedule_id


async def fired_once(site: Site, schedule_id: str) -> bool | None:
    """Whether it was fired, and its run has ended."""
    view = await site.platform.schedules.get(site.admin, schedule_id)
    if view.last_run_id is None:
        return None
    return (await site.platform.runs.get(site.admin, view.last_run_id)).state is RunState.SUCCEEDED or None
