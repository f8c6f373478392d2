"""The benchmark of the queue, end to end in its shortest form: it measures, and nothing is lost or over a cap."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from core.embedded.process import Reaper
from core.queue.simulator import Outcome
from tests.benchmarks import scenarios
from tests.benchmarks.queue import kills, page, scale, table, virtual
from tests.benchmarks.queue.drive import first_come
from tests.benchmarks.queue.places import Place, opened
from tests.benchmarks.scenarios import NOISY


@pytest.fixture(scope="module")
def place(reaper: Reaper) -> Iterator[Place]:
    """Servers that may be killed."""
    with tempfile.TemporaryDirectory(prefix="bailiwick-bench-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        with opened(home, reaper) as servers:
            yield servers


async def test_the_database_and_the_simulator_start_the_same_runs_at_the_same_moments(place: Place) -> None:
    size = replace(virtual.PART, long_s=20.0)
    async with place.installation() as settings:
        dsns = settings.required("database_url"), settings.required("database_app_url")
        played = await asyncio.to_thread(virtual.play, "long", 1, size, size, Path(), dsns)
    assert played.sql is not None
    assert played.sql.agrees
    assert played.sql.runs > 500
    assert played.sql.figures == pytest.approx(played.ours)
    assert played.ours[virtual.LONG_WAIT] < played.fifo[virtual.LONG_WAIT]
    rows = {row.what: row for row in table.virtual_rows([played], {})}
    assert rows["34 s against 1 s: quiet p99 wait"].ours == played.ours[virtual.LONG_WAIT]


async def test_claims_are_counted_and_those_who_claim_do_not_meet_in_a_ring(place: Place) -> None:
    async with place.installation() as few, place.installation() as many:
        await scale.fill(few, 5, 200)
        await scale.fill(many, 50, 40)
        cost = await scale.cost_of_a_claim(few, many, rounds=5)
        claims = await scale.claims_at_once(many, place.postgres.process.pid, 0.6, back_every=1)
    assert min(cost) > 0
    assert 0 < claims.released == claims.claimed
    assert claims.refused == 0


async def test_nothing_is_lost_or_done_twice_while_postgres_is_killed(place: Place) -> None:
    async with place.installation() as settings:
        damage = await kills.measure(settings, place.postgres, 1_500, every_s=0.5, postgres_every=1, most=2)
    assert damage.crashes > 0
    assert damage.claims >= damage.ended == 1_500
    assert (damage.over, damage.lost, damage.duplicated, damage.faults) == (0, 0, 0, 0)


def test_the_plots_show_both_queues(tmp_path: Path) -> None:
    scenario = scenarios.monday_morning(1, hours=0.4)
    fifo: Outcome = first_come(scenario)
    latencies = [
        (use.arrival.at_s, use.ended_s - use.arrival.at_s)
        for use in fifo.uses
        if use.ended_s is not None and use.arrival.tenant != NOISY
    ]
    page.svg(tmp_path / "monday.svg", {"ours": latencies, "FIFO": latencies})
    lines = ET.parse(tmp_path / "monday.svg").iter("{http://www.w3.org/2000/svg}polyline")
    assert len(list(lines)) == 2
    page.html(tmp_path / "page.html", table.virtual_rows([], {}), {"ours": latencies})
    assert "All rows" in (tmp_path / "page.html").read_text("utf-8")
