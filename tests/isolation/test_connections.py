"""One pooled connection, many tenants: nothing of one is left on it for the next, also after errors."""

from __future__ import annotations

import asyncio
from dataclasses import replace

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


async def _statement(db: Database, ctx: TenantContext, query: Query) -> None:
    async with db.tenant_transaction(ctx) as tx:
        await tx.execute(query)
