"""The loop of the scheduler's jobs, on a real Redis."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta

import pytest

from core.clock import SystemClock
from core.queue.model import Topic
from core.redis.bus import Bus
from core.settings import Settings
from core.telemetry import new_registry
from scheduler.maintenance import Job, Maintenance


async def test_what_is_due_soon_does_not_wait_for_a_flock_of_signals(settings: Settings) -> None:
    clock = SystemClock()
    bus = await Bus.open(settings.required("redis_url"), clock, region=settings.region)
    began: list[float] = []

    async def soon_again() -> float:
        began.append(asyncio.get_running_loop().time())
        await bus.signal(Topic.SCHEDULER)
        return 0.05

    maintenance = Maintenance(bus, clock, [Job("soon", soon_again)], new_registry("test"), topics=(Topic.SCHEDULER,))
    running = asyncio.create_task(maintenance.run())
    try:
        async with asyncio.timeout(60):
            while len(began) < 10:  # noqa: ASYNC110 - the loop is what is looked at
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await bus.close()
    assert min(late - early for early, late in itertools.pairwise(began)) < 0.15


@pytest.mark.parametrize(("moved_s", "due"), [(10.0, False), (0.0, False), (-3_600.0, True), (3_600.0, True)])
async def test_a_job_does_not_sleep_through_an_hour_because_the_clock_went_back(moved_s: float, due: bool) -> None:
    now = SystemClock().now()
    job = Job("workers", _nothing)
    assert job.due(now)
    job.last_at, job.next_at = now, now + timedelta(minutes=1)
    assert job.due(now + timedelta(seconds=moved_s)) is due


async def _nothing() -> None:
    """A job with nothing to do."""
