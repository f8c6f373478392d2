"""What a worker holds: each claim of a run by itself, and a thread for every step that blocks one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from core.runs.execution import Executing
from core.runs.model import RunRequest, RunState
from core.settings import Settings
from tests.fixtures.workers import site_in, working

DEADLINE_S = 30


async def test_a_run_that_is_claimed_again_before_its_last_execution_is_concluded_is_held(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, hold = tmp_path / "effects", tmp_path / "hold"
    concluding, go_on, concluded = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with site_in(settings) as site, working(site) as worker:
        control, execution = site.platform.control, site.platform.execution
        work = {"log": str(log), "hold": str(hold)}
        run, _ = await site.platform.runs.submit(site.admin, RunRequest("sample-undo-held", work))
        await site.ended([run])
        end = execution.end

        async def slowly(on: Executing, state: RunState, **told: Any) -> bool:
            """Written at once, and answered when the run executes again."""
            ended = await end(on, state, **told)
            if not concluding.is_set():
                concluding.set()
                await go_on.wait()
                concluded.set()
            return ended

        monkeypatch.setattr(execution, "end", slowly)
        await site.ended([await control.retry(site.admin, run.run_id)])
        await asyncio.wait_for(concluding.wait(), DEADLINE_S)
        hold.touch()
        await control.retry(site.admin, run.run_id)

        async def holding() -> bool | None:
            return log.read_text().count("holding") == 3 or None

        await site.until(holding)
        go_on.set()
        await asyncio.wait_for(concluded.wait(), DEADLINE_S)
        assert worker.held == 1
        hold.unlink()
        (run,) = await site.ended([run])
        assert run.attempt == 3


async def test_a_step_that_blocks_a_thread_keeps_no_other_from_having_one(settings: Settings) -> None:
    async with site_in(settings) as site, working(site):
        run, _ = await site.platform.runs.submit(site.admin, RunRequest("sample-blocked", {"log": ""}))
        (ended,) = await site.ended([run])
    assert ended.state is RunState.SUCCEEDED
