"""Workers of two deployments side by side, one of them killed: each run is executed by its own version only."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from core.runs.model import Cause, RunRequest, RunState
from core.settings import Settings
from core.tenancy import Policy
from tests.fixtures.ports import free_port_base
from tests.fixtures.workers import Site, WorkerProcess, site_in

ONE, TWO = "tests.fixtures.version_one", "tests.fixtures.version_two"
RUNS = 12


def deployed(site: Site, home: Path, module: str) -> WorkerProcess:
    """A worker that has one version."""
    settings = site.settings.model_copy(update={"workflow_modules": (module,)})
    return WorkerProcess(settings, home, free_port_base())


async def test_each_run_is_executed_by_its_own_version_and_waits_for_it_when_it_is_gone(
    settings: Settings, tmp_path: Path
) -> None:
    log, held = tmp_path / "effects", tmp_path / "held"
    log.touch()
    held.touch()
    async with site_in(settings, Policy(concurrency_cap=100), (ONE, TWO)) as site:
        requests = [
            RunRequest("versioned", {"log": str(log), "hold": str(held) if number < 4 else None}, version=version)
            for number in range(RUNS)
            for version in ("1", "2")
        ]
        runs = await site.platform.runs.submit_many(site.admin, requests)
        of = {version: [run for run in runs if run.version == version] for version in ("1", "2")}

        async def holding(count: int) -> bool | None:
            return log.read_text().count("holding") == count or None

        async def without_code(count: int) -> bool | None:
            found = await site.platform.runs.some(site.admin, [run.run_id for run in of["2"]])
            return sum((run.state, run.cause) == (RunState.QUEUED, Cause.NO_CODE) for run in found) == count or None

        old = deployed(site, tmp_path, ONE)
        try:
            await site.until(lambda: holding(4))
            await site.until(lambda: without_code(RUNS))
            new = deployed(site, tmp_path, TWO)
            try:
                await site.until(lambda: holding(8))
                await site.ended([run for run in of["2"] if run.input["hold"] is None])
            finally:
                new.kill()
            held.unlink()
            await site.ended(of["1"])

            async def recovered() -> bool | None:
                return bool(await site.platform.queue.recover()) or None

            await site.until(recovered)
            await site.until(lambda: without_code(4))
            newer = deployed(site, tmp_path, TWO)
            try:
                ended = await site.ended(runs)
            finally:
                newer.kill()
        finally:
            old.kill()
    assert Counter(run.state for run in ended) == {RunState.SUCCEEDED: 2 * RUNS}
    versions = {str(run.run_id): run.version for run in runs}
    effects = [line.split(" ") for line in log.read_text().splitlines() if not line.startswith("holding")]
    assert [(version, key) for version, key in effects if versions[key.split("/")[0]] != version] == []
    assert len({key for _, key in effects}) == 4 * RUNS
