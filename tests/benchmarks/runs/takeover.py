"""A worker is killed (-9) in the middle of its runs: until another one has begun the last of them again.

Two worker processes and a scheduler. The moment of the kill is random, so that it falls anywhere between two heartbeats
and two looks of the scheduler.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

from core.runs.model import RunState
from tests.benchmarks.report import Row
from tests.benchmarks.runs.site import DEADLINE_S, Site, tenant

_HELD = 10


async def measure(site: Site, *, rounds: int = 4) -> list[Row]:
    """The longest of some rounds."""
    ctx = await tenant(site.platform.tenants, 0)
    dice = random.Random(1)
    taken = []
    async with site.scheduler():
        for number in range(rounds):
            log, hold = site.settings.home / f"log-{number}", site.settings.home / f"hold-{number}"
            log.touch()
            hold.touch()
            async with site.worker() as first:
                run_ids = [await site.submit(ctx, "held", hold=str(hold), log=str(log)) for _ in range(_HELD)]
                await _begun(log, 1)
                async with site.worker():
                    await asyncio.sleep(dice.uniform(0, 4))
                    killed = time.perf_counter()
                    os.kill(first.pid, signal.SIGKILL)
                    taken.append(max(await _begun(log, 2)) - killed)
                    hold.unlink()
                    await site.outputs(run_ids)
            ended = [await site.platform.runs.get(ctx, run_id) for run_id in run_ids]
            assert {run.state for run in ended} == {RunState.SUCCEEDED}
    what = f"kill -9 of a worker: its {_HELD} runs go on elsewhere, longest of {rounds}"
    return [Row(what, max(taken), "s", 10, "<=", {"shortest, s": min(taken)})]


async def _begun(log: Path, attempt: int) -> list[float]:
    """When the runs began this attempt, once all have."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            lines = [line.split() for line in log.read_text("utf-8").splitlines()]
            stamps = [float(at) for number, at in lines if int(number) == attempt]
            if len(stamps) == _HELD:
                return stamps
            await asyncio.sleep(0.05)
