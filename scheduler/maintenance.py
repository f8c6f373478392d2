"""Jobs with periods of their own, run one after the other in one loop that sleeps until something is due.

Each job says, whenever it has run, after how many seconds it wants to run again, or that it has nothing to
do; a signal on one of the topics makes the jobs that listen run at once. Jobs that are due within a second of
each other run together, and those with nothing to do at the idle looks (``idle_look_s``), so an idle Postgres
sees one short burst every quarter of an hour, and nothing in between.

A clock that goes back makes all of them run: else what is due by the old time would be put off by as much.
A job that fails is logged and tried again after 1 s, doubling up to 30 s; the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from prometheus_client import CollectorRegistry, Counter

from core.clock import Clock
from core.errors import BailiwickError
from core.queue.model import idle_look_s
from core.redis.bus import Bus

_TOGETHER = timedelta(seconds=1)
_BREATH_S, _SHORTEST_BREATH_S = 0.2, 0.01
_LAST_RETRY_S = 30.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Job:
    """``run`` does the work and returns the seconds until it wants to run again, at the next idle look at the
    latest; None: then.

    ``apart_s``: a signal makes it run too, but not sooner than this after its last run; None: it hears none.
    """

    name: str
    run: Callable[[], Awaitable[float | None]]
    apart_s: float | None = None
    next_at: datetime | None = field(default=None, init=False)
    last_at: datetime | None = field(default=None, init=False)
    failures: int = field(default=0, init=False)

    def due(self, now: datetime) -> bool:
        """Whether it is to run now, or so soon that it runs with what is; at once when the clock has gone back."""
        went_back = self.last_at is not None and self.last_at > now
        return went_back or self.next_at is None or self.next_at <= now + _TOGETHER

    def signalled(self) -> None:
        """Somebody signalled. A job that fails keeps its back-off."""
        if self.apart_s is not None and self.last_at is not None and self.next_at is not None and not self.failures:
            self.next_at = min(self.next_at, self.last_at + timedelta(seconds=self.apart_s))


class Maintenance:
    """The loop. ``failing`` names the jobs whose last run failed."""

    def __init__(
        self, bus: Bus, clock: Clock, jobs: list[Job], registry: CollectorRegistry, *, topics: tuple[str, ...]
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._jobs = jobs
        self._topics = topics
        labels = ("job", "outcome")
        self._runs = Counter("bailiwick_maintenance_runs", "Runs of maintenance jobs.", labels, registry=registry)

    @property
    def failing(self) -> list[str]:
        """Names of the jobs whose last run failed."""
        return [job.name for job in self._jobs if job.failures]

    def next_at(self) -> datetime | None:
        """When the next job is due; None before the first pass."""
        return min((job.next_at for job in self._jobs if job.next_at is not None), default=None)

    async def run(self) -> None:
        """Until cancelled. Everything is due at first."""
        for job in self._jobs:
            job.next_at = None
        async with self._bus.listen(*self._topics) as signals:
            while True:
                await self._pass()
                planned_s = self._sleep_s()
                began = asyncio.get_running_loop().time()
                signalled = await signals.wait(planned_s)
                breath_s = min(_BREATH_S, self._sleep_s())  # signals often come in flocks; what is due comes before
                # A wait that ends early without a signal: Redis is gone, and signals with it.
                if signalled or asyncio.get_running_loop().time() - began < planned_s - _BREATH_S:
                    for job in self._jobs:
                        job.signalled()
                await asyncio.sleep(max(_SHORTEST_BREATH_S, breath_s))

    async def _pass(self) -> None:
        now = self._clock.now()
        for job in self._jobs:
            if job.due(now):
                delay_s = await self._attempt(job)
                job.last_at = self._clock.now()
                job.next_at = job.last_at + timedelta(seconds=delay_s)

    async def _attempt(self, job: Job) -> float:
        try:
            wanted_s = await job.run()
        except BailiwickError as error:
            log.warning("maintenance.job_failed", job=job.name, error=error.message)
        except Exception:
            log.exception("maintenance.job_broke", job=job.name)
        else:
            job.failures = 0
            self._runs.labels(job.name, "done").inc()
            idle_s = idle_look_s(self._clock.now())
            return idle_s if wanted_s is None else min(wanted_s, idle_s)
        job.failures += 1
        self._runs.labels(job.name, "failed").inc()
        return min(2.0 ** (job.failures - 1), _LAST_RETRY_S)

    def _sleep_s(self) -> float:
        now, next_at = self._clock.now(), self.next_at()
        idle_s = idle_look_s(now)
        return idle_s if next_at is None else min(max(0.0, (next_at - now).total_seconds()), idle_s)
