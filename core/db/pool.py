"""Connections to Postgres, and the only ways to a tenant's rows.

``Database`` owns one asyncpg pool, logged in as the runtime role. Rows are reached inside a transaction:

- ``tenant_transaction(ctx)`` sets ``app.tenant`` for that transaction; row-level security does the rest.
- ``control_transaction()`` sets no tenant. It sees no tenant row; it can only call the control functions
  (claim, wake, login …) that the migrations list.
- ``tenant_statement(ctx)`` and ``control_statement()`` are the same for exactly one statement. It ends with the
  statement, so that what it locks for everybody (a worker, a tenant's place in the queue) is locked for as long as
  the server works on it, and not until we find the time to say commit. Its tenant is forgotten by the first message of
  whoever uses the connection next.

Values that Postgres cannot hold (NUL in a text, a number out of range) raise ``InvalidInput``: they are the
caller's. Both end with the block: commit on success, rollback on any exception, cancellation included. Statements
stay prepared on a connection, unless a transaction-mode pooler (Neon, PgBouncer) stands in between: then the next
transaction may be on another server process.

On failure: a server that is gone, or has no connection left, raises ``Unavailable`` (retryable), and so does a
transaction that lost a deadlock; the pool reconnects by itself. So does what takes longer than ``PATIENCE_S``: a
statement, which the server is told to give up, or the wait for a connection of the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
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
PATIENCE_S = 60.0
"""How long a statement, or a transaction that waits for a connection, may take."""

SQL = load_queries(__file__, "pool.sql")
_WHOLE = (SQL["begin"], SQL["commit"], SQL["rollback"])
_ALONE = (SQL["begin_one"], None, SQL["undo_one"])


class Transaction:
    """An open transaction. Every method takes a named query and its positional arguments."""

    def __init__(self, connection: asyncpg.pool.PoolConnectionProxy[Row], statements: int = sys.maxsize) -> None:
        self._reached = connection
        self._left = statements

    @property
    def _connection(self) -> asyncpg.pool.PoolConnectionProxy[Row]:
        if not self._left:
            raise RuntimeError("This transaction ended with its only statement.")
        self._left -= 1
        return self._reached

    async def fetch(self, query: Query, *args: object) -> list[Row]:
        """All rows."""
        with _in_time():
            return await self._connection.fetch(query, *args)

    async def fetchrow(self, query: Query, *args: object) -> Row | None:
        """The first row or None."""
        with _in_time():
            return await self._connection.fetchrow(query, *args)

    async def fetchval(self, query: Query, *args: object) -> Any:
        """The first column of the first row, or None."""
        with _in_time():
            return await self._connection.fetchval(query, *args)

    async def execute(self, query: Query, *args: object) -> int:
        """Run a statement; the number of rows it touched."""
        with _in_time():
            status = await self._connection.execute(query, *args)
        count = status.rsplit(" ", 1)[-1]
        return int(count) if count.isdigit() else 0

    async def execute_many(self, query: Query, rows: Sequence[Sequence[object]]) -> None:
        """Run a statement once per row, in one round trip."""
        with _in_time():
            await self._connection.executemany(query, rows)


class Database:
    """A pool of connections as the runtime role. Make one per process with ``open``."""

    def __init__(self, pool: asyncpg.Pool[Row], *, pooled: bool, patience_s: float = PATIENCE_S) -> None:
        self._pool = pool
        self._pooled = pooled
        self._patience_s = patience_s

    @classmethod
    async def open(cls, dsn: str, *, size: int = 10, name: str = "bailiwick", patience_s: float = PATIENCE_S) -> Self:
        """Connect. Raises ``Unavailable`` when the server does not answer within 10 s."""
        try:
            pooled = not await _reaches_the_server(dsn)
            pool = await asyncpg.create_pool(
                dsn,
                min_size=0,
                max_size=size,
                timeout=10,
                command_timeout=patience_s,
                statement_cache_size=0 if pooled else _PREPARED,
                max_inactive_connection_lifetime=120,
                init=_init,
                reset=_tidy_already,
                server_settings={"application_name": name},
            )
            return cls(pool, pooled=pooled, patience_s=patience_s)
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

    async def in_batches(self, some: Callable[[Transaction], Awaitable[int]], at_once: int) -> int:
        """Do ``some`` of the work, at most ``at_once``, in one control transaction after the other until there is none.

        How much it was.
        """
        total = 0
        while True:
            async with self.control_transaction() as tx:
                done = await some(tx)
            total += done
            if done < at_once:
                return total

    @asynccontextmanager
    async def tenant_statement(self, ctx: TenantContext) -> AsyncIterator[Transaction]:
        """A tenant's transaction of exactly one statement; a second one raises ``RuntimeError``."""
        async with self._transaction(ctx.tenant_id, statements=1) as tx:
            yield tx

    @asynccontextmanager
    async def control_statement(self) -> AsyncIterator[Transaction]:
        """A transaction without a tenant, of exactly one statement."""
        async with self._transaction("", statements=1) as tx:
            yield tx

    @asynccontextmanager
    async def _transaction(self, tenant: str, statements: int = sys.maxsize) -> AsyncIterator[Transaction]:
        # Behind a pooler, what is set outside of a transaction may be set for somebody else.
        alone = statements == 1 and not self._pooled
        opening, commit, undo = _ALONE if alone else _WHOLE
        begin = _for(tenant, opening)
        try:
            connection = await self._pool.acquire(timeout=self._patience_s)
        except TimeoutError as error:
            raise Unavailable("No connection to Postgres became free in time.", retry_after_s=1) from error
        except (*_LOST, _FULL) as error:
            raise Unavailable(f"Postgres does not answer: {error}", retry_after_s=1) from error
        try:
            try:
                with _in_time():
                    await connection.execute(begin)
                yield Transaction(connection, statements)
                if commit is not None:
                    with _in_time():
                        await connection.execute(commit)
            except BaseException:
                await _undo(connection, undo)
                raise
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


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    # The driver's, for the statement: whoever gives the whole transaction a time gets a cancellation here.
    try:
        yield
    except TimeoutError as error:
        raise Unavailable("Postgres took too long.", retry_after_s=1) from error


def _for(tenant: str, opening: str) -> str:
    if tenant and TENANT_ID.fullmatch(tenant) is None:
        raise ValueError("This is not the id of a tenant.")
    return opening.format(tenant=tenant)


async def _undo(connection: asyncpg.pool.PoolConnectionProxy[Row], undo: str) -> None:
    try:
        await connection.execute(undo)
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
    """Each transaction ends, or the next begins, with all that the driver would do here."""


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
