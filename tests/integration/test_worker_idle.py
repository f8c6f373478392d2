"""A worker with nothing to do leaves Postgres alone, and is back at the next wake-up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

from core.runs.model import RunRequest, RunState
from core.settings import ENGINE_ROLE, Settings
from scheduler.worker import open_worker
from tests.fixtures.workers import site_in


async def test_an_idle_worker_closes_its_engine_and_opens_it_for_the_next_run(
    settings: Settings, owner_dsn: str, tmp_path: Path
) -> None:
    request = RunRequest("sample-plain", {"log": str(tmp_path / "effects")})
    async with site_in(settings) as site, open_worker(site.platform, engine_idle_s=0.2) as worker:
        working = asyncio.create_task(worker.run())
        connection = await asyncpg.connect(owner_dsn)

        async def engine_is_gone() -> bool | None:
            open_connections = await connection.fetchval(
                "select count(*) from pg_stat_activity where datname = current_database() and usename = $1", ENGINE_ROLE
            )
            return open_connections == 0 or None

        try:
            for _ in range(2):
                run, _ = await site.platform.runs.submit(site.admin, request)
                (ended,) = await site.ended([run])
                assert ended.state is RunState.SUCCEEDED
                await site.until(engine_is_gone)
        finally:
            await connection.close()
            worker.stop()
            await working
