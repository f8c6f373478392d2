"""Workers that end, by themselves or when they are told: their runs go on elsewhere, after the step they were in.

The long form, half an hour of one run on workers that live for a minute each: ``make handover``.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.runs.model import RunRequest, RunState, RunView
from core.settings import Settings
from tests.fixtures import workers
from tests.fixtures.ports import free_port_base
from tests.fixtures.workers import Site, WorkerProcess, site_in, working

MINUTES = float(os.environ.get("HANDOVER_MINUTES", "0"))
PATIENCE_S = 120.0 + 90.0 * MINUTES
LIFETIME, LIFETIMES, STEPS, STEP_S = ("60s", 10, int(MINUTES * 30), 2.0) if MINUTES else ("1s", 2, 12, 0.25)


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Site]:
    async with site_in(settings) as opened:
        yield opened


@pytest.mark.timeout(PATIENCE_S)
async def test_a_run_is_completed_by_workers_of_limited_lifetime_each_step_once(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "DEADLINE_S", PATIENCE_S)
    log = tmp_path / "effects"
    run, _ = await site.platform.runs.submit(
        site.admin, RunRequest("sample-long", {"log": str(log), "steps": STEPS, "sleep_s": STEP_S})
    )
    ended = asyncio.create_task(site.ended([run]))

    async def lives() -> None:
        """One worker after the other, for as long as the run is open."""
        while not ended.done():
            one = WorkerProcess(site.settings, tmp_path, free_port_base(), "--max-lifetime", LIFETIME)
            try:
                assert await one.ended() == 0, one.said
            except BaseException:
                one.kill()
                raise

    async with asyncio.TaskGroup() as group:
        for _ in range(2):  # while one starts, the other executes
            group.create_task(lives())
    (run,) = await ended
    assert run.state is RunState.SUCCEEDED
    assert log.read_text().split() == [f"{run.run_id}/{number}" for number in range(1, STEPS + 1)]
    steps = await site.platform.runs.steps(site.admin, run.run_id)
    assert {(one.attempt, one.state) for one in steps} == {(1, "done")}
    kinds = Counter(event.kind for event in await site.platform.runs.events(site.admin, run.run_id))
    assert kinds["recovered"] == 0
    assert run.attempt > LIFETIMES  # in a slot of one worker after the other
    assert await site.platform.queue.faults() == []


async def test_a_step_that_outlasts_the_deadline_is_cut_off_and_executed_by_another_worker(
    site: Site, tmp_path: Path
) -> None:
    log, held = tmp_path / "effects", tmp_path / "held"
    held.touch()

    async def holding(times: int) -> None:
        async def look() -> bool | None:
            return (log.exists() and log.read_text().count("holding") == times) or None

        await site.until(look)

    async with working(site, drain_s=0.2):
        run, _ = await site.platform.runs.submit(
            site.admin, RunRequest("sample-plain", {"log": str(log), "hold": str(held)})
        )
        await holding(1)
    assert (await site.platform.runs.get(site.admin, run.run_id)).state is RunState.QUEUED  # not left for the sweeper
    async with working(site):
        await holding(2)
        held.unlink()
        (run,) = await site.ended([run])
    assert run.state is RunState.SUCCEEDED
    assert await told(site, run) == [
        ("effect", 1, "done", None),
        ("hold", 1, "failed", "cut_off"),
        ("hold", 2, "done", None),
        ("second effect", 1, "done", None),
    ]
    assert [line for line in log.read_text().splitlines() if "holding" not in line] == [
        f"{run.run_id}/1",
        f"{run.run_id}/3",
    ]


async def test_a_pause_between_two_attempts_keeps_no_worker_from_ending(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "effects"
    run, _ = await site.platform.runs.submit(site.admin, RunRequest("sample-patient", {"log": str(log)}))
    for attempts in (1, 2):

        async def failed(attempts: int = attempts) -> bool | None:
            states = [step.state for step in await site.platform.runs.steps(site.admin, run.run_id)]
            return states == ["failed"] * attempts or None

        async with asyncio.timeout(workers.DEADLINE_S), working(site, drain_s=36_000):
            await site.until(failed)
        assert (await site.platform.runs.get(site.admin, run.run_id)).state is RunState.QUEUED
    assert log.read_text().split() == [f"{run.run_id}/1"] * 2


async def told(site: Site, run: RunView) -> list[tuple[str, int, str, Any]]:
    """Name, attempt, state and error of what it did."""
    steps = await site.platform.runs.steps(site.admin, run.run_id)
    return [(one.name, one.attempt, one.state, one.error and one.error["code"]) for one in steps]
