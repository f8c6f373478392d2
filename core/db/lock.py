"""A lock that one process of an installation holds, for as long as its connection lives.

    waiting ──it is free──► held ──connection ends (killed, restarted, cut off)──► lost

Needs a direct connection: behind a transaction pooler a session's lock would stay with somebody else's
session. A holder that vanishes without closing its connection is noticed by the server after 20 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from core.db.queries import load_queries
from core.errors import Unavailable

LEADER = 7302
"""Key of the scheduler's leadership; 7300 and 7301 are the migration's and the queue's."""

SQL = load_queries(__file__, "lock.sql")

_KEEPALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "2"}


@asynccontextmanager
async def exclusive(dsn: str, key: int, *, name: str) -> AsyncIterator[asyncio.Event]:
    """Wait until the lock is free and hold it inside the block; the event is set when it is lost early.

    Raises ``Unavailable`` when the server does not answer, or goes away while this waits.
    """
    lost = asyncio.Event()
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=10,
            statement_cache_size=0,
            server_settings={"application_name": name, **_KEEPALIVE},
        )
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Unavailable(f"Postgres does not answer: {error}", retry_after_s=1) from error
    try:
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.execute(SQL["wait_for_lock"], key)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise Unavailable(f"Postgres went away: {error}", retry_after_s=1) from error
        yield lost
    finally:
        # A waiting statement cannot be closed politely; the server gives the lock up with the connection.
        connection.terminate()
