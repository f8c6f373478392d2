"""A worker with nothing to do leaves Postgres alone, and is back at the next wake-up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from core.bootstrap import Platform
from core.errors import Unavailable
from core.ids import WorkerId
from core.queue.model import Claims, Topic
from core.queue.service import QueueService
from core.runs.model import RunRequest, RunState
from core.settings import Settings
from scheduler.worker import open_worker
from tests.fixtures.workers import site_in

IDLE_S = 0.2
QUIET_S = 5 * IDLE_S
_OTHERS = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"


class Servers:
    """The test's database, looked at and shut by its owner."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    async def left_alone(self) -> bool | None:
        """Nobody but the owner has asked anything for longer than a worker waits that does not rest."""
        asked = f"{_OTHERS} and clock_timestamp() - state_change < make_interval(secs => $1)"
        return await self._connection.fetchval(asked, QUIET_S) == 0 or None

    async def nobody_is_here(self) -> bool | None:
        """Nobody but the owner holds a connection."""
        return await self._connection.fetchval(_OTHERS) == 0 or None

    async def shut(self) -> None:
        """Close every connection, and let nobody in but the owner."""
        await self._let_in(0)
        await self._connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )

    async def open(self) -> None:
        """Let everybody in again."""
        await self._let_in(-1)

    async def _let_in(self, limit: int) -> None:
        name = await self._connection.fetchval("select current_database()")
        await self._connection.execute(f'alter database "{name}" connection limit {limit}')


@pytest.fixture
async def servers(owner_dsn: str) -> AsyncIterator[Servers]:
    connection = await asyncpg.connect(owner_dsn)
    yield Servers(connection)
    await connection.close()


class Overlooking(QueueService):
    """Finds nothing at its first claim, as one that came a moment before a run whose wake-up was lost."""

    def __init__(self, platform: Platform) -> None:
        super().__init__(platform.db, platform.bus, platform.clock)
        self._overlooked = False

    async def claim(self, worker_id: WorkerId, limit: int) -> Claims:
        if self._overlooked:
            return await super().claim(worker_id, limit)
        self._overlooked = True
        return Claims()


async def test_an_idle_worker_leaves_postgres_alone_and_is_back_at_the_next_run(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    request = RunRequest("sample-plain", {"log": str(tmp_path / "effects")})
    async with site_in(settings) as site, open_worker(site.platform, idle_s=IDLE_S) as worker:
        working = asyncio.create_task(worker.run())
        try:
            for _ in range(2):
                run, _ = await site.platform.runs.submit(site.admin, request)
                (ended,) = await site.ended([run])
                assert ended.state is RunState.SUCCEEDED
                await site.until(servers.left_alone)
        finally:
            worker.stop()
            await working


async def test_a_worker_looks_once_more_before_it_rests(settings: Settings, tmp_path: Path) -> None:
    async with site_in(settings) as site:
        run, _ = await site.platform.runs.submit(
            site.admin, RunRequest("sample-plain", {"log": str(tmp_path / "effects")})
        )
        overlooking = replace(site.platform, queue=Overlooking(site.platform))
        async with open_worker(overlooking, idle_s=IDLE_S) as worker:
            working = asyncio.create_task(worker.run())
            try:
                (ended,) = await site.ended([run])
            finally:
                worker.stop()
                await working
    assert ended.state is RunState.SUCCEEDED


async def test_an_idle_worker_is_ready_without_asking_and_one_that_asked_in_vain_asks_until_it_is_answered(
    settings: Settings, servers: Servers
) -> None:
    async with site_in(settings) as site, open_worker(site.platform, idle_s=IDLE_S) as worker:

        async def ready() -> bool:
            with contextlib.suppress(Unavailable):
                await worker.postgres()
                return True
            return False

        async def as_ready_as(wanted: bool) -> None:
            async def look() -> bool | None:
                return await ready() is wanted or None

            await site.until(look)

        working = asyncio.create_task(worker.run())
        try:
            await site.until(servers.left_alone)
            await servers.shut()
            await site.until(servers.nobody_is_here)
            assert await ready(), "whoever asks whether it is ready makes it ask nothing"
            await site.platform.bus.signal(Topic.WORKERS)
            await as_ready_as(False)
            await servers.open()
            await as_ready_as(True)  # though nobody signals
        finally:
            await servers.open()
            worker.stop()
            await working
