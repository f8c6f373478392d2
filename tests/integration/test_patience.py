"""What takes too long at Postgres ends, and says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest

from core.db.pool import Database
from core.errors import Unavailable
from core.ids import WorkerId
from core.queue import store
from core.settings import Settings

TASTE_S = 1.0
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
SLOW_TO_COMMIT = """
create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(60); return null; end $$;
create constraint trigger slow after insert on workers deferrable initially deferred
for each row execute function slow();
"""


@pytest.fixture
async def db(settings: Settings) -> AsyncIterator[Database]:
    """A pool of one connection, whose statements may take a moment."""
    opened = await Database.open(settings.required("database_app_url"), size=1, patience_s=TASTE_S)
    async with asyncio.timeout(20):  # to connect may take longer, and is not what is tested here
        while not await works(opened):
            """Once more."""
    yield opened
    await opened.close()


async def works(db: Database) -> bool:
    """Whether a statement comes through in time."""
    with contextlib.suppress(Unavailable):
        async with db.control_statement() as tx:
            return await store.depth(tx) == 0
    return False


async def test_a_statement_that_waits_for_a_lock_too_long_is_given_up_and_the_next_one_works(
    db: Database, owner_dsn: str
) -> None:
    owner = await asyncpg.connect(owner_dsn)
    async with asyncio.timeout(20):
        async with owner.transaction():
            await owner.execute("lock queue_tenants")
            for transaction in (db.control_transaction, db.control_statement):
                with pytest.raises(Unavailable, match="too long"):
                    async with transaction() as tx:
                        await store.depth(tx)
        async with db.control_statement() as tx:
            assert await store.depth(tx) == 0
        assert await owner.fetchval("select count(*) from pg_locks where not granted") == 0
    await owner.close()


async def test_who_waits_for_a_connection_too_long_is_told_so(db: Database) -> None:
    async with asyncio.timeout(20), db.control_transaction() as tx:
        with pytest.raises(Unavailable, match="became free"):
            async with db.control_transaction():
                raise AssertionError("there is only one")
        assert await store.depth(tx) == 0


async def test_the_time_that_a_caller_gives_a_transaction_is_the_callers(db: Database, owner_dsn: str) -> None:
    owner = await asyncpg.connect(owner_dsn)
    async with owner.transaction():
        await owner.execute("lock queue_tenants")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(TASTE_S / 3), db.control_transaction() as tx:
                await store.depth(tx)
    async with db.control_transaction() as tx:
        assert await store.depth(tx) == 0
    await owner.close()


async def test_a_commit_that_takes_too_long_is_given_up_too_and_leaves_nothing_behind(
    db: Database, owner_dsn: str
) -> None:
    owner = await asyncpg.connect(owner_dsn)
    await owner.execute(SLOW_TO_COMMIT)
    async with asyncio.timeout(20):
        with pytest.raises(Unavailable, match="too long"):
            async with db.control_transaction() as tx:
                await store.heartbeat(tx, WorkerId("slow"), 1, draining=False, now=NOON)
        async with db.control_statement() as tx:
            assert await store.depth(tx) == 0
        assert await owner.fetchval("select count(*) from workers") == 0
    await owner.close()
