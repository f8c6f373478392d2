"""The scheduler as processes that are killed, and whose servers are restarted under them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from core.clock import FakeClock
from core.embedded.postgres import Postgres
from core.embedded.process import Process, Reaper
from core.embedded.redis import Redis
from core.errors import BailiwickError
from core.ids import WorkerId
from core.runs.acts import Act
from core.runs.bulk import Bulk, Choice
from core.runs.model import Cause, RunRequest, RunState, RunView
from core.schedules.model import PollStatus, ScheduleView
from core.schedules.service import ScheduleService
from core.settings import Port, Settings
from tests.fixtures.feed import serving_feed
from tests.fixtures.ports import free_port_base
from tests.fixtures.serving import leads, serving
from tests.fixtures.workers import Site, site_in, working

SECRETS = ("database_app_url", "database_lock_url", "redis_url", "secret_key")
SLEEPING_S = 3
BULK = 120


@dataclass(frozen=True, slots=True)
class Place:
    """An installation without a scheduler, and ways to start some."""

    site: Site
    reaper: Reaper

    @asynccontextmanager
    async def scheduler(self, **given: object) -> AsyncIterator[tuple[Process, Settings]]:
        """A scheduler process, ready."""
        settings = self.site.settings.model_copy(update={"port_base": free_port_base()} | given)
        async with serving(settings, "scheduler", Port.SCHEDULER, self.reaper, secrets=SECRETS) as process:
            yield process, settings

    async def until(self, condition: Callable[[], object]) -> None:
        """Until something outside our rooms is so."""

        async def look() -> bool | None:
            return bool(condition()) or None

        await self.site.until(look)

    def earlier(self) -> ScheduleService:
        """The schedules, edited ten minutes ago: what they say for five minutes ago is due now, and once."""
        platform = self.site.platform
        clock = FakeClock(platform.clock.now() - timedelta(minutes=10))
        return ScheduleService(platform.db, platform.bus, platform.runs, platform.audit, platform.workflows, clock)

    def cron(self) -> str:
        """Five minutes ago; the next time in a year."""
        return (self.site.platform.clock.now() - timedelta(minutes=5)).strftime("%M %H %d %m *")

    async def overdue(self, cron: str | None = None) -> ScheduleView:
        """A schedule with an occurrence that is due."""
        return await self.earlier().create(
            self.site.admin,
            name="Due",
            cron=cron or self.cron(),
            timezone="UTC",
            workflow="sample-plain",
            input={"log": "x"},
        )

    async def runs(self) -> list[RunView]:
        """All runs that schedules and pollers started."""
        views, _ = await self.site.platform.runs.list(self.site.admin)
        return [view for view in views if view.source in {"schedule", "poller"}]

    async def fired(self, schedule: ScheduleView) -> ScheduleView:
        """The schedule, once its occurrence has been dealt with."""

        async def look() -> ScheduleView | None:
            try:
                view = await self.site.platform.schedules.get(self.site.admin, schedule.schedule_id)
            except BailiwickError:
                return None  # the server is being restarted
            return view if view.last_due_at is not None else None

        return await self.site.until(look)


@pytest.fixture
async def place(settings: Settings, reaper: Reaper) -> AsyncIterator[Place]:
    async with site_in(settings) as site:
        yield Place(site, reaper)


async def test_one_of_two_schedulers_leads_and_the_other_takes_over_when_it_is_killed(place: Place) -> None:
    async with AsyncExitStack() as stack:
        pair = [await stack.enter_async_context(place.scheduler()) for _ in range(2)]
        await place.until(lambda: any(leads(settings) for _, settings in pair))
        assert sum(leads(settings) for _, settings in pair) == 1
        view = await place.fired(await place.overdue())
        assert [run.run_id for run in await place.runs()] == [view.last_run_id]

        [leader] = [process for process, settings in pair if leads(settings)]
        [(_, heir)] = [(process, settings) for process, settings in pair if process is not leader]
        os.kill(leader.pid, signal.SIGKILL)
        began = asyncio.get_running_loop().time()
        await place.until(lambda: leads(heir))
        assert asyncio.get_running_loop().time() - began < 10
        await place.fired(await place.overdue())
        assert len(await place.runs()) == 2


async def test_a_bulk_whose_scheduler_is_killed_is_done_to_each_run_once_in_the_name_of_who_applied_it(
    place: Place, owner_dsn: str
) -> None:
    platform, admin = place.site.platform, place.site.admin
    requests = [RunRequest("sample-plain", {"log": "x"}) for _ in range(BULK)]
    runs = await platform.runs.submit_many(admin, requests)
    bulk = await platform.bulk.preview(admin, Act.CANCEL, Choice())
    begun = await platform.bulk.apply(admin, bulk.bulk_id, for_s=0)
    assert (begun.state, begun.done) == ("applying", 1), "the rest is the scheduler's"
    owner = await asyncpg.connect(owner_dsn)
    try:
        async with AsyncExitStack() as stack:
            # Somebody keeps one of the runs to themselves: nobody gets past it, and the leader is killed in the act.
            middle = owner.transaction()
            await middle.start()
            await owner.execute(
                "select from runs where run_id = "
                "(select run_id from bulk_runs where bulk_id = $1 and position = $2) for update",
                bulk.bulk_id,
                BULK // 2,
            )
            pair = [await stack.enter_async_context(place.scheduler()) for _ in range(2)]

            async def half_way() -> bool | None:
                return (await platform.bulk.get(admin, bulk.bulk_id)).done == BULK // 2 - 1 or None

            await place.site.until(half_way)
            [leader] = [process for process, settings in pair if leads(settings)]
            os.kill(leader.pid, signal.SIGKILL)
            await middle.rollback()

            async def done() -> Bulk | None:
                found = await platform.bulk.get(admin, bulk.bulk_id)
                return found if found.state == "done" else None

            found = await place.site.until(done)
        assert (found.done, found.skipped) == (BULK, 0)
        for table, who in (("run_events", "data ->> 'actor'"), ("audit", "actor")):
            subject, facts = ("run_id", "data") if table == "run_events" else ("substr(subject, 5)", "after")
            told = await owner.fetch(
                f"select {subject} as run_id, {who} as actor from {table} where {facts} ->> 'bulk_id' = $1",
                bulk.bulk_id,
            )
            assert sorted(row["run_id"] for row in told) == sorted(run.run_id for run in runs), table
            assert {row["actor"] for row in told} == {admin.actor}
    finally:
        await owner.close()
    assert await platform.queue.faults() == []


async def test_an_edit_acts_at_once_on_a_leader_that_sleeps_and_a_paused_schedule_stays_silent(place: Place) -> None:
    distant = await place.overdue("0 0 1 1 *")
    silent = await place.overdue("0 0 1 1 *")
    async with place.scheduler() as (process, settings):
        await place.until(lambda: leads(settings))
        earlier = place.earlier()
        await earlier.pause(place.site.admin, silent.schedule_id)
        await earlier.edit(place.site.admin, silent.schedule_id, cron=place.cron())
        began = asyncio.get_running_loop().time()
        await earlier.edit(place.site.admin, distant.schedule_id, cron=place.cron())
        await place.fired(distant)
        assert asyncio.get_running_loop().time() - began < 5
        [run] = await place.runs()
        assert (
            await place.site.platform.schedules.get(place.site.admin, distant.schedule_id)
        ).last_run_id == run.run_id
        await process.stop()
        assert process.exit_code == 0


async def test_a_poller_sees_a_change_through_the_whole_process(place: Place) -> None:
    admin, pollers = place.site.admin, place.site.platform.pollers
    with serving_feed() as feed:
        allowed = place.site.platform.settings.model_copy(update={"allowed_private_hosts": (feed.host,)})
        async with site_in(allowed) as site, place.scheduler(allowed_private_hosts=(feed.host,)):
            made = await site.platform.pollers.create(admin, name="Feed", url=feed.url, workflow="feed-changed")

            async def status(wanted: PollStatus) -> bool | None:
                return (await pollers.get(admin, made.poller_id)).last_status is wanted or None

            await place.site.until(lambda: status(PollStatus.FIRST))
            feed.entries.append({"id": "2", "title": "Two"})
            await pollers.look_now(admin, made.poller_id)
            await place.site.until(lambda: status(PollStatus.CHANGED))
            [run] = await place.runs()
            assert run.input["change"]["entries"][0]["title"] == "Two"


async def test_parked_runs_wake_in_time_and_those_of_a_dead_worker_are_queued_again(
    place: Place, tmp_path: Path
) -> None:
    platform, admin = place.site.platform, place.site.admin
    work = {"log": str(tmp_path / "effects"), "sleep_s": 1.0}
    async with place.scheduler() as (_, settings):
        await place.until(lambda: leads(settings))
        orphan, _ = await platform.runs.submit(admin, RunRequest("sample-plain", work))
        await platform.queue.heartbeat(WorkerId("dies"), 1)
        [claim] = await platform.queue.claim(WorkerId("dies"), 1)
        assert claim.run_id == orphan.run_id
        async with working(place.site):
            sleeper, _ = await platform.runs.submit(admin, RunRequest("sample-waits", work))
            await place.site.runs_until([sleeper], lambda run: run.cause is Cause.EVENT)
            [rescued] = await place.site.ended([orphan])
            assert (rescued.state, rescued.attempt) == (RunState.SUCCEEDED, 2)


async def test_schedules_fire_after_postgres_was_restarted_and_while_redis_is_gone(
    place: Place, postgres_server: Postgres, redis_server: Redis
) -> None:
    async with place.scheduler() as (process, settings):
        await place.until(lambda: leads(settings))
        await postgres_server.stop()
        await postgres_server.start()
        await place.fired(await place.overdue())
        await redis_server.stop()
        try:
            await place.fired(await place.overdue())
        finally:
            await redis_server.start()
        await place.fired(await place.overdue())
        assert len(await place.runs()) == 3
        assert process.exit_code is None


async def test_a_leader_with_nothing_to_do_asks_postgres_nothing(
    place: Place, postgres_server: Postgres, owner_dsn: str
) -> None:
    await place.overdue("0 0 1 1 *")
    async with place.scheduler() as (_, settings):
        await place.until(lambda: leads(settings))
        elsewhere = await asyncpg.connect(postgres_server.url)
        try:
            async with asyncio.timeout(30):
                quiet_s = 0.0
                while quiet_s < SLEEPING_S:
                    quiet_s = await elsewhere.fetchval(
                        "select extract(epoch from clock_timestamp() - max(state_change))::float8"
                        " from pg_stat_activity where datname = $1 and application_name like 'bailiwick-%'"
                        " and application_name <> 'bailiwick-test'",
                        owner_dsn.rpartition("/")[2],
                    )
                    await asyncio.sleep(0.1)  # other processes do not tell us that they are silent
        finally:
            await elsewhere.close()
