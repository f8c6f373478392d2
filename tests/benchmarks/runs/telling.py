"""What a run says, in another process: from the call of ``run.progress`` in a worker until a subscriber here has it.

Ten runs execute at once and each speaks every 20 ms or so; every word is written to the run before it is told.
"""

from __future__ import annotations

import asyncio
import time

from core.queue.simulator import quantile
from tests.benchmarks.report import Row
from tests.benchmarks.runs.site import DEADLINE_S, Site, tenant

_RUNS = 10


async def measure(site: Site, *, words: int = 100) -> list[Row]:
    """The latencies of all words after the first ten of each run."""
    ctx = await tenant(site.platform.tenants, 0)
    taken: list[float] = []
    async with site.worker():
        await site.outputs([await site.submit(ctx, "floor", number=number) for number in range(50)])
        async with site.platform.bus.subscribe(ctx.tenant_id) as events, asyncio.timeout(DEADLINE_S):
            for _ in range(_RUNS):
                await site.submit(ctx, "telling", number=words)
            ended = 0
            while ended < _RUNS:
                event = await anext(events)
                heard = time.perf_counter()
                if progress := event.data.get("progress"):
                    if progress["done"] >= 10:
                        taken.append(heard - float(progress["note"]))
                else:
                    ended += event.data.get("state") == "succeeded"
    peers = {"p50, ms": 1000 * quantile(taken, 0.5), "words": float(len(taken))}
    return [
        Row("an event of a run, to a subscriber elsewhere, p95", 1000 * quantile(taken, 0.95), "ms", 100, "<=", peers)
    ]
