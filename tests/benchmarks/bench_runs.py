"""What a step, a run, a wait and a dead worker cost: ``python -m tests.benchmarks.bench_runs``, or ``make bench-runs``.

Prints a table and writes ``results/runs.json``. Peers are measured in the same run, on the same servers: ratios count,
absolute times are those of the machine. ``tests/benchmarks/runs`` says at the top of each module how its rows come
about. A target that is missed is written down as such.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

from core.bootstrap import freeze_loaded
from core.embedded.process import Reaper
from core.queue.simulator import quantile
from tests.benchmarks.queue.places import Place, opened
from tests.benchmarks.report import Row, write
from tests.benchmarks.runs import parked, sleeping, steps, takeover, telling, throughput
from tests.benchmarks.runs.site import site_in
from tests.benchmarks.runs.throughput import SLOTS

PACKAGES = ("asyncpg", "dbos", "psycopg", "sqlalchemy")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured; the numbers here are those of the table."""

    starts: int = 150
    runs: int = 500
    repeats: int = 3
    alone: int = 100
    rounds: int = 5
    parked: int = 100_000
    samples: int = 200
    together: int = 2_000
    asleep: int = 2_000
    words: int = 100
    kills: int = 4


async def measure(place: Place, reaper: Reaper, size: Size) -> list[Row]:
    """All rows, one part after the other."""
    rows = await _timed("steps", _steps(place, reaper, size))
    rows += await _timed("short runs", _throughput(place, size))
    rows += await _timed("starts", _starts(place, size))
    rows += await _timed("events", _telling(place, reaper, size))
    rows += await _timed("parked runs", _parked(place, reaper, size))
    rows += await _timed("takeover", _takeover(place, reaper, size))
    return [*rows, Row("load of the machine meanwhile, 15 minutes", os.getloadavg()[2], "", None, "<=")]


async def _timed(part: str, measuring: Awaitable[list[Row]]) -> list[Row]:
    began = time.monotonic()
    rows = await measuring
    print(f"{time.monotonic() - began:4.0f} s  {part}", flush=True)
    return rows


async def _steps(place: Place, reaper: Reaper, size: Size) -> list[Row]:
    async with place.installation() as settings, site_in(settings, reaper) as site:
        return await steps.measure(site, alone=size.alone, rounds=size.rounds)


async def _throughput(place: Place, size: Size) -> list[Row]:
    settings = [*((slots, 1) for slots in SLOTS), (SLOTS[0], 2)]
    ours, plain = await throughput.by_turns(place, size.runs, settings, size.repeats)
    return [
        throughput.ratio("short runs, submission to last end", ours, plain, lambda measured: measured.whole),
        throughput.ratio("short runs, execution alone", ours, plain, lambda measured: measured.executing),
    ]


async def _starts(place: Place, size: Size) -> list[Row]:
    async with place.installation() as settings:
        taken = await throughput.start_latencies(settings, size.starts)
    return [
        Row("idle start, submit to first line, p50", 1000 * quantile(taken, 0.5), "ms", 20, "<="),
        Row("idle start, submit to first line, p99", 1000 * quantile(taken, 0.99), "ms", 60, "<="),
    ]


async def _telling(place: Place, reaper: Reaper, size: Size) -> list[Row]:
    async with place.installation() as settings, site_in(settings, reaper) as site:
        return await telling.measure(site, words=size.words)


async def _parked(place: Place, reaper: Reaper, size: Size) -> list[Row]:
    async with place.installation() as settings:
        each = await sleeping.bytes_each(settings, asleep=size.asleep)
    async with (
        place.installation() as few,
        place.installation() as many,
        site_in(few, reaper) as empty,
        site_in(many, reaper) as full,
    ):
        rows = await parked.measure(empty, full, runs=size.parked, samples=size.samples, together=size.together)
    what = f"memory of a plain DBOS worker per {size.parked:,} that sleep"
    return [*rows, Row(what, each * size.parked / 1e6, "MB", None, "<=", {"measured with": float(size.asleep)})]


async def _takeover(place: Place, reaper: Reaper, size: Size) -> list[Row]:
    async with place.installation() as settings, site_in(settings, reaper) as site:
        return await takeover.measure(site, rounds=size.kills)


def main() -> None:
    """The whole table."""
    began = time.monotonic()
    freeze_loaded()
    with tempfile.TemporaryDirectory(prefix="bailiwick-bench-") as folder:
        home = Path(folder)
        home.chmod(0o711)  # root's Postgres runs as another user, who must be able to enter
        reaper = Reaper()
        try:
            with opened(home, reaper) as place:
                rows = asyncio.run(measure(place, reaper, Size()))
        finally:
            reaper.close()
    write("runs", rows, packages=PACKAGES)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
