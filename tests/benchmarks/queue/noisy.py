"""The noisy neighbour on a real worker: 20 slots, runs of half a second (within a tenth, so that they do
not all end at once), 100,000 of them queued by one tenant.

20 quiet tenants submit at random, 4 a second together, first with nobody else on the machine, then with the noise.
Only whole seconds after the first ones count, so that the worker is warm.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import asyncpg

from core.bootstrap import Platform, open_platform
from core.db.queries import load_queries
from core.queue.simulator import quantile
from core.runs.model import RunRequest
from core.settings import Settings
from core.tenancy import Policy, Role, TenantContext
from tests.benchmarks.queue.places import until
from tests.benchmarks.queue.scale import queue_backlog
from tests.fixtures.people import People
from tests.fixtures.ports import free_port_base
from tests.fixtures.workers import WorkerProcess

SQL = load_queries(__file__, "bench_queue.sql")
NOISY = "noisy"
_SLOTS, _SECONDS, _RATE, _QUIET = 20, 0.5, 4.0, 20
_MODULE = "tests.benchmarks.queue.sleeper"
_WARM_S = 3.0
_DEADLINE_S = 60.0
_GENEROUS = Policy(concurrency_cap=1_000, daily_runs=10_000_000, queue_depth=10_000_000)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the quiet tenants saw in one stretch, in seconds: of the queue, and until the first line."""

    waits_s: list[float]
    starts_s: list[float]
    busy: float

    @property
    def p99_s(self) -> float:
        """99 of 100 waited no longer in the queue."""
        return quantile(self.waits_s, 0.99)


async def measure(
    settings: Settings, seeds: tuple[int, ...], *, queued: int = 100_000, seconds: float = 25.0
) -> tuple[list[Heard], list[Heard]]:
    """Without the noise and with it, a stretch for each seed."""
    settings = settings.model_copy(update={"workflow_modules": (_MODULE,), "worker_slots": _SLOTS})
    owner = await asyncpg.connect(settings.required("database_url"))
    try:
        async with _platform(settings) as (platform, tenants):
            quiet = [await _stretch(platform, owner, tenants, seed, seconds) for seed in seeds]
            await People(platform.tenants).login("a@noisy.example", NOISY, Role.ADMIN, policy=_GENEROUS)
            await queue_backlog(owner, [NOISY], queued, "nap", _SECONDS, platform.clock.now())
            await platform.queue.signal_workers()
            noisy = [await _stretch(platform, owner, tenants, seed, seconds) for seed in seeds]
            return quiet, noisy
    finally:
        await owner.close()


@asynccontextmanager
async def _platform(settings: Settings) -> AsyncIterator[tuple[Platform, list[TenantContext]]]:
    settings.home.mkdir(parents=True, exist_ok=True)
    async with open_platform(settings, process="bench") as platform:
        people = People(platform.tenants)
        tenants = []
        for number in range(_QUIET):
            _, admin = await people.login(f"a@quiet-{number}.example", f"quiet-{number}", Role.ADMIN, policy=_GENEROUS)
            tenants.append(admin.ctx)
        worker = WorkerProcess(settings, settings.home, free_port_base())
        try:
            # The worker is there when it has executed one.
            run, _ = await platform.runs.submit(tenants[0], RunRequest("nap", {"seconds": 0.0}))

            async def ended() -> bool:
                return (await platform.runs.get(tenants[0], run.run_id)).state.final

            await until(ended, _DEADLINE_S)
            yield platform, tenants
        finally:
            worker.kill()


async def _stretch(
    platform: Platform,
    owner: asyncpg.Connection[asyncpg.Record],
    tenants: list[TenantContext],
    seed: int,
    seconds: float,
) -> Heard:
    rng = random.Random(seed)
    began, since = time.monotonic(), platform.clock.now()
    at_s = itertools.accumulate(iter(lambda: rng.expovariate(_RATE), None))
    submitted: list[asyncio.Task[object]] = []
    async with asyncio.TaskGroup() as tasks:
        for moment_s in itertools.takewhile(lambda one: one < _WARM_S + seconds, at_s):
            await asyncio.sleep(moment_s - (time.monotonic() - began))
            request = RunRequest("nap", {"seconds": _SECONDS * rng.uniform(0.9, 1.1)})
            submitted.append(tasks.create_task(platform.runs.submit(rng.choice(tenants), request)))
    to = platform.clock.now()
    await until(partial(owner.fetchval, SQL["all_ended"], NOISY, since), _DEADLINE_S)
    rows = await owner.fetch(SQL["waits"], NOISY, since, _WARM_S)
    busy = await owner.fetchval(SQL["busy_seconds"], since, to, _WARM_S)
    passed_s = (to - since).total_seconds() - _WARM_S
    return Heard([row["waited_s"] for row in rows], [row["started_s"] for row in rows], busy / (_SLOTS * passed_s))
