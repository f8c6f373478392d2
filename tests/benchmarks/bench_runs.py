"""A whole run beside a bare DBOS workflow, and how soon a run starts: ``pytest -s tests/benchmarks/bench_runs.py``.

Both sides submit one by one, execute in one worker process, and do the same: one step that returns a small
document. Ours also admits, schedules fairly among tenants, fences every write, keeps a ledger and tells the user
interfaces; the peer has a queue and nothing else. Each side is measured twice: from the first submission to the last
end, and executing alone what was queued before. Of the peer's concurrencies the fastest one counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from core.bootstrap import open_platform
from core.db.queries import load_queries
from core.engine import migrate_engine
from core.runs.model import RunRequest
from core.settings import Settings
from core.tenancy import Policy, Role, TenantContext
from core.tenants.service import TenantService
from scheduler.worker import open_worker
from tests.benchmarks import plain_dbos
from tests.benchmarks.floor_workflow import first_lines
from tests.benchmarks.report import Row, write
from tests.fixtures.people import People
from tests.fixtures.ports import free_port_base
from tests.fixtures.workers import WorkerProcess

PACKAGES = ("asyncpg", "dbos", "psycopg", "sqlalchemy")
SQL = load_queries(__file__, "bench_runs.sql")
RUNS = 1_000
SLOTS = (20, 100)
STARTS = 200
_TENANTS = 8
_SUBMITTERS = 4
_MODULE = "tests.benchmarks.floor_workflow"
_GENEROUS = Policy(concurrency_cap=1_000, daily_runs=1_000_000, queue_depth=1_000_000)
_DEADLINE_S = 120.0

Submit = Callable[[int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Throughput:
    """Runs per second of one side."""

    whole: float
    executing: float


async def throughput_of_ours(settings: Settings, slots: int, runs: int = RUNS) -> Throughput:
    """Ours, on an installation with an empty queue."""
    settings = settings.model_copy(update={"workflow_modules": (_MODULE,), "worker_slots": slots})
    async with open_platform(settings, process="bench") as platform:
        tenants = itertools.cycle([await _tenant(platform.tenants, number) for number in range(_TENANTS)])

        async def submit(number: int) -> None:
            await platform.runs.submit(next(tenants), RunRequest("floor", {"number": number}))

        @contextmanager
        def worker() -> Iterator[None]:
            process = WorkerProcess(settings, Path(settings.home), free_port_base())
            try:
                yield
            finally:
                process.kill()

        settings.home.mkdir(parents=True, exist_ok=True)
        measured = await _throughput(settings, "ours", submit, worker, runs)
        await platform.queue.recover()
        return measured


async def throughput_of_plain_dbos(settings: Settings, slots: int, runs: int = RUNS) -> Throughput:
    """The peer's, on the same server."""
    dsn, pool_size = settings.required("database_engine_url"), settings.database_pool_size
    await migrate_engine(dsn)
    plain = plain_dbos.Plain(dsn, pool_size)
    try:
        return await _throughput(
            settings, "plain", plain.submit, lambda: plain_dbos.worker(dsn, slots, pool_size), runs
        )
    finally:
        plain.close()


async def start_latencies(settings: Settings, starts: int = STARTS) -> list[float]:
    """Seconds from the call of ``submit`` to the first line of the run's code, one run at a time, worker idle."""
    settings = settings.model_copy(update={"workflow_modules": (_MODULE,), "worker_slots": 20})
    taken: list[float] = []
    async with open_platform(settings, process="bench") as platform, open_worker(platform) as worker:
        ctx = await _tenant(platform.tenants, 0)
        working = asyncio.create_task(worker.run())
        try:
            async with platform.bus.subscribe(ctx.tenant_id) as events:
                for number in range(-10, starts):
                    gc.collect()
                    called = time.perf_counter()
                    run, _ = await platform.runs.submit(ctx, RunRequest("floor", {"number": number}))
                    async with asyncio.timeout(_DEADLINE_S):
                        while not (await platform.runs.get(ctx, run.run_id)).state.final:
                            with contextlib.suppress(TimeoutError):
                                await asyncio.wait_for(anext(events), 0.1)
                    taken.append(first_lines[number] - called)
        finally:
            worker.stop()
            await working
    return taken[10:]


async def measure(settings: Settings) -> list[Row]:
    """All rows."""
    ours = {slots: await throughput_of_ours(settings, slots) for slots in SLOTS}
    plain = {slots: await throughput_of_plain_dbos(settings, slots) for slots in SLOTS}
    rows = [
        _ratio("short runs, submission to last end", ours, plain, lambda measured: measured.whole),
        _ratio("short runs, execution alone", ours, plain, lambda measured: measured.executing),
    ]
    cuts = statistics.quantiles([1000 * one for one in await start_latencies(settings)], n=100)
    return [
        *rows,
        Row("idle start, submit to first line, p50", cuts[49], "ms", 20, "<="),
        Row("idle start, submit to first line, p99", cuts[98], "ms", 60, "<="),
    ]


def _ratio(
    what: str,
    ours: dict[int, Throughput],
    plain: dict[int, Throughput],
    of: Callable[[Throughput], float],
) -> Row:
    best = max(of(measured) for measured in plain.values())
    peers = {f"plain DBOS, {slots} at once, runs/s": of(measured) for slots, measured in plain.items()}
    peers |= {f"ours, {slots} slots, runs/s": of(measured) for slots, measured in ours.items()}
    return Row(what, max(of(measured) for measured in ours.values()) / best, "of DBOS", 0.95, ">=", peers)


async def _tenant(tenants: TenantService, number: int) -> TenantContext:
    _, admin = await People(tenants).login(f"ada@bank-{number}.example", f"bank-{number}", Role.ADMIN, policy=_GENEROUS)
    return admin.ctx


async def _throughput(
    settings: Settings, side: str, submit: Submit, worker: Callable[[], AbstractContextManager[None]], runs: int
) -> Throughput:
    assert settings.database_url is not None
    owner = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        since = time.time()
        await _submit_all(submit, runs)
        with worker():
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
    async with asyncio.timeout(_DEADLINE_S):
        while (row := await owner.fetchrow(SQL[side], since)) is None or row["ended"] < runs:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.1)
    return row["first"], row["last"]


@pytest.mark.timeout(600)
async def test_a_run_costs_hardly_more_than_a_bare_dbos_workflow_and_starts_at_once(settings: Settings) -> None:
    rows = await measure(settings)
    write("runs-floor", rows, packages=PACKAGES)
    assert all(row.holds for row in rows)
