"""Where the benchmarks run: servers as durable as those of ``bailiwick up``, and a database for each measurement."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from pydantic import SecretStr

from core.db.migrate import migrate
from core.embedded.postgres import Postgres
from core.embedded.process import Reaper
from core.embedded.redis import Redis
from core.embedded.servers import complete
from core.settings import Port, Settings
from tests.fixtures.ports import free_port_base
from tests.fixtures.servers import PASSWORD, ROLE_PASSWORDS, SECRET_KEY, run

_numbers = itertools.count(1)


async def until(look: Callable[[], Awaitable[object]], deadline_s: float) -> None:
    """Look ten times a second until there is something to see. Raises ``TimeoutError``."""
    async with asyncio.timeout(deadline_s):
        while not await look():  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.1)


@asynccontextmanager
async def careless(dsn: str) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]]:
    """A connection whose last milliseconds a crash may lose: of a database that is thrown away."""
    async with (
        asyncpg.create_pool(dsn, min_size=1, max_size=1, server_settings={"synchronous_commit": "off"}) as pool,
        pool.acquire() as connection,
    ):
        yield connection


@dataclass(frozen=True, slots=True)
class Place:
    """A Postgres with a migrated template, and a Redis."""

    postgres: Postgres
    home: Path
    port_base: int
    redis_url: str

    @asynccontextmanager
    async def installation(self) -> AsyncIterator[Settings]:
        """Settings of an installation with a database of its own, dropped at the end."""
        name = f"bench_{next(_numbers)}"
        await self._command(f"create database {name} template bailiwick")
        settings = Settings(
            home=self.home,
            port_base=self.port_base,
            secret_key=SecretStr(SECRET_KEY),
            database_url=SecretStr(self.postgres.url.rpartition("/")[0] + f"/{name}"),
            redis_url=SecretStr(self.redis_url),
        )
        try:
            yield complete(settings)
        finally:
            await self._command(f"drop database {name} with (force)")

    async def _command(self, statement: str) -> None:
        owner = await asyncpg.connect(self.postgres.url.rpartition("/")[0] + "/postgres")
        try:
            await owner.execute(statement)
        finally:
            await owner.close()


@contextmanager
def opened(home: Path, reaper: Reaper) -> Iterator[Place]:
    """Servers of their own in a folder that another operating system user may enter."""
    base = free_port_base()
    postgres = Postgres(home, port=base + Port.POSTGRES, password=PASSWORD, reaper=reaper)
    redis = Redis(home, port=base + Port.REDIS, password=PASSWORD, reaper=reaper)
    run(postgres.start())
    run(redis.start())
    try:
        run(migrate(postgres.url, **ROLE_PASSWORDS))
        yield Place(postgres, home, base, redis.url)
    finally:
        run(redis.stop())
        run(postgres.stop())
