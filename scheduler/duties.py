"""What the leader does: fires schedules and pollers that are due, starts the runs of events, and keeps the house.

| job | runs | does |
|---|---|---|
| timetable | on signals, else when idle | sets the alarms of the next 20 minutes from the rows |
| waits | when the next wait is over, on signals, else when idle | queues parked runs whose time has come |
| reviews | when the next one breaches its SLA, on signals, else when idle | escalates and expires what nobody decided |
| triggers | on signals, when one is put off until, else when idle | starts the runs of events |
| workers | every 4 s while runs are queued or execute, at a worker's death, else when idle | takes over its runs |
| census | every 15 s while runs are queued or execute, on signals, else when idle | counts what metrics show |
| seal | every minute while runs are queued or execute, else when idle | seals the audit |
| durations | every minute while runs are queued or execute, else when idle | fails parked runs that last too long |
| bulks | on signals, else when idle | goes on with acts on many runs |
| children | every minute while runs are queued or execute, else when idle | cancels what runs that failed left open |
| purge | every hour | removes what is kept no longer, sessions and acts among it; frees forsaken reservations |
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial

import structlog
from prometheus_client import Counter, Histogram

from core.bootstrap import Platform
from core.errors import Unavailable
from core.http import guarded_client
from core.queue.model import Topic
from core.runs.duration import Durations
from core.runs.family import Family
from core.schedules.model import Due, Upcoming
from core.schedules.service import FIRING
from core.tenancy import ActorKind, Scope
from scheduler.bulks import go_on_with_bulks
from scheduler.census import Census
from scheduler.deadlines import Deadlines
from scheduler.maintenance import Job, Maintenance
from scheduler.pollers import Lookout
from scheduler.retention import forget_old_acts
from scheduler.timetable import Timetable
from scheduler.triggers import Starter

TOPICS = (Topic.SCHEDULER, Topic.WORKERS)
_HORIZON = timedelta(minutes=20)  # further than the next idle look
_MAX_ALARMS = 10_000
_WAKE_BATCH = 500
_WATCH_S, _SHORTEST_WATCH_S = 4.0, 0.5
_CENSUS_S = 15.0
_SEAL_S = 60.0
_PURGE_S = 3_600.0
_FORSAKEN_S = 3_600.0  # no chat turn and no model call takes that long

log = structlog.get_logger(__name__)


class LeaderDuties:
    """Make it with ``open_duties``; ``run`` it while leading."""

    def __init__(self, platform: Platform, lookout: Lookout) -> None:
        self._platform = platform
        self._lookout = lookout
        self._timetable: Timetable | None = None
        self._moving = self._counted_moving = False
        self._purged_at: datetime | None = None
        self._family = Family(platform.db, platform.bus, platform.queue, platform.clock)
        self._durations = Durations(platform.db, platform.bus, platform.queue, platform.clock)
        registry = platform.metrics
        self._lateness = Histogram(
            "bailiwick_fire_lateness_seconds",
            "From the due time of a schedule or poller until it is dealt with.",
            ("kind",),
            registry=registry,
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
        )
        self._woken = Counter("bailiwick_waits_woken", "Waits that time has ended.", ("cause",), registry=registry)
        self._recovered = Counter("bailiwick_runs_recovered", "Runs of workers that died.", registry=registry)
        self._census = Census(platform.db, platform.clock, registry)
        jobs = [
            Job("timetable", self._set_alarms, apart_s=0.0),
            Job("waits", self._wake_waits, apart_s=0.0),
            Job("reviews", Deadlines(platform, registry).run, apart_s=0.0),
            Job("triggers", Starter(platform, registry).run, apart_s=0.0),
            Job("workers", self._watch_workers, apart_s=_WATCH_S),
            Job("census", self._count, apart_s=_CENSUS_S),
            Job("seal", self._seal),
            Job("durations", self._end_overlong),
            Job("bulks", partial(go_on_with_bulks, platform), apart_s=0.0),
            Job("children", self._cancel_orphans),
            Job("purge", self._purge),
        ]
        self.maintenance = Maintenance(platform.bus, platform.clock, jobs, registry, topics=TOPICS)

    async def run(self) -> None:
        """Until cancelled."""
        self._timetable = Timetable(self._fire, self._platform.clock)
        self._timetable.start()
        # Why nobody led until now is not known here: perhaps the database was away, and no worker could speak.
        self._platform.queue.forgive_silence()
        try:
            await self.maintenance.run()
        finally:
            self._timetable.stop()
            self._census.forget()

    def idle_s(self) -> float:
        """Seconds until something has to be done again; 0.0 while anything moves or fails, or before the first look."""
        alarm = None if self._timetable is None else self._timetable.next_at()
        moments = [moment for moment in (alarm, self.maintenance.next_at()) if moment is not None]
        if self._moving or self.maintenance.failing or not moments:
            return 0.0
        return max(0.0, (min(moments) - self._platform.clock.now()).total_seconds())

    async def _fire(self, due: Due) -> datetime | None:
        ctx = await self._platform.tenants.context_for(
            due.tenant_id, actor_kind=ActorKind.SCHEDULER, actor_id=due.id, scopes=FIRING
        )
        late = self._platform.clock.now() - due.due_at
        self._lateness.labels(due.kind.value).observe(max(0.0, late.total_seconds()))
        match due.kind:
            case Upcoming.SCHEDULE:
                return await self._platform.schedules.fire(ctx, due.id)
            case Upcoming.POLLER:
                return await self._lookout.look(ctx, due.id)

    # Jobs -----------------------------------------------------------------------------------------------

    async def _set_alarms(self) -> float | None:
        now = self._platform.clock.now()
        horizon = now + _HORIZON
        dues = await self._platform.schedules.upcoming(horizon, _MAX_ALARMS)
        if len(dues) == _MAX_ALARMS:
            horizon = dues[-1].due_at
        if self._timetable is not None:
            self._timetable.set(dues, horizon)
        return max(1.0, (horizon - now).total_seconds())

    async def _wake_waits(self) -> float | None:
        # Asked first, because waking takes the queue's lock, for which claims would have to wait.
        while (next_wake := await self._platform.queue.next_wake()) is not None:
            left_s = (next_wake - self._platform.clock.now()).total_seconds()
            if left_s > 0:
                return left_s
            for wait in await self._platform.queue.wake_due(_WAKE_BATCH):
                self._woken.labels(wait.reason).inc()
        return None

    async def _watch_workers(self) -> float | None:
        queue = self._platform.queue
        try:
            self._moving = await queue.anything_moves()
        except Unavailable:
            queue.forgive_silence()
            raise
        if not self._moving:
            return None
        for run in await queue.recover():
            self._recovered.inc()
            log.warning("worker.died", tenant_id=run.tenant_id, run_id=run.run_id, worker_id=run.reason, dead=run.dead)
        # Neither a look too late for a death, nor looks all the time at one that is forgiven.
        left_s = await queue.until_death_s()
        return _WATCH_S if left_s is None else min(_WATCH_S, max(_SHORTEST_WATCH_S, left_s))

    async def _count(self) -> float | None:
        await self._census.take()
        # Once more after the last run has ended, or its end would be told a quarter of an hour late.
        again, self._counted_moving = self._moving or self._counted_moving, self._moving
        return _CENSUS_S if again else None

    async def _seal(self) -> float | None:
        await self._platform.audit.seal_all()
        return _SEAL_S if self._moving else None

    async def _end_overlong(self) -> float | None:
        platform = self._platform
        for found in await self._durations.overlong():
            ctx = await platform.tenants.context_for(
                found.tenant_id,
                actor_kind=ActorKind.SCHEDULER,
                actor_id="durations",
                scopes=frozenset({Scope.RUNS_WRITE}),
            )
            if await self._durations.end(ctx, found.run_id, found.timeout_s):
                log.info("run.overlong", tenant_id=found.tenant_id, run_id=found.run_id)
        return _SEAL_S if self._moving else None

    async def _cancel_orphans(self) -> float | None:
        for tenant_id in await self._family.orphaned():
            ctx = await self._platform.tenants.context_for(
                tenant_id, actor_kind=ActorKind.SCHEDULER, actor_id="children", scopes=frozenset({Scope.RUNS_WRITE})
            )
            if stopped := await self._family.cancel_orphans(ctx):
                log.info("run.orphans_cancelled", tenant_id=tenant_id, runs=stopped)
        return _SEAL_S if self._moving else None

    async def _purge(self) -> None:
        # Looked at whenever the others are awake anyway, so that it never wakes the database by itself.
        now = self._platform.clock.now()
        if self._purged_at is None or now - self._purged_at >= timedelta(seconds=_PURGE_S):
            await self._platform.tenants.purge()
            await self._platform.usage.release_forsaken(_FORSAKEN_S)
            await self._platform.queue.forget_uses()
            await self._platform.runs.log.forget_said()
            await self._platform.queue.forget_flows()
            await self._platform.queue.forget_gaps()
            await self._platform.bulk.forget()
            await self._platform.blobs.purge()
            await self._platform.conversations.purge()
            await forget_old_acts(self._platform.audit, self._platform.tenants)
            self._purged_at = now


@asynccontextmanager
async def open_duties(platform: Platform) -> AsyncIterator[LeaderDuties]:
    """The duties with the HTTP client that pollers use."""
    async with guarded_client(platform.settings.allowed_private_hosts) as client:
        yield LeaderDuties(platform, Lookout(platform.pollers, platform.limits, client, platform.clock))
