"""Admissions while workers and Postgres are killed: nothing over a cap, nothing lost, nothing done twice.

Four workers claim and end runs as fast as they can. Every few seconds one of them, or Postgres, is killed (-9) and
started again. A trigger counts, inside the transaction of each claim, the slots that its tenant then holds; each end
leaves a row. What is asked at the end is asked in SQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from core.clock import SystemClock
from core.db.pool import Database
from core.db.queries import load_queries
from core.embedded.environment import environment_for
from core.embedded.postgres import Postgres
from core.errors import BailiwickError
from core.queue.rows import Terms
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.settings import Settings
from tests.benchmarks.queue.drive import policy_of
from tests.benchmarks.queue.scale import queue_backlog

SQL = load_queries(__file__, "bench_queue.sql")
ROOT = Path(__file__).parents[3]
_WORKERS, _TENANTS = 4, 10
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Damage:
    """What the database says after everything ended; ``kills`` of workers, ``crashes`` of Postgres."""

    admissions: int
    claims: int
    ended: int
    kills: int
    crashes: int
    over: int
    lost: int
    duplicated: int
    faults: int
    seconds: float


async def measure(
    settings: Settings,
    postgres: Postgres,
    runs: int,
    *,
    every_s: float = 3.0,
    postgres_every: int = 4,
    most: int = 1_000,
    deadline_s: float = 180.0,
) -> Damage:
    """``runs`` admissions of ten tenants with different caps; of so many kills one is Postgres'.

    There are ``most`` kills at most.
    """
    clock = SystemClock()
    owner = await asyncpg.connect(settings.required("database_url"))
    names = [f"tenant-{number}" for number in range(_TENANTS)]
    policies = [policy_of(Terms(weight=1 + number % 3, cap=5 + 4 * number)) for number in range(_TENANTS)]
    await owner.execute(SQL["tenants"], names, policies, clock.now())
    await queue_backlog(owner, names, runs // _TENANTS, "job", 1.0, clock.now())
    await owner.execute(SQL["witnesses"])
    await owner.close()
    began = time.monotonic()
    async with _queue(settings, clock) as queue:
        killer = _Killer(settings, postgres, postgres_every)
        try:
            await _until_ended(queue, killer, every_s, most, began + deadline_s)
        finally:
            killer.end()
    owner = await asyncpg.connect(settings.required("database_url"))
    try:
        row = await owner.fetchrow(SQL["damage"])
    finally:
        await owner.close()
    assert row is not None
    return Damage(
        admissions=runs, kills=killer.kills, crashes=killer.crashes, seconds=time.monotonic() - began, **dict(row)
    )


async def _until_ended(queue: QueueService, killer: _Killer, every_s: float, most: int, deadline: float) -> None:
    next_kill = time.monotonic() + every_s
    while time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_S)
        with contextlib.suppress(BailiwickError):
            await queue.recover()  # as the scheduler does
            if not await queue.anything_moves():
                return
        if time.monotonic() >= next_kill and killer.kills + killer.crashes < most:
            await killer.strike()
            next_kill = time.monotonic() + every_s


@asynccontextmanager
async def _queue(settings: Settings, clock: SystemClock) -> AsyncIterator[QueueService]:
    db = await Database.open(settings.required("database_app_url"), size=2)
    bus = await Bus.open(settings.required("redis_url"), clock, region=settings.region)
    try:
        yield QueueService(db, bus, clock)
    finally:
        await bus.close()
        await db.close()


class _Killer:
    """Starts the workers, and kills one of them or Postgres in turn."""

    def __init__(self, settings: Settings, postgres: Postgres, postgres_every: int) -> None:
        self.kills = self.crashes = 0
        self._env = environment_for(settings, secrets=("database_app_url", "redis_url")) | {
            "PYTHONPATH": str(ROOT),
            "PATH": os.environ["PATH"],
        }
        self._postgres = postgres
        self._postgres_every = postgres_every
        self._numbers = itertools.count(1)
        self._random = random.Random(1)
        self._workers = [self._start() for _ in range(_WORKERS)]

    def _start(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "tests.benchmarks.queue.claimer", f"claimer-{next(self._numbers)}"]
        return subprocess.Popen(argv, env=self._env, start_new_session=True)

    async def strike(self) -> None:
        """One more kill."""
        if (self.kills + self.crashes) % self._postgres_every == self._postgres_every - 1:
            os.kill(self._postgres.process.pid, signal.SIGKILL)
            await self._postgres.process.wait()
            await self._postgres.start()
            self.crashes += 1
            return
        at = self._random.randrange(_WORKERS)
        self._workers[at].kill()
        self._workers[at].wait()
        self._workers[at] = self._start()
        self.kills += 1

    def end(self) -> None:
        """Kill them all."""
        for worker in self._workers:
            worker.kill()
            worker.wait()
