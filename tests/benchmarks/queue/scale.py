"""10,000 tenants, each with a policy of its own, and a million queued runs: what a claim costs.

Four clients claim batches at once and give back what they hold, as workers do; the backlog is loaded as rows.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

import asyncpg
import psutil

from core.clock import SystemClock
from core.db.pool import Database, Transaction
from core.db.queries import load_queries
from core.errors import Unavailable
from core.ids import WorkerId
from core.queue import store
from core.queue.model import HEADROOM, Claim
from core.queue.rows import Terms
from core.settings import Settings
from tests.benchmarks.queue.claimer import context
from tests.benchmarks.queue.drive import policy_of
from tests.benchmarks.queue.places import careless

SQL = load_queries(__file__, "bench_queue.sql")
CLOCK = SystemClock()
Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
_CLIENTS = 4
_SLOTS = 1_000_000


@dataclass(slots=True)
class Claims:
    """What the clients saw. Memory is the resident one of all processes of Postgres, in bytes, over time."""

    claimed: int = 0
    released: int = 0
    seconds: float = 0.0
    calls_s: list[float] = field(default_factory=list)
    refused: int = 0
    memory: list[int] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Resident memory at the end, as a multiple of that after the first quarter."""
        quarter = max(1, len(self.memory) // 4)
        return statistics.median(self.memory[-quarter:]) / statistics.median(self.memory[quarter : 2 * quarter])


async def queue_backlog(
    owner: Owner,
    tenants: Sequence[str],
    each: int,
    workflow: str,
    seconds: float,
    now: datetime,
) -> None:
    """Runs of about so many seconds that are queued, the same number for each of these tenants, loaded as rows."""
    await owner.execute(SQL["without_checks"])
    await owner.execute(SQL["backlog_runs"], list(tenants), each, workflow, seconds, now)
    await owner.execute(SQL["backlog_flows"], list(tenants), each, workflow, now)
    await owner.execute(SQL["backlog_entries"], list(tenants), each, workflow, now)
    await owner.execute(SQL["with_checks"])
    await owner.execute(SQL["statistics"])


async def fill(settings: Settings, tenants: int, each: int) -> None:
    """Tenants of different weights and caps, all backlogged."""
    async with careless(settings.required("database_url")) as owner:
        names = [f"tenant-{number}" for number in range(tenants)]
        policies = [policy_of(Terms(weight=1 + number % 997 / 100, cap=50_000 + number)) for number in range(tenants)]
        await owner.execute(SQL["tenants"], names, policies, CLOCK.now())
        await queue_backlog(owner, names, each, "job", 1.0, CLOCK.now())


async def claims_at_once(settings: Settings, postgres_pid: int, seconds: float, *, back_every: int = 8) -> Claims:
    """Four clients claim for some seconds, in batches of 12; of each batch every eighth run is given back."""
    db = await Database.open(settings.required("database_app_url"), size=_CLIENTS)
    seen = Claims()
    try:
        workers = [WorkerId(f"client-{number}") for number in range(_CLIENTS)]
        await asyncio.gather(*(_connect(db, worker) for worker in workers))
        ends = time.perf_counter() + seconds
        watch = asyncio.create_task(_watch(postgres_pid, seen.memory))
        await asyncio.gather(*(_client(db, worker, ends, back_every, seen) for worker in workers))
        watch.cancel()
        seen.seconds = seconds
    finally:
        await db.close()
    return seen


async def _connect(db: Database, worker: WorkerId) -> None:
    async with db.control_transaction() as tx:
        await store.heartbeat(tx, worker, _SLOTS, False, CLOCK.now())


async def _client(db: Database, worker: WorkerId, ends: float, back_every: int, seen: Claims) -> None:
    while not seen.calls_s or time.perf_counter() < ends:
        called = time.perf_counter()
        try:
            async with db.control_statement() as tx:
                claims, _ = await store.claim(tx, worker, 12, HEADROOM, CLOCK.now())
        except Unavailable:
            seen.refused += 1
            continue
        seen.calls_s.append(time.perf_counter() - called)
        seen.claimed += len(claims)
        back = claims[::back_every]
        await _give_back(db, back, seen)
        seen.released += len(back)


async def _give_back(db: Database, held: Sequence[Claim], seen: Claims) -> None:
    """One statement for each run, as a worker does."""
    for one in held:
        try:
            async with db.tenant_statement(context(one.tenant_id)) as tx:
                await store.release(tx, one.held, CLOCK.now())
        except Unavailable:
            seen.refused += 1


async def _watch(postgres_pid: int, memory: list[int]) -> None:
    server = psutil.Process(postgres_pid)
    while True:
        total = 0
        for process in (server, *server.children()):
            with_shared = process.memory_info()
            total += with_shared.rss - with_shared.shared
        memory.append(total)
        await asyncio.sleep(0.25)


async def cost_of_a_claim(few: Settings, many: Settings, *, rounds: int = 60, batch: int = 16) -> tuple[float, float]:
    """Median seconds for one claim out of a batch, with few tenants and with many, measured in turns."""
    taken: tuple[list[float], list[float]] = ([], [])
    async with careless(few.required("database_app_url")) as one, careless(many.required("database_app_url")) as other:
        for _ in range(rounds):
            for connection, times in zip((one, other), taken, strict=True):
                tx = Transaction(connection)
                await store.heartbeat(tx, WorkerId("cost"), _SLOTS, False, CLOCK.now())
                called = time.perf_counter()
                claims, _ = await store.claim(tx, WorkerId("cost"), batch, HEADROOM, CLOCK.now())
                times.append((time.perf_counter() - called) / len(claims))
    return statistics.median(taken[0]), statistics.median(taken[1])
