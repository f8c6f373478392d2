"""kill -9 of workers in the middle of their work: nothing is lost, nothing has its effect twice."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import asyncpg

from core.runs.model import RunRequest, RunState
from core.settings import Settings
from core.tenancy import Policy
from tests.fixtures.ports import free_port_base
from tests.fixtures.workers import WorkerProcess, site_in

POLICY = Policy(concurrency_cap=100)
RUNS = 40
TAKEN_OVER_WITHIN_S = 10.0
PARENTS = 6


async def test_a_killed_workers_runs_are_finished_by_another(
    settings: Settings, owner_dsn: str, tmp_path: Path
) -> None:
    log, held = tmp_path / "effects", tmp_path / "held"
    log.touch()
    held.touch()
    async with site_in(settings, POLICY) as site:
        runs = site.platform.runs
        first = WorkerProcess(site.settings, tmp_path, free_port_base())
        try:
            free = [RunRequest("sample-plain", {"log": str(log), "number": n}) for n in range(RUNS)]
            stuck = [RunRequest("sample-plain", {"log": str(log), "hold": str(held)}) for _ in range(4)]
            reviewed = [RunRequest("sample-review", {"log": str(log), "number": n}) for n in range(3)]
            parents = [RunRequest("family-mixed", {"log": str(log)}) for _ in range(PARENTS)]
            submitted = await runs.submit_many(site.admin, [*stuck, *reviewed, *parents, *free])

            async def holding() -> bool | None:
                return log.read_text().count("holding") == 4 or None

            await site.until(holding)
        finally:
            first.kill()
            killed_at = time.monotonic()
        held.unlink()
        second = WorkerProcess(site.settings, tmp_path, free_port_base())
        try:

            async def recovered() -> bool | None:
                return bool(await site.platform.queue.recover()) or None

            await site.until(recovered)
            assert time.monotonic() - killed_at <= TAKEN_OVER_WITHIN_S

            async def parked() -> bool | None:
                return len(await site.platform.reviews.open(site.reviewer)) == 3 or None

            await site.until(parked)
            for review in await site.platform.reviews.open(site.reviewer):
                await site.platform.reviews.decide(site.reviewer, review.review_id, "approve")
            ended = await site.ended(submitted)
        finally:
            second.kill()
        assert Counter(run.state for run in ended) == {RunState.SUCCEEDED: len(submitted)}
        effects = [line for line in log.read_text().splitlines() if not line.startswith("holding")]
        keys = Counter(effects)
        assert len(keys) == 2 * len(submitted) + PARENTS  # a parent has one, and its child two
        await _no_finished_step_was_repeated(owner_dsn, keys)


async def _no_finished_step_was_repeated(owner_dsn: str, keys: Counter[str]) -> None:
    connection = await asyncpg.connect(owner_dsn)
    try:
        attempts = {
            f"{row['run_id']}/{row['step']}": row["attempts"]
            for row in await connection.fetch(
                "select run_id, step, count(*) as attempts from run_steps where kind = 'step' group by run_id, step"
            )
        }
        done_twice = await connection.fetchval(
            "select count(*) from (select 1 from run_steps where state = 'done' "
            "group by run_id, step having count(*) > 1) as repeated"
        )
        left = await connection.fetchval(
            "select (select count(*) from slots) + (select count(*) from queue_entries) + (select count(*) from waits)"
        )
    finally:
        await connection.close()
    assert done_twice == 0
    assert left == 0
    # A step that was cut off in the middle is tried again under the same key; only such a one may be.
    assert all(attempts[key] >= times for key, times in keys.items())
