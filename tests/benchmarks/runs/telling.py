"""What a run says, in another process: from the call of ``run.progress`` in a worker until a follower here has it.

The web process streams each run's own events (``GET /runs/{run_id}/events``), and a program follows it as any would.
Ten runs execute at once and each speaks every 20 ms or so; every word is written to the run before it is told. Beside
it, for the same words: when the bus, which tells screens only that there is something to read, has told of them.
"""

from __future__ import annotations

import asyncio
import time

from core.demo.client import ApiClient
from core.queue.simulator import quantile
from core.redis.bus import Events
from core.tenancy import ROLE_SCOPES, Role, TenantContext
from tests.benchmarks.report import Row
from tests.benchmarks.runs.site import DEADLINE_S, Site, tenant

_RUNS = 10
_FIRST = 10


async def measure(site: Site, *, words: int = 100) -> list[Row]:
    """The latencies of all words after the first ten of each run."""
    ctx = await tenant(site.platform.tenants, 0)
    key = await site.platform.tenants.issue_key(ctx, "telling", tuple(ROLE_SCOPES[Role.ADMIN]))
    deadline = time.monotonic() + DEADLINE_S
    async with site.web() as url, site.worker(), ApiClient(url, key, deadline=deadline) as api:
        await site.outputs([await site.submit(ctx, "floor", number=number) for number in range(50)])
        async with site.platform.bus.subscribe(ctx.tenant_id) as events, asyncio.timeout(DEADLINE_S):
            on_bus = asyncio.create_task(_heard(events))
            followed = await asyncio.gather(*(_followed(site, ctx, api, words) for _ in range(_RUNS)))
            bus = await on_bus
    taken = [latency for one in followed for latency in one]
    peers = {
        "p50, ms": 1000 * quantile(taken, 0.5),
        "on the bus alone, p95, ms": 1000 * quantile(bus, 0.95),
        "words": float(len(taken)),
    }
    return [
        Row("an event of a run, to a follower of its stream, p95", 1000 * quantile(taken, 0.95), "ms", 100, "<=", peers)
    ]


async def _followed(site: Site, ctx: TenantContext, api: ApiClient, words: int) -> list[float]:
    run_id = await site.submit(ctx, "telling", number=words)
    return [
        time.perf_counter() - float(event.data["note"])
        async for event in api.events(run_id)
        if event.kind == "progress" and event.data["done"] >= _FIRST
    ]


async def _heard(events: Events) -> list[float]:
    """Until all have ended."""
    taken: list[float] = []
    ended = 0
    while ended < _RUNS:
        event = await anext(events)
        now = time.perf_counter()
        if progress := event.data.get("progress"):
            if progress["done"] >= _FIRST:
                taken.append(now - float(progress["note"]))
        else:
            ended += event.data.get("state") == "succeeded"
    return taken
