"""How soon an event is with a subscriber in another process: from the write to the stream's line.

A run executes here; the web process is another one, and so is, through it, the subscriber: both ends read this
machine's clock. Every event is written alone, at a time that no subscriber waits for by a timer.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import dataclass

import httpx

from core.bootstrap import Platform
from core.ids import WorkerId
from core.runs.execution import Executing
from core.runs.model import RunRequest, RunState, Said
from core.tenancy import ROLE_SCOPES, ActorKind, Role, TenantContext

TARGET_P95_S = 0.100
_DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from the call that writes an event to its line at a subscriber. ``p95_s`` should be at most 0.1."""

    events: int
    subscribers: int
    p50_s: float
    p95_s: float
    p99_s: float


async def event_latency(
    platform: Platform, admin: TenantContext, web_url: str, *, workflow: str, events: int = 300, subscribers: int = 5
) -> Latency:
    """Measure on a running web process, with a run of ``workflow`` (any registered one; it is not executed).

    ``admin``: of a tenant with nothing else in the queue; no worker may run.
    """
    key = await platform.tenants.issue_key(admin, "events", tuple(ROLE_SCOPES[Role.ADMIN]))
    run, _ = await platform.runs.submit(admin, RunRequest(workflow, {"log": "unused"}))
    worker = WorkerId("bench-events")
    await platform.queue.heartbeat(worker, 4)
    (claim,) = await platform.queue.claim(worker, 1)
    ctx = await platform.tenants.context_for(admin.tenant_id, actor_kind=ActorKind.RUN, actor_id=run.run_id)
    on = Executing(ctx, run.run_id, claim.attempt, claim.budget_microusd, None, None)
    written: list[float] = []
    seconds: list[float] = []
    listening = asyncio.Semaphore(0)

    async def subscribe(http: httpx.AsyncClient) -> None:
        headers = {"Accept": "text/event-stream"}
        async with http.stream("GET", f"/api/v1/runs/{run.run_id}/events", headers=headers) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: "):
                    continue
                event = json.loads(line.removeprefix("data: "))
                if event["kind"] == "claimed":
                    listening.release()
                elif event["kind"] == "value":
                    seconds.append(time.perf_counter() - written[event["data"]["value"]])

    headers = {"Authorization": f"Bearer {key}"}
    async with (
        asyncio.timeout(_DEADLINE_S),
        httpx.AsyncClient(base_url=web_url, headers=headers, timeout=60, trust_env=False) as http,
        asyncio.TaskGroup() as tasks,
    ):
        for _ in range(subscribers):
            tasks.create_task(subscribe(http))
        for _ in range(subscribers):
            await listening.acquire()
        for number in range(events):
            written.append(time.perf_counter())
            await platform.execution.tell(on, [Said("value", {"step": 1, "attempt": 1, "value": number})], None)
            await asyncio.sleep(0.01 + number % 7 / 100)
        await platform.execution.end(on, RunState.SUCCEEDED)
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return Latency(events, subscribers, cuts[49], cuts[94], cuts[98])
