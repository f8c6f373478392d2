"""Connections to Postgres, and the only ways to a tenant's rows.

``Database`` owns one asyncpg pool, logged in as the runtime role. Rows are reached inside a transaction:

- ``tenant_transaction(ctx)`` sets ``app.tenant`` for that transaction; row-level security does the rest.
- ``control_transaction()`` sets no tenant. It sees no tenant row; it can only call the control functions
  (claim, wake, login …) that the migrations list.

Values that Postgres cannot hold (NUL in a text, a number out of range) raise ``InvalidInput``: they are the
caller's. Both end with the block: commit on success, rollback on any exception, cancellation included. Statements
stay prepared on a connection, unless a transaction-mode pooler (Neon, PgBouncer) stands in between: then the next
transaction may be on another server process.

On failure: a server that is gone, or has no connection left, raises ``Unavailable`` (retryable), and so does a
transaction that lost a deadlock; the pool reconnects by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import asyncpg

from core.db.queries import Query, load_queries
from core.errors import InvalidInput, Unavailable
from core.tenancy import TENANT_ID, TenantContext

Row = asyncpg.Record

# What says by itself that the server is gone. The driver's internal error is what a connection answers between
# having read that it is being shut down and having noticed that it is closed.
_GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InternalClientError,
)
# What may also be a mistake, or the caller's own error: it says so only when the connection is closed.
_DOUBTFUL = (OSError, asyncpg.InterfaceError)
_LOST = (*_DOUBTFUL, *_GONE)
_FULL = asyncpg.InsufficientResourcesError
_VALUES = (
    asyncpg.CharacterNotInRepertoireError,
    asyncpg.InvalidRowCountInLimitClauseError,
    asyncpg.InvalidTextRepresentationError,
    asyncpg.NumericValueOutOfRangeError,
    asyncpg.UntranslatableCharacterError,
)
# A backslash that is itself escaped, or NUL. The six letters of the escape are no NUL when somebody writes them.
_ESCAPE = re.compile(r"(\\\\)|\\u0000")
_PREPARED = 200  # statements a connection remembers; there are fewer
SQL = load_queries(__file__, "pool.sql")


class Transaction:
    """An open transaction. Every method takes a named query and its positional arguments."""

    def __init__(self, connection: asyncpg.pool.PoolConnectionProxy[Row]) -> None:
        self._connection = connection

    async def fetch(self, query: Query, *args: object) -> list[Row]:
        """All rows."""
        return await self._connection.fetch(query, *args)

    async def fetchrow(self, query: Query, *args: object) -> Row | None:
        """The first row or None."""
        return await self._connection.fetchrow(query, *args)

    async def fetchval(self, query: Query, *args: object) -> Any:
        """The first column of the first row, or None."""
        return await self._connection.fetchval(query, *args)

    async def execute(self, query: Query, *args: object) -> int:
        """Run a statement; the number of rows it touched."""
        status = await self._connection.execute(query, *args)
        count = status.rsplit(" ", 1)[-1]
        return int(count) if count.isdigit() else 0

    async def execute_many(self, query: Query, rows: Sequence[Sequence[object]]) -> None:
        """Run a statement once per row, in one round trip."""
        await self._connection.executemany(query, rows)


class Database:
    """A pool of connections as the runtime role. Make one per process with ``open``."""

    def __init__(self, pool: asyncpg.Pool[Row]) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, dsn: str, *, size: int = 10, name: str = "bailiwick") -> Self:
        """Connect. Raises ``Unavailable`` when the server does not answer within 10 s."""
        try:
            prepared = _PREPARED if await _reaches_the_server(dsn) else 0
            pool = await asyncpg.create_pool(
                dsn,
                min_size=0,
                max_size=size,
                timeout=10,
                command_timeout=60,
                statement_cache_size=prepared,
                max_inactive_connection_lifetime=120,
                init=_init,
                reset=_tidy_already,
                server_settings={"application_name": name},
            )
            return cls(pool)
        except _LOST as error:
            raise Unavailable(f"Postgres does not answer: {error}", retry_after_s=1) from error

    async def close(self) -> None:
        """Wait for open transactions, at most 5 s, then close every connection."""
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def tenant_transaction(self, ctx: TenantContext) -> AsyncIterator[Transaction]:
        """A transaction that sees and writes the rows of ``ctx.tenant_id`` and no other."""
        async with self._transaction(ctx.tenant_id) as tx:
            yield tx

    @asynccontextmanager
    async def control_transaction(self) -> AsyncIterator[Transaction]:
        """A transaction without a tenant: no tenant row is visible, only control functions do anything."""
        async with self._transaction("") as tx:
            yield tx

    @asynccontextmanager
    async def _transaction(self, tenant: str) -> AsyncIterator[Transaction]:
        begin = _begin(tenant)
        try:
            connection = await self._pool.acquire()
        except (*_LOST, _FULL) as error:
            raise Unavailable(f"Postgres does not answer: {error}", retry_after_s=1) from error
        try:
            try:
                await connection.execute(begin)
                yield Transaction(connection)
            except BaseException:
                await _undo(connection)
                raise
            await connection.execute(SQL["commit"])
        except _LOST as error:
            if isinstance(error, _DOUBTFUL) and not _is_closed(connection):
                raise
            raise Unavailable(f"Postgres went away: {error}", retry_after_s=1) from error
        except (asyncpg.TransactionRollbackError, asyncpg.InvalidCachedStatementError) as error:
            raise Unavailable("Somebody else's change came between. Try again.", retry_after_s=0.1) from error
        except asyncpg.DataError as error:
            # The driver's own refusals are of the class itself, those of the server of its children.
            if type(error) is not asyncpg.DataError and not isinstance(error, _VALUES):
                raise
            raise InvalidInput("A value in this request cannot be stored.") from error
        finally:
            # What was done is done; a connection that breaks while it is tidied up is thrown away by the pool.
            with contextlib.suppress(*_LOST):
                await self._pool.release(connection)


def _begin(tenant: str) -> str:
    if tenant and TENANT_ID.fullmatch(tenant) is None:
        raise ValueError("This is not the id of a tenant.")
    return SQL["begin"].format(tenant=tenant)


async def _undo(connection: asyncpg.pool.PoolConnectionProxy[Row]) -> None:
    try:
        await connection.execute(SQL["rollback"])
    except BaseException as error:
        # Nobody knows what is left on it: nobody gets it again.
        if not _is_closed(connection):
            connection.terminate()
        if not isinstance(error, _LOST):
            raise


async def _reaches_the_server(dsn: str) -> bool:
    """Whether no pooler stands in between. Raises what a server does that does not answer."""
    connection = await asyncpg.connect(dsn, timeout=10, statement_cache_size=0)
    try:
        answering = await connection.fetchval(SQL["server_process"])
        return bool(answering == connection.get_server_pid())
    finally:
        await connection.close(timeout=5)


async def _tidy_already(connection: asyncpg.Connection[Row]) -> None:
    """Each transaction ends with all that the driver would do here."""


def _is_closed(connection: asyncpg.pool.PoolConnectionProxy[Row]) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True  # the pool has taken it back already, because it broke


async def _init(connection: asyncpg.Connection[Row]) -> None:
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(kind, schema="pg_catalog", encoder=_to_json, decoder=json.loads)


def _to_json(value: object) -> str:
    # Postgres' jsonb holds neither NUL characters nor NaN: NUL is replaced, NaN refused, so that the caller is told.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _ESCAPE.sub(lambda found: found[1] or "\\ufffd", text) if "\\u0000" in text else text
