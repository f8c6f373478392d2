"""One pooled connection, many tenants: nothing of one is left on it for the next, also after errors."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import replace
from urllib.parse import urlsplit

import asyncpg
import pytest

from core.db.pool import Database
from core.db.queries import Query
from core.ids import TenantId
from core.settings import Settings
from core.tenancy import ActorKind, Policy, TenantContext
from tests.fixtures.rows import fill


def context(tenant: str) -> TenantContext:
    return TenantContext(
        tenant_id=TenantId(tenant),
        user_id=None,
        actor_kind=ActorKind.SYSTEM,
        actor_id="test",
        scopes=frozenset(),
        policy=Policy(),
        policy_version=1,
        org_id=tenant,
        region="us-east-1",
    )


async def test_tenants_that_share_one_connection_in_turn_never_see_each_other_whatever_went_wrong_before(
    settings: Settings, owner_dsn: str
) -> None:
    assert settings.database_app_url is not None
    owner = await asyncpg.connect(owner_dsn)
    await fill(owner, "alpha", "bravo")
    db = await Database.open(settings.database_app_url.get_secret_value(), size=1)
    mine, theirs = context("alpha"), context("bravo")
    seen, asleep = Query("select distinct tenant_id from runs"), Query("select pg_sleep(30)")
    sticky = Query("select set_config('app.tenant', $1, false)")

    async def at_home() -> None:
        for ctx in (mine, theirs, replace(mine, tenant_id=TenantId("")), mine):
            async with db.tenant_transaction(ctx) as tx:
                assert [row["tenant_id"] for row in await tx.fetch(seen)] == [ctx.tenant_id][: bool(ctx.tenant_id)]
        async with db.control_transaction() as tx:
            assert await tx.fetch(seen) == []

    await at_home()
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with db.tenant_transaction(theirs) as tx:
            await tx.fetch(Query("select 1 / 0"))
    await at_home()
    async with db.tenant_transaction(theirs) as tx:
        await tx.execute(sticky, "bravo")  # tries to leave its tenant on the connection
        await tx.execute(Query("set search_path = pg_catalog"))
    await at_home()
    sleeping = asyncio.create_task(_statement(db, theirs, asleep))
    active = "select count(*) from pg_stat_activity where query = $1"
    while not await owner.fetchval(active, asleep):  # noqa: ASYNC110 - another process sets no event
        await asyncio.sleep(0.01)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    await at_home()
    await db.close()
    await owner.close()


async def test_statements_stay_prepared_on_a_server_and_not_behind_a_pooler(settings: Settings) -> None:
    assert settings.database_app_url is not None
    address = urlsplit(settings.database_app_url.get_secret_value())
    assert address.hostname is not None
    assert address.port is not None
    pooler = Pooler(address.hostname, address.port)
    server = await asyncio.start_server(pooler.connected, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    pooled = address._replace(netloc=f"{address.username}:{address.password}@127.0.0.1:{port}", query="sslmode=disable")
    assert await _prepared(address.geturl()) == 1
    assert await _prepared(pooled.geturl()) == 0
    server.close()
    await asyncio.gather(*pooler.connections)


async def test_what_is_not_the_id_of_a_tenant_opens_nothing(settings: Settings) -> None:
    assert settings.database_app_url is not None
    db = await Database.open(settings.database_app_url.get_secret_value(), size=1)
    for name in ("alpha', false); select set_config('app.tenant', 'bravo", "Alpha", "a", "alpha\n"):
        with pytest.raises(ValueError):
            async with db.tenant_transaction(context(name)):
                raise AssertionError("opened")
    await db.close()


class Pooler:
    """As a pooler does: tells that it is the process at the other end itself, and stands in between."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self.connections: list[asyncio.Task[None]] = []

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody comes."""
        self.connections.append(asyncio.create_task(self._stand_between(reader, writer)))

    async def _stand_between(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(*self._address)
        answering = asyncio.create_task(self._answer(from_server, writer))
        while data := await reader.read(65_536):
            to_server.write(data)
        to_server.close()
        await to_server.wait_closed()
        await answering

    async def _answer(self, from_server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                kind, length = struct.unpack("!cI", await from_server.readexactly(5))
                body = await from_server.readexactly(length - 4)
                told = struct.pack("!I", 1) + body[4:] if kind == b"K" else body
                writer.write(struct.pack("!cI", kind, length) + told)
        writer.close()
        await writer.wait_closed()


async def _prepared(dsn: str) -> int:
    """Statements that are still prepared in the next transaction."""
    db, counts = await Database.open(dsn, size=1), list[int]()
    try:
        for _ in range(2):
            async with db.control_transaction() as tx:
                counts.append(int(await tx.fetchval(Query("select count(*) from pg_prepared_statements"))))
        return counts[-1]
    finally:
        await db.close()


async def _statement(db: Database, ctx: TenantContext, query: Query) -> None:
    async with db.tenant_transaction(ctx) as tx:
        await tx.execute(query)


async def test_a_transaction_of_one_statement_is_a_tenants_and_takes_no_second(
    settings: Settings, owner_dsn: str
) -> None:
    assert settings.database_app_url is not None
    owner = await asyncpg.connect(owner_dsn)
    await fill(owner, "alpha", "bravo")
    await owner.close()
    db = await Database.open(settings.database_app_url.get_secret_value(), size=1)
    seen = Query("select distinct tenant_id from runs")
    for name in ("alpha", "bravo", "alpha"):
        async with db.tenant_statement(context(name)) as tx:
            assert [row["tenant_id"] for row in await tx.fetch(seen)] == [name]
            with pytest.raises(RuntimeError):
                await tx.fetch(seen)
        async with db.control_statement() as tx:
            assert await tx.fetch(seen) == []
        with pytest.raises(asyncpg.DivisionByZeroError):
            async with db.tenant_statement(context(name)) as tx:
                await tx.fetch(Query("select 1 / 0"))
        async with db.control_transaction() as tx:
            assert await tx.fetch(seen) == []
    await db.close()
