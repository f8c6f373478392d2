"""A worker that only claims and gives back, to be killed: ``python -m tests.benchmarks.queue.claimer WORKER``.

Its settings are the environment's. A run ends in the transaction that releases its slot, as for a real worker;
what is lost with a connection is taken back by asking what this worker holds.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time

from core.clock import SystemClock
from core.db.pool import Database
from core.db.queries import load_queries
from core.errors import BailiwickError, Unavailable
from core.ids import TenantId, WorkerId
from core.queue.model import Claim, Held
from core.queue.service import QueueService
from core.redis.bus import Bus
from core.settings import Settings
from core.tenancy import ActorKind, Policy, TenantContext

SQL = load_queries(__file__, "bench_queue.sql")
SLOTS = 48
_HEARTBEAT_S = 1.0
_RETRY_S = 0.1
_WORK_S = 0.01


class Claimer:
    """One worker process."""

    def __init__(self, db: Database, queue: QueueService, worker_id: WorkerId) -> None:
        self._db = db
        self._queue = queue
        self._worker_id = worker_id
        self._said = float("-inf")

    async def work(self) -> None:
        """For ever."""
        while True:
            try:
                await self._batch()
            except BailiwickError:
                self._said = float("-inf")
                await asyncio.sleep(_RETRY_S)

    async def _batch(self) -> None:
        if time.monotonic() - self._said > _HEARTBEAT_S:
            if await self._queue.heartbeat(self._worker_id, SLOTS):
                await self._queue.recover(self._worker_id)
            self._said = time.monotonic()
        claims = await self._queue.claim(self._worker_id, SLOTS)
        await asyncio.sleep(random.uniform(0, 2 * _WORK_S))
        for tenant, runs in itertools.groupby(sorted(claims, key=_tenant), key=_tenant):
            await self._end(tenant, [run.held for run in runs])

    async def _end(self, tenant: TenantId, held: list[Held]) -> None:
        async with self._db.tenant_transaction(context(tenant)) as tx:
            ours = [one.run_id for one in held if await self._queue.release_in(tx, one) is not None]
            await tx.execute(SQL["end_runs"], ours, self._worker_id)


def _tenant(claim: Claim) -> TenantId:
    return claim.tenant_id


def context(tenant: TenantId) -> TenantContext:
    """Something that acts for a tenant, and has no rights: the queue asks for none."""
    return TenantContext(tenant, None, ActorKind.SYSTEM, "bench", frozenset(), Policy(), 1, "bench", "us-east-1")


async def _opened(settings: Settings) -> Database:
    while True:
        try:
            return await Database.open(settings.required("database_app_url"), size=2)
        except Unavailable:
            await asyncio.sleep(_RETRY_S)


async def main(settings: Settings, worker_id: WorkerId) -> None:
    """Work until killed."""
    clock = SystemClock()
    db = await _opened(settings)
    bus = await Bus.open(settings.required("redis_url"), clock, region=settings.region)
    await Claimer(db, QueueService(db, bus, clock), worker_id).work()


if __name__ == "__main__":
    asyncio.run(main(Settings(), WorkerId(sys.argv[1])))
