"""Whole short runs beside bare DBOS workflows, and how soon a run starts.

Both sides submit one by one, execute in worker processes of their own, and do the same: one step that returns a small
document. Ours also admits, schedules fairly among tenants, fences every write, keeps a ledger and tells the user
interfaces; the peer has a queue and nothing else. Each side is measured twice: from the first submission to the last
end, and executing alone what was queued before. Both sides are measured by turns, several times; the median of each
concurrency is taken, and of those the fastest one counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import asyncpg

from core.bootstrap import open_platform
from core.runs.model import RunRequest
from core.settings import Settings
from scheduler.worker import open_worker
from tests.benchmarks.peer_database import beside
from tests.benchmarks.queue.places import Place
from tests.benchmarks.report import Row
from tests.benchmarks.runs import plain_dbos
from tests.benchmarks.runs.site import DEADLINE_S, MODULE, SQL, tenant
from tests.benchmarks.runs.workload import first_lines
from tests.fixtures.ports import free_port_base
from tests.fixtures.workers import WorkerProcess

RUNS = 1_000
SLOTS = (20, 100)
STARTS = 200
_TENANTS = 8
_SUBMITTERS = 4

Submit = Callable[[int], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Throughput:
    """Runs per second of one side."""

    whole: float
    executing: float


async def by_turns(
    place: Place, runs: int, settings: Sequence[tuple[int, int]], repeats: int
) -> tuple[dict[str, Throughput], dict[str, Throughput]]:
    """Ours and the peer's by how they were run: the medians of so many measurements, made by turns.

    ``settings``: slots of each worker process, and how many of them.
    """
    ours: dict[str, list[Throughput]] = {}
    plain: dict[str, list[Throughput]] = {}
    for slots, workers in [*settings] * repeats:
        name = f"{slots} at once" if workers == 1 else f"{workers} workers"
        async with place.installation() as installed:
            ours.setdefault(name, []).append(await of_ours(installed, slots, runs, workers))
            plain.setdefault(name, []).append(await of_plain_dbos(installed, slots, runs, workers))
    return _medians(ours), _medians(plain)


def _medians(measured: dict[str, list[Throughput]]) -> dict[str, Throughput]:
    return {
        name: Throughput(median(one.whole for one in each), median(one.executing for one in each))
        for name, each in measured.items()
    }


async def of_ours(settings: Settings, slots: int, runs: int = RUNS, workers: int = 1) -> Throughput:
    """Ours, on an installation with an empty queue. ``slots`` of each worker process."""
    settings = settings.model_copy(update={"workflow_modules": (MODULE,), "worker_slots": slots})
    async with open_platform(settings, process="bench") as platform:
        tenants = itertools.cycle([await tenant(platform.tenants, number) for number in range(_TENANTS)])

        async def submit(number: int) -> None:
            await platform.runs.submit(next(tenants), RunRequest("floor", {"number": number}))

        @contextmanager
        def working() -> Iterator[None]:
            processes = [WorkerProcess(settings, Path(settings.home), free_port_base()) for _ in range(workers)]
            try:
                yield
            finally:
                for process in processes:
                    process.kill()

        settings.home.mkdir(parents=True, exist_ok=True)
        measured = await _throughput(settings.required("database_url"), "ours", submit, working, runs)
        await platform.queue.recover()
        return measured


async def of_plain_dbos(settings: Settings, slots: int, runs: int = RUNS, workers: int = 1) -> Throughput:
    """The peer's, on the same server."""
    pool_size = settings.database_pool_size
    async with beside(settings) as dsn:

        @contextmanager
        def working() -> Iterator[None]:
            with ExitStack() as stack:
                for _ in range(workers):
                    stack.enter_context(plain_dbos.worker(dsn, slots, pool_size))
                yield

        with contextlib.closing(plain_dbos.Plain(dsn, pool_size)) as plain:
            return await _throughput(dsn, "plain", plain.submit, working, runs)


async def start_latencies(settings: Settings, starts: int = STARTS) -> list[float]:
    """Seconds from the call of ``submit`` to the first line of the run's code, one run at a time, worker idle."""
    settings = settings.model_copy(update={"workflow_modules": (MODULE,), "worker_slots": 20})
    taken: list[float] = []
    async with open_platform(settings, process="bench") as platform, open_worker(platform) as worker:
        ctx = await tenant(platform.tenants, 0)
        working = asyncio.create_task(worker.run())
        try:
            async with platform.bus.subscribe(ctx.tenant_id) as events:
                for number in range(-10, starts):
                    gc.collect()
                    called = time.perf_counter()
                    run, _ = await platform.runs.submit(ctx, RunRequest("floor", {"number": number}))
                    async with asyncio.timeout(DEADLINE_S):
                        while not (await platform.runs.get(ctx, run.run_id)).state.final:
                            with contextlib.suppress(TimeoutError):
                                await asyncio.wait_for(anext(events), 0.1)
                    taken.append(first_lines[number] - called)
        finally:
            worker.stop()
            await working
    return taken[10:]


def ratio(
    what: str,
    ours: dict[str, Throughput],
    plain: dict[str, Throughput],
    of: Callable[[Throughput], float],
) -> Row:
    """Each side at its best; both are named by how they were run."""
    peers = {f"plain DBOS, {name}, runs/s": of(measured) for name, measured in plain.items()}
    peers |= {f"ours, {name}, runs/s": of(measured) for name, measured in ours.items()}
    best = max(of(measured) for measured in plain.values())
    return Row(what, max(of(measured) for measured in ours.values()) / best, "of DBOS", 0.95, ">=", peers)


async def _throughput(
    dsn: str, side: str, submit: Submit, working: Callable[[], AbstractContextManager[None]], runs: int
) -> Throughput:
    owner = await asyncpg.connect(dsn)
    try:
        since = time.time()
        await _submit_all(submit, runs)
        with working():
            first, last = await _ended(owner, side, since, runs)
            executing = runs / (last - first)
            since = time.time()
            await submit(0)  # the worker is idle and has executed one when the clock starts
            await _ended(owner, side, since, 1)
            since = time.time()
            await _submit_all(submit, runs)
            _, last = await _ended(owner, side, since, runs)
            return Throughput(runs / (last - since), executing)
    finally:
        await owner.close()


async def _submit_all(submit: Submit, runs: int) -> None:
    numbers = iter(range(runs))

    async def some() -> None:
        for number in numbers:
            await submit(number)

    await asyncio.gather(*(some() for _ in range(_SUBMITTERS)))


async def _ended(owner: asyncpg.Connection[asyncpg.Record], side: str, since: float, runs: int) -> tuple[float, float]:
    """When the first began and the last ended, once all have."""
    async with asyncio.timeout(DEADLINE_S):
        while (row := await owner.fetchrow(SQL[side], since)) is None or row["ended"] < runs:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.1)
    return row["first"], row["last"]
