"""A hundred thousand parked runs: what they cost a worker, and how soon one of them goes on.

They are submitted by the service, in batches of 5,000, and claimed by the queue's own verb. A worker would then execute
each up to its wait, which takes minutes; here the statements that it writes are made for thousands of runs at once
(``begin_waits``, ``park_released``), with the slots given back by the verb. Those that go on after decisions and timers
are parked by a worker.

How soon: one run at a time goes on, chosen at random among all, executed by an idle worker process; from the call that
ends its wait (or from the moment when its timer is over) to the first line of its code after the wait.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import psutil

from core.ids import RunId, WorkerId
from core.queue.simulator import quantile
from core.runs.model import RunRequest
from core.tenancy import Role, TenantContext
from tests.benchmarks.report import Row
from tests.benchmarks.runs.site import DEADLINE_S, GENEROUS, SQL, Site, tenant
from tests.fixtures.people import People

_TENANTS = 20
_BATCH = 5_000
_AT_ONCE = 500  # a row that is written again and again in one transaction is found ever more slowly
_PARKER = WorkerId("parker")
_FAR = timedelta(days=30)


@dataclass(slots=True)
class Crowd:
    """The parked runs, by tenant, and how fast they came to be."""

    tenants: list[TenantContext]
    runs: dict[RunId, tuple[TenantContext, int]] = field(default_factory=dict)
    submit_s: float = 0.0
    park_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds until a run went on, by what it had waited for; ``worker_bytes``: the worker's memory afterwards."""

    by_cause: dict[str, list[float]]
    worker_bytes: int


async def park(site: Site, crowd: Crowd, count: int, *, cause: str = "event", over: timedelta = _FAR) -> list[RunId]:
    """So many more; for timers ``over`` from now."""
    share = math.ceil(count / len(crowd.tenants))
    parked: list[RunId] = []
    for ctx in crowd.tenants:
        first = len(crowd.runs)
        for start in range(first, first + share, _BATCH):
            numbers = range(start, min(start + _BATCH, first + share))
            began = time.perf_counter()
            requests = [RunRequest("parked", {"number": number, "on": cause}) for number in numbers]
            views = await site.platform.runs.submit_many(ctx, requests)
            crowd.submit_s += time.perf_counter() - began
            parked += [view.run_id for view in views]
            crowd.runs |= {view.run_id: (ctx, number) for view, number in zip(views, numbers, strict=True)}
    began = time.perf_counter()
    await site.platform.queue.heartbeat(_PARKER, 10_000_000)
    left = len(parked)
    while left:
        left -= len(await site.platform.queue.claim(_PARKER, min(left, _AT_ONCE)))
    now = site.platform.clock.now()
    for ctx in crowd.tenants:
        await site.owner.execute(SQL["begin_waits"], _PARKER, ctx.tenant_id, now, now + over, cause)
        released = [""]
        while released:
            async with site.owner.transaction():
                await site.owner.execute(SQL["in_tenant"], ctx.tenant_id)
                released = await site.owner.fetchval(SQL["release_held"], _PARKER, ctx.tenant_id, now, _AT_ONCE)
                await site.owner.execute(SQL["park_released"], released, now, cause)
    await site.platform.queue.leave(_PARKER)
    crowd.park_s += time.perf_counter() - began
    return parked


async def measure(
    empty: Site, full: Site, *, runs: int = 100_000, samples: int = 200, together: int = 2_000
) -> list[Row]:
    """The same with next to nobody parked, and with so many."""
    alone = await resumed(empty, await crowd_in(empty, samples), samples, seed=1)
    crowd = await crowd_in(full, runs)
    many = await resumed(full, crowd, samples, seed=1)
    last_s = await at_once(full, crowd, together)
    rows = []
    names = {"event": "an event", "review": "a decision", "timer": "a timer"}
    for cause, name in names.items():
        taken, before = many.by_cause[cause], alone.by_cause[cause]
        peers = {
            "p50, ms": 1000 * quantile(taken, 0.5),
            "p99 with none parked, ms": 1000 * quantile(before, 0.99),
        }
        rows.append(
            Row(f"{runs:,} parked: resumed after {name}, p99", 1000 * quantile(taken, 0.99), "ms", 250, "<=", peers)
        )
    megabytes = {"MB": many.worker_bytes / 1e6, "with none parked, MB": alone.worker_bytes / 1e6}
    what = f"{runs:,} parked: worker memory / none parked"
    return [
        *rows,
        Row(what, many.worker_bytes / alone.worker_bytes, "x", 1.05, "<=", megabytes),
        Row(f"{together:,} timers over at once: last run resumed after", last_s, "s", None, "<="),
        Row(f"{runs:,} parked: submitted, runs/s", runs / crowd.submit_s, "runs/s", None, ">="),
    ]


async def crowd_in(site: Site, count: int) -> Crowd:
    """So many, parked on events."""
    crowd = Crowd([await tenant(site.platform.tenants, number) for number in range(_TENANTS)])
    await park(site, crowd, count)
    await site.owner.execute(SQL["statistics"])
    return crowd


async def resumed(site: Site, crowd: Crowd, samples: int, seed: int) -> Latencies:
    """One after the other goes on; of events, those of the crowd at random."""
    dice = random.Random(seed)
    async with site.scheduler(), site.worker() as worker:
        ctx = crowd.tenants[0]
        await site.outputs([await site.submit(ctx, "floor", number=number) for number in range(50)])
        by_cause = {
            "event": await _events(site, crowd, samples, dice),
            "review": await _decisions(site, ctx, samples),
            "timer": await _timers(site, ctx, samples, dice),
        }
        return Latencies(by_cause, psutil.Process(worker.pid).memory_info().rss)


async def _events(site: Site, crowd: Crowd, samples: int, dice: random.Random) -> list[float]:
    chosen = dice.sample(sorted(crowd.runs), samples)
    taken = []
    for run_id in chosen:
        ctx, number = crowd.runs.pop(run_id)
        called = time.perf_counter()
        await site.platform.runs.send_event(ctx, "go", str(number), {})
        (output,) = await site.outputs([run_id], look_s=0.01)
        taken.append(output["clock"] - called)
    return taken


async def _decisions(site: Site, ctx: TenantContext, samples: int) -> list[float]:
    people = People(site.platform.tenants)
    _, identity = await people.login("ravi@bank-0.example", "bank-0", Role.REVIEWER, policy=GENEROUS)
    reviews, reviewer = site.platform.reviews, identity.ctx
    run_ids = [await site.submit(ctx, "parked", number=number, on="review") for number in range(samples)]
    await _all_parked(site, run_ids)
    taken = []
    for review in await reviews.open(reviewer):
        called = time.perf_counter()
        await reviews.decide(reviewer, review.review_id, "approve")
        (output,) = await site.outputs([review.run_id], look_s=0.01)
        taken.append(output["clock"] - called)
    return taken


async def _timers(site: Site, ctx: TenantContext, samples: int, dice: random.Random) -> list[float]:
    """Twenty a second on average."""
    run_ids = [
        await site.submit(ctx, "parked", number=number, on="timer", sleep_s=10 + dice.uniform(0, samples / 20))
        for number in range(samples)
    ]
    await _all_parked(site, run_ids)
    moments = [row["wake_at"] for row in await site.owner.fetch(SQL["timers"], run_ids)]
    outputs = await site.outputs(run_ids)
    return [output["time"] - moment for output, moment in zip(outputs, moments, strict=True)]


async def _all_parked(site: Site, run_ids: Sequence[RunId]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await site.owner.fetchval(SQL["parked"], list(run_ids)) < len(run_ids):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


async def at_once(site: Site, crowd: Crowd, count: int) -> float:
    """Seconds from the moment when so many timers are over together until the last of their runs has gone on."""
    run_ids = await park(site, crowd, count, cause="timer", over=timedelta(seconds=20))
    moment = max(float(row["wake_at"]) for row in await site.owner.fetch(SQL["timers"], run_ids))
    async with site.scheduler(), site.worker():
        began = max(moment, time.time())
        return max(float(output["time"]) for output in await site.outputs(run_ids)) - began
