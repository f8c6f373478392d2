"""What a parked run costs the process that would go on with it: the peer's, asleep.

A DBOS workflow that sleeps keeps a task in its worker; ours is a row, measured in ``parked``.
"""

from __future__ import annotations

import asyncio
from functools import partial

import asyncpg
import psutil

from core.settings import Settings
from tests.benchmarks.peer_database import beside
from tests.benchmarks.queue.places import until
from tests.benchmarks.runs import plain_dbos
from tests.benchmarks.runs.site import DEADLINE_S, SQL


async def bytes_each(settings: Settings, *, asleep: int = 2_000) -> float:
    """Memory of a worker of the peer per workflow that sleeps."""
    async with beside(settings) as dsn:
        return await _bytes_each(dsn, settings.database_pool_size, asleep)


async def _bytes_each(dsn: str, pool_size: int, asleep: int) -> float:
    owner = await asyncpg.connect(dsn)
    plain = plain_dbos.Plain(dsn, pool_size)
    try:
        with plain_dbos.worker(dsn, 2 * asleep, pool_size) as pid:
            await asyncio.gather(*[handle.get_result() for handle in [await plain.submit(n) for n in range(200)]])
            before = psutil.Process(pid).memory_info().rss
            for number in range(asleep):
                await plain.submit(number, "parked")
            await until(partial(owner.fetchval, SQL["asleep"], asleep), DEADLINE_S)
            return (psutil.Process(pid).memory_info().rss - before) / asleep
    finally:
        plain.close()
        await owner.close()
