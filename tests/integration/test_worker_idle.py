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
from core.settings import ENGINE_ROLE, Settings
from scheduler.worker import open_worker
from tests.fixtures.workers import site_in


class Servers:
    """The test's database, looked at and shut by its owner."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    async def engine_is_gone(self) -> bool | None:
        """The engine holds no connection."""
        return await self._count("usename = $1", ENGINE_ROLE) == 0 or None

    async def nobody_is_here(self) -> bool | None:
        """Nobody but the owner holds one."""
        return await self._count("pid <> pg_backend_pid()") == 0 or None

    async def _count(self, what: str, *args: str) -> int:
        query = f"select count(*) from pg_stat_activity where datname = current_database() and {what}"
        return int(await self._connection.fetchval(query, *args))

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


class WatchedQueue(QueueService):
    """Holds up the second claim, a last look, for as long as the engine takes to be gone, a second at most."""

    def __init__(self, platform: Platform, servers: Servers) -> None:
        super().__init__(platform.db, platform.bus, platform.clock)
        self._servers = servers
        self._claims = 0
        self.closed = asyncio.Event()

    async def claim(self, worker_id: WorkerId, limit: int) -> Claims:
        self._claims += 1
        if self._claims == 2:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while not await self._servers.engine_is_gone():  # noqa: ASYNC110 - the server sets no event
                        await asyncio.sleep(0.02)
                    self.closed.set()
        return await super().claim(worker_id, limit)


async def test_an_idle_worker_closes_its_engine_and_opens_it_for_the_next_run(
    settings: Settings, servers: Servers, tmp_path: Path
) -> None:
    request = RunRequest("sample-plain", {"log": str(tmp_path / "effects")})
    async with site_in(settings) as site, open_worker(site.platform, engine_idle_s=0.2) as worker:
        working = asyncio.create_task(worker.run())
        try:
            for _ in range(2):
                run, _ = await site.platform.runs.submit(site.admin, request)
                (ended,) = await site.ended([run])
                assert ended.state is RunState.SUCCEEDED
                await site.until(servers.engine_is_gone)
        finally:
            worker.stop()
            await working


async def test_a_worker_takes_its_last_look_before_it_closes_its_engine(
    settings: Settings, servers: Servers, owner_dsn: str
) -> None:
    own = await asyncpg.connect(owner_dsn)
    async with site_in(settings) as site:
        queue = WatchedQueue(site.platform, Servers(own))
        async with open_worker(replace(site.platform, queue=queue), engine_idle_s=0.2) as worker:
            working = asyncio.create_task(worker.run())
            try:
                await site.until(servers.engine_is_gone)
            finally:
                worker.stop()
                await working
    await own.close()
    assert not queue.closed.is_set()


async def test_an_idle_worker_is_ready_without_asking_and_one_that_asked_in_vain_asks_until_it_is_answered(
    settings: Settings, servers: Servers
) -> None:
    async with site_in(settings) as site, open_worker(site.platform, engine_idle_s=0.2) as worker:

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
            await site.until(servers.engine_is_gone)
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
