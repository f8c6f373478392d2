"""kill -9 of a worker inside an undo: another one goes on with that undo, under the same key, and no other twice."""

from __future__ import annotations

from pathlib import Path

from core.runs.model import RunRequest, RunState
from core.settings import Settings
from tests.fixtures.ports import free_port_base
from tests.fixtures.workers import WorkerProcess, site_in

RUNS = 3


async def test_the_runs_of_a_worker_killed_inside_an_undo_go_on_after_the_last_undo_that_was_done(
    settings: Settings, tmp_path: Path
) -> None:
    log, held = tmp_path / "effects", tmp_path / "held"
    log.touch()
    held.touch()
    async with site_in(settings) as site:
        first = WorkerProcess(site.settings, tmp_path, free_port_base())
        try:
            request = RunRequest("sample-undo-late", {"log": str(log), "hold": str(held)})
            runs = await site.platform.runs.submit_many(site.admin, [request] * RUNS)

            async def holding() -> bool | None:
                return log.read_text().count("holding") == RUNS or None

            await site.until(holding)
        finally:
            first.kill()
        held.unlink()
        second = WorkerProcess(site.settings, tmp_path, free_port_base())
        try:

            async def recovered() -> bool | None:
                return bool(await site.platform.queue.recover()) or None

            await site.until(recovered)
            runs = await site.ended(runs)
        finally:
            second.kill()
        for run in runs:
            assert (run.state, run.error and run.error["code"]) == (RunState.FAILED, "step_failed")
            had = [line.partition("/")[2] for line in log.read_text().splitlines() if line.startswith(f"{run.run_id}/")]
            # The undo that was cut off had its effect before: its key tells the other side that this is the same one.
            assert had == ["1", "2", "3", "-3 undoes 3", "-2 undoes 2", "-2 undoes 2", "-1 undoes 1"]
            steps = await site.platform.runs.steps(site.admin, run.run_id)
            assert [(one.step, one.attempt, one.state) for one in steps if one.kind == "undo"] == [
                (-3, 1, "done"),
                (-2, 1, "started"),
                (-2, 2, "done"),
                (-1, 1, "done"),
            ]
            kinds = [event.kind for event in await site.platform.runs.events(site.admin, run.run_id)]
            assert (kinds.count("compensating"), kinds.count("recovered")) == (1, 1)
        assert await site.platform.queue.faults() == []
