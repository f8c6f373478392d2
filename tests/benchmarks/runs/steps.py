"""A step beside a bare DBOS step: a chain of them in one run, and twenty chains at once.

Both sides are up in processes of their own and take turns on the same server, so what else the machine does falls on
both alike. A chain says itself when its first step began and its last one had ended. Ours reserves no money here: the
steps have no estimate, as the peer's have none.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from core.tenancy import TenantContext
from tests.benchmarks.peer_database import beside
from tests.benchmarks.report import Row
from tests.benchmarks.runs import plain_dbos
from tests.benchmarks.runs.site import Site, tenant

AT_ONCE = 20

Chains = Callable[[int, int], Awaitable[Sequence[dict[str, Any]]]]


async def measure(site: Site, *, alone: int = 100, each: int = 20, rounds: int = 5) -> list[Row]:
    """Milliseconds per step of one chain, and steps per second of twenty, as ratios to the peer's."""
    ctx, pool_size = await tenant(site.platform.tenants, 0), site.settings.database_pool_size
    async with beside(site.settings) as dsn, site.worker():
        with closing(plain_dbos.Plain(dsn, pool_size)) as plain, plain_dbos.worker(dsn, AT_ONCE, pool_size):
            sides = partial(_ours, site, ctx), partial(_theirs, plain)
            for side in sides:
                await side(AT_ONCE, 5)  # warm: imports, connections, statements
            single = await _in_turns(*sides, 1, alone, rounds)
            many = await _in_turns(*sides, AT_ONCE, each, rounds)
    return [
        _row("a step after the other, time / bare DBOS step", single, alone),
        _row(f"{AT_ONCE} runs at once, time per step / bare DBOS step", many, AT_ONCE * each),
    ]


async def _ours(site: Site, ctx: TenantContext, chains: int, steps: int) -> Sequence[dict[str, Any]]:
    return await site.outputs([await site.submit(ctx, "chain", number=steps) for _ in range(chains)])


async def _theirs(plain: plain_dbos.Plain, chains: int, steps: int) -> Sequence[dict[str, Any]]:
    handles = [await plain.submit(steps, "chain") for _ in range(chains)]
    return [await handle.get_result() for handle in handles]


async def _in_turns(
    ours: Chains, theirs: Chains, chains: int, steps: int, rounds: int
) -> tuple[list[float], list[float]]:
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side, seconds in zip((ours, theirs), taken, strict=True):
            stamps = await side(chains, steps)
            seconds.append(max(one["ended"] for one in stamps) - min(one["began"] for one in stamps))
            await asyncio.sleep(0.2)
    return taken


def _row(what: str, taken: tuple[list[float], list[float]], steps: int) -> Row:
    ours, theirs = (statistics.median(side) for side in taken)
    peers = {"ours, ms": 1000 * ours / steps, "plain DBOS, ms": 1000 * theirs / steps}
    return Row(what, ours / theirs, "x", 1.25, "<=", peers)
