"""The fair queue, beside a plain DBOS queue and first come first served: ``python -m tests.benchmarks.bench_queue``.

Prints a table, writes ``results/queue.json``, the picture of the README ``results/queue.svg`` and a page of plots,
``.artifacts/bench-queue.html``. A target that is missed is written down as such. ``tests/benchmarks/queue`` says at
the top of each module how its rows are measured.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Awaitable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from core.bootstrap import freeze_loaded
from core.embedded.process import Reaper
from core.queue.simulator import Outcome, Scenario, quantile
from tests.benchmarks import scenarios
from tests.benchmarks.queue import kills, noisy, page, peer, scale, table, virtual
from tests.benchmarks.queue.drive import first_come
from tests.benchmarks.queue.places import Place, opened
from tests.benchmarks.queue.virtual import Figures, Played
from tests.benchmarks.report import RESULTS, Row, write
from tests.benchmarks.runs import throughput
from tests.benchmarks.scenarios import MONDAY_SLA_S, NOISY
from tests.fixtures.data import data_folder

Result = TypeVar("Result")

PACKAGES = ("asyncpg", "dbos")
PAGE = Path(__file__).parents[2] / ".artifacts" / "bench-queue.html"
TRACE = "traces/azure-functions-100-tenants.csv"
MONDAY_FACTOR = 200.0
"""How much faster than the story the peer's Monday is: 45 s become 0.225 s, the SLA 1.5 s."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured; the numbers here are those of the table."""

    seeds: tuple[int, ...] = (1, 2, 3)
    full: virtual.Size = virtual.FULL
    part: virtual.Size = virtual.PART
    monday_tenants: int = 20
    noise: int = 100_000
    noisy_s: float = 25.0
    dbos_noise: int = 2_000
    dbos_s: float = 12.0
    tenants: int = 10_000
    queued_each: int = 100
    claiming_s: float = 10.0
    admissions: int = 100_000
    kill_every_s: float = 3.0
    starts: int = 150
    short_runs: int = 400
    short_repeats: int = 2


@dataclass(frozen=True, slots=True)
class Measured:
    """All rows, and what the plots need."""

    rows: list[Row]
    monday: dict[str, list[tuple[float, float]]]


async def measure(place: Place, size: Size) -> Measured:
    """Everything, one after the other; only what has a clock of its own shares the machine."""
    played = await _timed("on a clock of their own", _virtual(place, size))
    rows = table.virtual_rows(played, await _timed("the Monday morning, DBOS", _dbos_monday(place, size)))
    rows += await _timed("the noisy neighbour", _noisy(place, size))
    rows += await _timed("single runs", _runs(place, size))
    rows += await _timed("many tenants", _scale(place, size))
    rows += await _timed("kills", _kills(place, size))
    monday = next(one.latencies for one in played if one.situation == "monday")
    return Measured(rows, monday)


async def _timed(part: str, measuring: Awaitable[Result]) -> Result:
    began = time.monotonic()
    result = await measuring
    print(f"{time.monotonic() - began:4.0f} s  {part}", flush=True)
    return result


async def _virtual(place: Place, size: Size) -> list[Played]:
    trace = data_folder() / TRACE
    situations = [one for one in virtual.SITUATIONS if one != "trace" or trace.exists()]

    async def play(pool: ProcessPoolExecutor, situation: str, seed: int) -> Played:
        loop, work = asyncio.get_running_loop(), (situation, seed, size.full, size.part, trace)
        if seed != size.seeds[0]:
            return await loop.run_in_executor(pool, virtual.play, *work, None)
        async with place.installation() as settings:
            dsns = settings.required("database_url"), settings.required("database_app_url")
            return await loop.run_in_executor(pool, virtual.play, *work, dsns)

    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        return await asyncio.gather(*(play(pool, one, seed) for one in situations for seed in size.seeds))


async def _dbos_monday(place: Place, size: Size) -> Figures:
    scenario = _thinned(scenarios.monday_morning(size.seeds[0], hours=size.full.monday_hours), size.monday_tenants)
    others = scenario.terms.keys() - {NOISY}
    fast = scenario.compressed(MONDAY_FACTOR)
    async with place.installation() as settings:
        outcome = await peer.play(settings, fast)
    usual = quantile(first_come(fast.without(NOISY)).latencies_s(), 0.95)
    latencies = {name: outcome.latencies_s([name]) for name in others}
    late = [name for name, took in latencies.items() if took and max(took) > MONDAY_SLA_S / MONDAY_FACTOR]
    p95 = quantile([one for took in latencies.values() for one in took], 0.95)
    return {"tenants": len(others), virtual.LATE: len(late), virtual.P95: p95 / usual}


def _thinned(scenario: Scenario, tenants: int) -> Scenario:
    """Some of the tenants, with as much less of the burst and of the slots."""
    kept = {NOISY, *sorted(scenario.terms.keys() - {NOISY})[: tenants - 1]}
    part = len(scenario.terms) // tenants
    burst = {id(one) for one in [one for one in scenario.arrivals if one.tenant == NOISY][::part]}
    return replace(
        scenario,
        terms={name: terms for name, terms in scenario.terms.items() if name in kept},
        arrivals=tuple(
            one for one in scenario.arrivals if one.tenant in kept and (one.tenant != NOISY or id(one) in burst)
        ),
        workers=(scenario.slots // part,),
    )


async def _noisy(place: Place, size: Size) -> list[Row]:
    async with place.installation() as settings:
        quiet, loud = await noisy.measure(settings, size.seeds, queued=size.noise, seconds=size.noisy_s)
    scenario = scenarios.noisy_neighbour(size.seeds[0], queued=size.dbos_noise, ends_s=size.dbos_s)
    scenario = replace(scenario, measured_from_s=0.0)
    async with place.installation() as settings:
        plain = await peer.play(settings, scenario)
    peers: dict[str, Outcome] = {"DBOS, at least": plain, "FIFO, at least": first_come(scenario)}
    return table.noisy_rows(quiet, loud, peers)


async def _runs(place: Place, size: Size) -> list[Row]:
    async with place.installation() as settings:
        starts = await throughput.start_latencies(settings, size.starts)
    single = [(slots, 1) for slots in throughput.SLOTS]
    ours, plain = await throughput.by_turns(place, size.short_runs, single, size.short_repeats)
    return [
        Row("idle start, submit to first line, p50", 1000 * quantile(starts, 0.5), "ms", 20, "<="),
        Row("idle start, submit to first line, p99", 1000 * quantile(starts, 0.99), "ms", 60, "<="),
        throughput.ratio("short runs, submission to last end", ours, plain, lambda measured: measured.whole),
    ]


async def _scale(place: Place, size: Size) -> list[Row]:
    async with place.installation() as few, place.installation() as many:
        await scale.fill(few, 10, 3_000)
        await scale.fill(many, size.tenants, size.queued_each)
        cost = await scale.cost_of_a_claim(few, many)
        pid = place.postgres.process.pid
        mixed = await scale.claims_at_once(many, pid, size.claiming_s)
        all_back = await scale.claims_at_once(many, pid, size.claiming_s / 2, back_every=1)
    return table.scale_rows(size.tenants, size.tenants * size.queued_each, mixed, all_back, cost)


async def _kills(place: Place, size: Size) -> list[Row]:
    async with place.installation() as settings:
        damage = await kills.measure(settings, place.postgres, size.admissions, every_s=size.kill_every_s)
    return table.kill_rows(damage)


def publish(measured: Measured, seeds: Sequence[int]) -> None:
    """Print and write."""
    write("queue", measured.rows, packages=PACKAGES, seeds=seeds)
    page.html(PAGE, measured.rows, measured.monday)
    page.svg(RESULTS / "queue.svg", measured.monday)


def main() -> None:
    """The whole table."""
    began, size = time.monotonic(), Size()
    freeze_loaded()
    with tempfile.TemporaryDirectory(prefix="bailiwick-bench-") as folder:
        home = Path(folder)
        home.chmod(0o711)  # root's Postgres runs as another user, who must be able to enter
        reaper = Reaper()
        try:
            with opened(home, reaper) as place:
                measured = asyncio.run(measure(place, size))
        finally:
            reaper.close()
    publish(measured, size.seeds)
    print(f"{time.monotonic() - began:.0f} s; plots: {PAGE}")


if __name__ == "__main__":
    main()
